"""The new SDKs (3.6.0, 4.1.5) with certificates and tokens, under access rules."""

import asyncio
import contextlib

import grpc
import pytest
from access import CA_FILE, DENIED, expired, forged, token
from access_clients import (
    call,
    connected,
    following,
    opened,
    receive,
    send_event,
    send_message,
    send_store_event,
    subscribe,
)
from cq import IS_NEWEST, KINDS, message, response_to, send
from kubemq.common.cancellation_token import CancellationToken
from kubemq.cq import Client as CqClient
from kubemq.grpc import kubemq_pb2 as pb
from kubemq.grpc import kubemq_pb2_grpc
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import EventMessage, EventsSubscription
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, SECONDS_MAX, Inbox, status_of, unique, until


def test_events_reach_whoever_may_read_them():
    channel = unique("open.events")
    with connected(PubSubClient, "writer") as writer:
        with following(PubSubClient, "reader", "events", channel) as (_, inbox):
            until(inbox.now, lambda: send_event(writer, channel))
            assert inbox.now()[0].channel == channel


def test_stored_events_reach_whoever_may_read_them():
    channel = unique("open.store")
    with connected(PubSubClient, "writer") as writer:
        send_store_event(writer, channel)
    with following(PubSubClient, "reader", "events_store", channel) as (_, inbox):
        assert bytes(inbox.wait(1)[0].body) == b"b"


def test_queues_are_filled_and_emptied_by_whoever_may():
    queue = unique("open.queue")
    with connected(QueuesClient, "writer") as writer, connected(QueuesClient, "reader") as reader:
        assert not send_message(writer, queue).is_error
        received = receive(reader, queue)
        assert [bytes(one.body) for one in received.messages] == [b"b"]
        received.messages[0].ack()
        # It is on its way when something later is answered.
        receive_nothing = call(reader, "peek_queue_messages", "waiting")
        until(lambda: not receive_nothing(queue, 1, 1).messages)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_are_asked_and_answered_by_whoever_may(kind):
    channel = unique("open.requests")
    cancel, inbox = CancellationToken(), Inbox()
    with connected(CqClient, "reader") as reader, connected(CqClient, "writer") as writer:

        class Answering(Inbox):
            def add(self, request):
                reader.send_response_message(response_to(kind, request))

        answering = Answering()
        subscribe(reader, kind, channel, answering, cancel)

        def ask():
            # That nobody is there yet is an error.
            with contextlib.suppress(Exception):
                inbox.add(send(writer, message(kind, channel, timeout=1)))

        until(inbox.now, ask)
        assert inbox.now()[0].is_executed
        cancel.cancel()


@pytest.mark.skipif(not IS_NEWEST, reason="3.6.0 has no asynchronous clients")
def test_the_asynchronous_clients_come_in_as_the_others_do():
    from kubemq import AsyncCQClient, AsyncPubSubClient, AsyncQueuesClient

    queue, channel = unique("open.queue"), unique("open.events")
    heard = []

    async def listen(reader):
        wanted = EventsSubscription(channel=channel, on_receive_event_callback=heard.append)
        async for event in reader.subscribe_to_events(wanted):
            heard.append(event)
            return

    async def run():
        async with (
            opened(AsyncPubSubClient, "reader") as reader,
            opened(AsyncPubSubClient, "writer") as writer,
        ):
            listening = asyncio.create_task(listen(reader))
            while not heard:
                await writer.send_event(EventMessage(channel=channel, metadata="m", body=b"b"))
                await asyncio.sleep(0.02)
            await listening
        async with (
            opened(AsyncQueuesClient, "writer") as writer,
            opened(AsyncQueuesClient, "reader") as reader,
        ):
            sent = await writer.send_queue_message(QueueMessage(channel=queue, body=b"b"))
            assert not sent.is_error
            got = await reader.receive_queue_messages(queue, 1, 5)
            assert [bytes(one.body) for one in got.messages] == [b"b"]
            denied = await reader.send_queue_message(QueueMessage(channel=queue, body=b"b"))
            assert denied.is_error and denied.error == DENIED
        async with opened(AsyncCQClient, "writer", auth_token=forged()) as client:
            assert (await client.ping()).host, "a ping needs none"
            with pytest.raises(Exception, match="(?i)authentication"):
                await client.send_command(message("command", channel, timeout=1))

    asyncio.run(asyncio.wait_for(run(), SECONDS_MAX))


