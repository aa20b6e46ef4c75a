"""What the newest SDK's clients, the asynchronous ones above all, are told when they show no good
token or ask for what they may not have."""

import asyncio
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from access import DENIED, expired, forged, token
from access_clients import FIRST, connected, opened, send_event
from cq import KINDS, message
from kubemq import (
    AsyncCQClient,
    AsyncPubSubClient,
    AsyncQueuesClient,
    ClientConfig,
    ErrorCode,
    KubeMQAuthenticationError,
    KubeMQError,
    PubSubClient,
)
from new import EventMessage, QueueMessage
from new_async import reached, requests_to, stopped, to_events, to_stored
from support import SECONDS_MAX, run_async, status_of, unique

UNAUTHENTICATED = "Error 421: authentication verification failed, "


async def assert_raised(awaitable, code, text):
    with pytest.raises(KubeMQAuthenticationError) as caught:
        await awaitable
    assert type(caught.value) is KubeMQAuthenticationError
    told = (caught.value.code, caught.value.message, caught.value.is_retryable)
    assert told == (code, text, False)


@pytest.mark.parametrize("wrong", [expired, forged])
def test_who_shows_no_good_token_is_told_so(wrong):
    channel = unique("open")
    with connected(PubSubClient, "writer", auth_token=wrong()) as client:
        code, text = status_of(lambda: send_event(client, channel))
        assert code == grpc.StatusCode.UNAUTHENTICATED and text.startswith(UNAUTHENTICATED)
        with pytest.raises(KubeMQAuthenticationError) as caught:
            client.create_events_channel(channel)
        assert type(caught.value) is KubeMQAuthenticationError
        assert (caught.value.code, caught.value.message) == (ErrorCode.AUTH_FAILED, text)

    async def run():
        async with (
            opened(AsyncCQClient, "writer", auth_token=wrong()) as requests,
            opened(AsyncQueuesClient, "reader", auth_token=wrong()) as queues,
        ):
            for refused in (
                requests.send_command(message("command", channel, timeout=1)),
                queues.peek_queue_messages(channel, 1, 1),
                queues.ack_all_queue_messages(channel, 1),
                queues.send_queue_message_simple(QueueMessage(channel=channel, body=b"b")),
            ):
                await assert_raised(refused, ErrorCode.AUTH_FAILED, text)

    run_async(run())


async def first_of(events):
    async for one in events:
        return one


def test_asynchronous_calls_that_are_not_allowed_raise_the_denial():
    channel = unique("open")

    async def run():
        async with (
            opened(AsyncQueuesClient, "writer") as queues,
            opened(AsyncPubSubClient, "reader") as events,
            opened(AsyncCQClient, "writer") as requests,
        ):
            for denied in (
                queues.peek_queue_messages(channel, 1, 1),
                queues.ack_all_queue_messages(channel, 1),
                events.send_event_unary(EventMessage(channel=channel, body=b"b")),
                requests.send_query(message("query", "closed", timeout=1)),
                *(first_of(requests_to(requests, kind, channel)) for kind in KINDS),
            ):
                await assert_raised(denied, ErrorCode.PERMISSION_DENIED, DENIED)
            for receive in (queues.receive_queue_messages, queues.receive_queue_messages_fast):
                response = await receive(channel, 1, 1)
                assert (response.is_error, response.error) == (True, DENIED)

    run_async(asyncio.wait_for(run(), SECONDS_MAX))


@pytest.mark.parametrize("kind", ["events", "events_store"])
def test_a_subscription_that_is_not_allowed_says_so_and_tries_again(kind):
    """It is a connection that failed to this SDK, which its other calls take for what it is."""
    errors, channel = [], unique("open")
    wanted = to_events(channel) if kind == "events" else to_stored(channel, FIRST)
    wanted.on_error_callback = errors.append

    async def run():
        async with opened(AsyncPubSubClient, "writer") as client:
            events = getattr(client, "subscribe_to_" + kind)(wanted)
            task = asyncio.create_task(first_of(events))
            await reached(lambda: len(errors) >= 2)
            assert not task.done()
            await stopped(task)

    run_async(run())
    assert all("Stream broken: " + DENIED in error for error in errors)


def test_another_token_counts_from_the_next_call_on():
    queue = unique("open.queue")

    async def run():
        async with opened(AsyncQueuesClient, "reader", auth_token=expired()) as client:
            for other in (expired(), forged()):
                client.set_token(other)
                with pytest.raises(KubeMQAuthenticationError):
                    await client.peek_queue_messages(queue, 1, 1)
                client.set_token(token())
                assert not (await client.peek_queue_messages(queue, 1, 1)).is_error

    run_async(run())


@pytest.mark.parametrize("connections", [1, 2])
def test_another_token_is_not_that_of_the_connections_of_a_pool(connections):
    """This SDK forgets them: they go on with the one they began with."""
    config = opened(ClientConfig, "writer", auth_token=expired(), connection_pool_size=connections)

    async def run():
        async with AsyncCQClient(config=config) as client:
            client.set_token(token())
            with pytest.raises(KubeMQError) as caught:
                await client.send_command(message("command", unique("open"), timeout=1))
            # With one it was let in, and nobody answered.
            assert isinstance(caught.value, KubeMQAuthenticationError) == (connections > 1)

    run_async(run())


class Provider:
    """Its first token is good for some seconds only, if it is told so."""

    def __init__(self, seconds=None):
        self.asked = 0
        self.seconds = seconds

    def get_token(self):
        self.asked += 1
        if self.seconds is None or self.asked > 1:
            return token(), None
        ends = datetime.now(timezone.utc) + timedelta(seconds=self.seconds)
        return token(exp=int(ends.timestamp())), ends


class Failing:
    def get_token(self):
        raise ValueError("no tokens today")


def client_with(provider, **options):
    options = {"auth_token": None, "credential_provider": provider, **options}
    return opened(AsyncQueuesClient, "writer", **options)


def test_a_provider_of_tokens_is_asked_when_a_client_connects():
    sent, provider = QueueMessage(channel=unique("open.queue"), body=b"b"), Provider()

    async def run():
        async with client_with(provider) as client:
            assert provider.asked > 1, "by each of the connections"
            for send in (client.send_queue_message, client.send_queue_message_simple):
                assert not (await send(sent)).is_error
        with pytest.raises(KubeMQError, match="no tokens today"):
            await client_with(Failing()).connect()

    run_async(run())


def test_a_provider_of_tokens_is_asked_again_when_its_token_ends():
    """The SDK does so after 5 s at the earliest, and until then the client is not let in."""
    provider = Provider(seconds=3)
    sent = QueueMessage(channel=unique("open.queue"), body=b"b")

    async def run():
        async with client_with(provider, connection_pool_size=1) as client:
            assert not (await client.send_queue_message_simple(sent)).is_error
            with pytest.raises(KubeMQAuthenticationError, match=UNAUTHENTICATED):
                while True:
                    await client.send_queue_message_simple(sent)
                    await asyncio.sleep(0.1)
            assert provider.asked == 1
            await reached(lambda: provider.asked == 2)
            assert not (await client.send_queue_message_simple(sent)).is_error

    run_async(asyncio.wait_for(run(), SECONDS_MAX))
