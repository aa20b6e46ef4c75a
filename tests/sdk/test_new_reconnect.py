"""Clients of the newest SDK whose connection is cut while their server goes on: what they tell, and
that they come back by themselves."""

import asyncio
import contextlib

import pytest
from admin import subscribers
from cq import Serving, cq_client, go_live, message, response_to, send
from kubemq import (
    AsyncPubSubClient,
    ClientConfig,
    ConnectionState,
    KubeMQConnectionError,
    RetryPolicy,
)
from new import EventStoreStartPosition as Start
from new import (
    Subscription,
    event,
    numbers,
    pubsub,
    queue_message,
    queues,
    receive,
    received,
    store_event,
)
from new import go_live as listen
from new import send as send_messages
from proxy import Proxy
from support import number_of, run_async, settle, store_events, unique, until


@pytest.fixture
def proxy():
    with Proxy() as between:
        yield between


async def lost(client):
    """Comes back when a client has noticed it, which it does when it calls."""
    with pytest.raises(KubeMQConnectionError):
        while True:
            await client.send_event_unary(event(unique("events"), 1))


def test_an_asynchronous_client_tells_when_it_is_lost_and_when_it_is_back(proxy):
    changes, channel = [], unique("events")
    config = ClientConfig(
        address=proxy.address,
        client_id=unique("client"),
        reconnect_initial_delay_ms=50,
        reconnect_max_delay_ms=1_000,
        retry_policy=RetryPolicy(max_retries=0, initial_backoff_ms=50, max_backoff_ms=1_000),
    )

    async def run():
        async with AsyncPubSubClient(config=config) as client:
            client.on_disconnected(lambda: changes.append("disconnected"))
            client.on_reconnecting(lambda: changes.append("reconnecting"))
            client.on_reconnected(lambda: changes.append("reconnected"))
            await client.send_event_unary(event(channel, 1))
            proxy.cut()
            await lost(client)
            assert not client.is_connected
            assert client.connection_state == ConnectionState.RECONNECTING
            proxy.open()
            while not client.is_connected:
                await asyncio.sleep(0.02)
            assert client.connection_state == ConnectionState.READY
            await client.send_event_unary(event(channel, 3))

    run_async(asyncio.wait_for(run(), 60))
    assert changes == ["disconnected", "reconnecting", "reconnected"]


def test_subscriptions_come_back_and_say_what_happened(proxy):
    live, stored = unique("live"), unique("stored")
    with (
        pubsub() as client,
        Subscription(address=proxy.address).events(live) as heard,
        Subscription(address=proxy.address).store(stored, Start.StartFromFirst) as read,
    ):
        listen(client, live, heard)
        store_events(stored, range(10))
        read.inbox.wait(10)
        proxy.cut()
        for one in (heard, read):
            assert "Stream broken" in one.inbox.wait_error()
        until(lambda: subscribers(stored) == 0, what="the end of its connection")
        store_events(stored, range(10, 20))
        proxy.open()
        read.inbox.wait(20)
        heard.inbox.items.clear()
        listen(client, live, heard)
        client.send_event(event(live, 5))
        until(heard.numbers)
        settle([heard.inbox, read.inbox], 0.2)
        assert heard.numbers() == [5]
        assert read.sequences() == list(range(1, 21))
        assert read.numbers() == list(range(20))


def test_what_a_lost_client_of_queues_held_comes_back_and_so_does_the_client(proxy):
    channel = unique("queue")
    with queues() as other, queues(address=proxy.address) as client:
        send_messages(client, channel, 5)
        assert not client.send_queue_message(queue_message(channel, 5)).is_error
        held = receive(client, channel, 3)
        assert numbers(held.messages) == [0, 1, 2]
        proxy.cut()
        # To their old places.
        back = receive(other, channel, 6)
        assert numbers(back.messages) == [0, 1, 2, 3, 4, 5]
        assert [one.receive_count for one in back.messages] == [2, 2, 2, 1, 1, 1]
        back.ack_all()
        proxy.open()
        until(lambda: sends(client, queue_message(channel, 7)), what="a send")
        response = until(lambda: received(client, channel), what="a receive")
        # What was told to have failed may have been kept by the SDK, and sent later on.
        assert set(numbers(response.messages)) == {7}
        response.ack_all()


def sends(client, message):
    """Whether it is taken. A client that knows that it is lost does not even try."""
    with contextlib.suppress(KubeMQConnectionError):
        return not client.send_queue_message(message).is_error
    return False


def test_a_responder_comes_back(proxy):
    channel = unique("commands")

    def answer(request):
        return response_to("command", request, body=request.body)

    with (
        cq_client() as client,
        Serving("command", channel, answer, client=cq_client(proxy.address)) as serving,
    ):
        go_live(client, "command", channel, serving)
        proxy.cut()
        assert serving.inbox.wait_error() == "Connection Error: Server is unavailable"
        proxy.open()
        serving.probes = 0
        go_live(client, "command", channel, serving)
        response = send(client, message("command", channel, 7))
        assert (response.is_executed, number_of(response.body)) == (True, 7)


def test_a_client_that_may_not_come_back_stays_lost(proxy):
    config = ClientConfig(address=proxy.address, client_id=unique("client"), auto_reconnect=False)

    async def run():
        async with AsyncPubSubClient(config=config) as client:
            assert (await client.send_event_store(store_event(unique("store"), 1))).sent
            proxy.cut()
            await lost(client)
            proxy.open()
            for _ in range(3):
                with pytest.raises(KubeMQConnectionError):
                    await client.ping()

    run_async(asyncio.wait_for(run(), 60))
