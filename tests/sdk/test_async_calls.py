"""The asynchronous calls of the new SDKs' ordinary clients (3.6.0, 4.1.5): they run the others in threads, and
callbacks may be coroutines."""

import asyncio

import pytest
from cq import IS_NEWEST, KINDS, message, response_to, subscription
from kubemq.common.cancellation_token import CancellationToken
from kubemq.cq import Client as CqClient
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import (
    EventMessage,
    EventsStoreSubscription,
    EventsSubscription,
    EventStoreMessage,
)
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import (
    ADDRESS,
    PEER_ADDRESS,
    Inbox,
    body_of,
    number_of,
    numbered,
    run_async,
    unique,
    until,
)

try:
    from kubemq.pubsub.events_store_subscription import EventStoreStartPosition as Start
except ImportError:
    from kubemq.pubsub import EventsStoreType as Start

COUNT = 20
CLIENTS = {
    "events": PubSubClient,
    "events_store": PubSubClient,
    "commands": CqClient,
    "queries": CqClient,
    "queues": QueuesClient,
}


def connected(of, address=ADDRESS):
    return of(address=address, client_id=unique("client"))


def call(of, *names):
    """A method that has another name in each release."""
    return next(getattr(of, name) for name in names if hasattr(of, name))


def numbers(response):
    return [number_of(one.body) for one in response.messages]


def test_events_and_stored_events():
    channel = unique("async")
    live, stored, token = Inbox(), Inbox(), CancellationToken()

    async def heard(one):
        live.add(one)

    async def read(one):
        stored.add(one)

    async def run():
        async with connected(PubSubClient) as client, connected(PubSubClient, PEER_ADDRESS) as other:
            assert (await client.ping_async()).host
            for number in range(COUNT):
                event = EventStoreMessage(**numbered("event", channel, number))
                result = await client.send_events_store_message_async(event)
                assert (result.id, result.sent) == ("event-%d" % number, True), result.error
            other.subscribe_to_events_async(
                EventsSubscription(channel=channel, on_receive_event_callback=heard), token
            )
            reading = EventsStoreSubscription(
                channel=channel,
                events_store_type=Start.StartFromFirst,
                on_receive_event_callback=read,
            )
            other.subscribe_to_events_store_async(reading, token)
            await asyncio.to_thread(stored.wait, COUNT)
            while not live.now():
                probe = EventMessage(channel=channel, metadata="probe", body=b"p")
                await client.send_events_message_async(probe)
                await asyncio.sleep(0.02)
            for number in range(COUNT):
                event = EventMessage(**numbered("event", channel, number))
                await client.send_events_message_async(event)
            last = "m%d" % (COUNT - 1)
            await asyncio.to_thread(until, lambda: any(e.metadata == last for e in live.now()))
            token.cancel()

    run_async(run())
    assert [one.sequence for one in stored.now()] == list(range(1, COUNT + 1))
    assert [number_of(one.body) for one in stored.now()] == list(range(COUNT))
    sent = [number_of(one.body) for one in live.now() if one.metadata != "probe"]
    assert sent == list(range(COUNT))


def test_queues():
    channel = unique("queue")

    async def run():
        async with connected(QueuesClient) as client, connected(QueuesClient, PEER_ADDRESS) as other:
            assert (await client.ping_async()).host
            peek = call(client, "peek_queue_messages_async", "waiting_async")
            for number in range(6):
                sent = QueueMessage(**numbered("id", channel, number))
                result = await client.send_queues_message_async(sent)
                assert not result.is_error, result.error
            assert numbers(await peek(channel, 3, 1)) == [0, 1, 2]
            response = await other.receive_queues_messages_async(channel, 3, 10)
            assert numbers(response) == [0, 1, 2]
            response.messages[0].ack()
            call(response.messages[1], "nack", "reject")()
            response.messages[2].ack()
            assert numbers(await client.pull_async(channel, 4, 10)) == [3, 4, 5, 1]
            assert (await peek(channel, 1, 1)).messages == []

    run_async(run())


@pytest.mark.parametrize("kind", KINDS)
def test_requests(kind):
    channel, heard, token = unique("requests"), [], CancellationToken()
    # Command responses of 3.6.0 have none.
    has_contents = kind == "query" or IS_NEWEST

    async def run():
        async with connected(CqClient) as client, connected(CqClient, PEER_ADDRESS) as responder:
            assert (await client.ping_async()).host

            async def answer(request):
                if request.metadata != "probe":
                    heard.append(request)
                fields = {"metadata": "re " + request.metadata, "body": request.body}
                response = response_to(kind, request, **(fields if has_contents else {}))
                await responder.send_response_message_async(response)

            wanted = subscription(kind, channel, answer)
            if kind == "command":
                responder.subscribe_to_commands_async(wanted, token)
            else:
                responder.subscribe_to_queries_async(wanted, token)
            ask = getattr(client, "send_%s_request_async" % kind)
            is_live = False
            while not is_live:
                try:
                    await ask(message(kind, channel, timeout=1, metadata="probe"))
                    is_live = True
                except Exception as error:
                    assert "Error 301" in str(error), "nobody is there yet"
            for number in range(COUNT):
                response = await ask(message(kind, channel, number))
                assert response.is_executed, response.error
                if has_contents:
                    assert response.metadata == "re m%d" % number
                    assert response.body == body_of(number)
            token.cancel()

    run_async(run())
    assert [number_of(request.body) for request in heard] == list(range(COUNT))


@pytest.mark.parametrize("kind", CLIENTS)
def test_channels_are_made_listed_and_deleted(kind):
    name = unique("async")

    async def ask(client, operation):
        ending = "channels" if operation == "list" else "channel"
        return await getattr(client, "%s_%s_%s_async" % (operation, kind, ending))(name)

    async def run():
        async with connected(CLIENTS[kind]) as client:
            assert await ask(client, "list") == []
            assert await ask(client, "create") is True
            assert [(c.name, c.type) for c in await ask(client, "list")] == [(name, kind)]
            assert await ask(client, "delete") is True
            assert await ask(client, "list") == []

    run_async(run())