@pytest.mark.parametrize("wrong", [expired, forged], ids=["expired", "forged"])
def test_without_a_good_token_nobody_comes_in(wrong):
    with connected(CqClient, "writer", auth_token=wrong()) as client:
        assert client.ping().host, "a ping needs none"
        for kind in KINDS:
            with pytest.raises(Exception, match="(?i)authentication"):
                send(client, message(kind, unique("open.requests"), timeout=1))
    with connected(PubSubClient, "reader", auth_token=wrong()) as client:
        inbox = Inbox()
        subscribe(client, "events", unique("open.events"), inbox, CancellationToken())
        assert "uthentication" in str(inbox.wait_error())


@pytest.mark.skipif(not IS_NEWEST, reason="this SDK's clients keep the token they began with")
def test_another_token_counts_from_the_next_call_on():
    channel = unique("open.events")
    with connected(PubSubClient, "writer", auth_token=expired()) as client:
        with pytest.raises(Exception, match="(?i)authentication"):
            send_event(client, channel)
        client.set_token(token())
        send_event(client, channel)
        client.set_token(forged())
        with pytest.raises(Exception, match="(?i)authentication"):
            send_event(client, channel)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_not_allowed_is_an_error(kind):
    for who, channel in [("writer", "closed"), ("reader", "open.requests")]:
        with connected(CqClient, who) as client:
            with pytest.raises(Exception, match="(?i)denied"):
                send(client, message(kind, channel, timeout=1))


@pytest.mark.parametrize(
    ("of", "kind"),
    [
        (PubSubClient, "events"),
        (PubSubClient, "events_store"),
        (CqClient, "command"),
        (CqClient, "query"),
    ],
)
def test_a_subscription_that_is_not_allowed_is_an_error(of, kind):
    for who, channel in [("reader", "closed"), ("writer", "open.x")]:
        with following(of, who, kind, channel) as (_, inbox):
            assert "denied" in str(inbox.wait_error())
            assert not inbox.now()


def test_a_stored_event_that_is_not_allowed_is_an_error():
    for who, channel in [("writer", "closed"), ("reader", "open.store")]:
        with connected(PubSubClient, who) as client:
            try:
                result = send_store_event(client, channel)
            except Exception as error:
                assert DENIED in str(error)
            else:
                assert (result.sent, result.error) == (False, DENIED)


def test_a_message_that_is_not_allowed_is_an_error_of_its_own():
    for who, queue in [("writer", "closed"), ("reader", "open.queue")]:
        with connected(QueuesClient, who) as client:
            result = send_message(client, queue)
            assert result.is_error
            assert DENIED in result.error


def test_a_receive_that_is_not_allowed_is_an_error():
    for who, queue in [("reader", "closed"), ("writer", "open.queue")]:
        with connected(QueuesClient, who) as client:
            response = receive(client, queue)
            assert response.is_error
            assert DENIED in response.error
            with pytest.raises(Exception, match="(?i)denied"):
                answer = call(client, "peek_queue_messages", "waiting")(queue, 1, 1)
                assert not answer.is_error, answer.error


def test_channels_are_managed_by_whoever_may_send_there():
    queue = unique("open.queue")
    with connected(QueuesClient, "writer") as writer, connected(QueuesClient, "reader") as reader:
        writer.create_queues_channel(queue)
        assert [channel.name for channel in reader.list_queues_channels(queue)] == [queue]
        for client, name in [(reader, queue), (writer, "closed")]:
            with pytest.raises(Exception, match="(?i)denied"):
                client.create_queues_channel(name)
    with connected(QueuesClient, "somebody") as somebody:
        assert not somebody.list_queues_channels(queue)


def test_who_shows_no_certificate_or_does_not_encrypt_is_not_served():
    with open(CA_FILE, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    for channel in (grpc.secure_channel(ADDRESS, credentials), grpc.insecure_channel(ADDRESS)):
        stub = kubemq_pb2_grpc.kubemqStub(channel)
        code, _ = status_of(lambda stub=stub: stub.Ping(pb.Empty(), timeout=10))
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        channel.close()
