"""Clients of the newest SDK that do nothing for longer than their keepalive: they stay connected,
and work afterwards."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from cq import Serving, message, response_to, send
from cq import go_live as serving_is_live
from kubemq import (
    AsyncCQClient,
    AsyncPubSubClient,
    AsyncQueuesClient,
    ClientConfig,
    ConnectionState,
    CQClient,
    KeepAliveConfig,
    PubSubClient,
    QueuesClient,
)
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from kubemq.grpc import kubemq_pb2_grpc
from new import EventStoreStartPosition as Start
from new import Subscription, event, go_live, numbers, queue_message, receive, store_event
from new_async import ask, cancelled, collect, reached, serve, to_events
from new_async import go_live as is_asked
from support import ADDRESS, pb, run_async, unique, until

# The shortest that the SDK takes, and the time in which three pings are due.
INTERVAL_SECONDS = 5
IDLE_SECONDS = 3 * INTERVAL_SECONDS + 2
# Far more often than any client of the SDK, and without a call for ever.
EVERY_SECOND = [
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def config():
    keep_alive = KeepAliveConfig(
        ping_interval_in_seconds=INTERVAL_SECONDS, ping_timeout_in_seconds=INTERVAL_SECONDS
    )
    return ClientConfig(address=ADDRESS, client_id=unique("idle"), keep_alive=keep_alive)


@contextlib.contextmanager
def unused_client():
    with PubSubClient(config=config()) as client:
        yield
        assert client.is_connected and client.ping().host
        result = client.send_event_store(store_event(unique("store"), 1))
        assert (result.sent, result.error) == (True, "")


@contextlib.contextmanager
def idle_subscriptions():
    live, stored = unique("live"), unique("stored")
    clients = [PubSubClient(config=config()) for _ in range(2)]
    with (
        Subscription(client=clients[0]).events(live) as heard,
        Subscription(client=clients[1]).store(stored, Start.StartFromFirst) as read,
    ):
        go_live(heard.client, live, heard)
        read.client.send_event_store(store_event(stored, 0))
        read.inbox.wait(1)
        yield
        heard.client.send_event(event(live, 1))
        read.client.send_event_store(store_event(stored, 1))
        until(lambda: heard.numbers() and len(read.numbers()) > 1)
        assert (heard.numbers(), read.numbers()) == ([1], [0, 1])
        assert (heard.inbox.errors, read.inbox.errors) == ([], [])


@contextlib.contextmanager
def idle_queue_streams():
    channel = unique("queue")
    with QueuesClient(config=config()) as client:

        def send_and_receive(number):
            assert not client.send_queue_message(queue_message(channel, number)).is_error
            response = receive(client, channel, 1)
            assert numbers(response.messages) == [number]
            return response

        held = send_and_receive(1)
        yield
        held.reject_all()
        [back] = receive(client, channel, 1, auto_ack=True).messages
        assert (back.id, back.receive_count) == ("id-1", 2)
        send_and_receive(2).ack_all()


@contextlib.contextmanager
def idle_responder():
    channel, client = unique("commands"), CQClient(config=config())

    def answer(request):
        return response_to("command", request)

    with Serving("command", channel, answer, client=client) as serving:
        serving_is_live(client, "command", channel, serving)
        yield
        assert send(client, message("command", channel)).is_executed
        assert serving.inbox.errors == []


@contextlib.contextmanager
def pinging_every_second():
    """One connection serves from its first call to its last."""
    states, channel_name = [], unique("pinged")
    with grpc.insecure_channel(ADDRESS, options=EVERY_SECOND) as channel:
        channel.subscribe(states.append)
        stub = kubemq_pb2_grpc.kubemqStub(channel)
        stub.Ping(pb.Empty())
        yield stub, channel_name
        stub.Ping(pb.Empty())
        ready = grpc.ChannelConnectivity.READY
        until(lambda: ready in states)
        assert states.index(ready) == len(states) - 1, states


@contextlib.contextmanager
def subscribed_and_pinging_every_second():
    with pinging_every_second() as (stub, channel):
        wanted = pb.Subscribe(SubscribeTypeData=1, ClientID="idle", Channel=channel)
        call = stub.SubscribeToEvents(wanted)
        call.initial_metadata()
        yield
        stub.SendEvent(pb.Event(ClientID="idle", Channel=channel, Body=b"x"))
        assert next(call).Body == b"x"
        call.cancel()


async def idle_asynchronous_clients(are_idle, may_go_on):
    live, queue, commands, lost = unique("live"), unique("queue"), unique("commands"), []
    heard, asked_for = [], []
    token = AsyncCancellationToken()
    async with (
        AsyncPubSubClient(config=config()) as events,
        AsyncQueuesClient(config=config()) as queues,
        AsyncCQClient(config=config()) as requests,
    ):
        for client in (events, queues, requests):
            client.on_disconnected(lambda: lost.append("disconnected"))
            client.on_reconnecting(lambda: lost.append("reconnecting"))
        tasks = [
            asyncio.create_task(collect(events.subscribe_to_events(to_events(live), token), heard)),
            asyncio.create_task(serve(requests, "command", commands, asked_for)),
        ]
        await is_asked(requests, "command", commands, asked_for)
        while not heard:
            await events.publish_event(event(live, 0))
            await asyncio.sleep(0.02)
        assert not (await queues.send_queue_message(queue_message(queue, 1))).is_error
        held = await queues.receive_queue_messages(queue, 1, 10)
        are_idle.set()
        await asyncio.to_thread(may_go_on.wait)
        await events.publish_event(event(live, 1))
        await reached(lambda: heard[-1].metadata == "m1")
        assert (await ask(requests, message("command", commands))).is_executed
        await held.messages[0].async_nack()
        back = await queues.receive_queue_messages(queue, 1, 10)
        assert numbers(back.messages) == [1]
        for client in (events, queues, requests):
            assert client.is_connected and client.connection_state == ConnectionState.READY
        assert lost == []
        await cancelled(token, *tasks)


def test_idle_clients_stay_connected_and_work_afterwards(capfd):
    are_idle, may_go_on = threading.Event(), threading.Event()
    with contextlib.ExitStack() as idle, ThreadPoolExecutor(1) as pool:
        idle.callback(may_go_on.set)
        asynchronous = pool.submit(run_async, idle_asynchronous_clients(are_idle, may_go_on))
        for clients in (
            unused_client,
            idle_subscriptions,
            idle_queue_streams,
            idle_responder,
            pinging_every_second,
            subscribed_and_pinging_every_second,
        ):
            idle.enter_context(clients())
        until(lambda: are_idle.is_set() or asynchronous.done())
        # Nothing else is waited for than the time itself.
        time.sleep(IDLE_SECONDS)
        may_go_on.set()
        asynchronous.result()
    # What gRPC says when a server has enough of its pings.
    printed = capfd.readouterr().err
    assert "GOAWAY" not in printed and "too_many_pings" not in printed
