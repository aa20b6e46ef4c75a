"""What the newest SDK raises, or tells in results, for each kind of failure: its own refusals,
those of the server, what nobody answers, who cannot be reached, and clients that are closed.

Most calls of its ordinary clients raise gRPC's errors as they come, asynchronous clients their own.
"""

import socket

import grpc
import pytest
from admin import wait_until_empty
from cq import KINDS, cq_client, message
from cq import send as ask
from error_texts import E107, E110, E115, E120, E133, E134, E135, E301
from kubemq import (
    AsyncPubSubClient,
    CommandMessage,
    ErrorCode,
    EventsStoreSubscription,
    KubeMQChannelError,
    KubeMQClientClosedError,
    KubeMQConnectionError,
    KubeMQError,
    KubeMQMessageError,
    KubeMQValidationError,
    PubSubClient,
    QueryMessage,
)
from new import (
    EventMessage,
    EventStoreMessage,
    QueueMessage,
    event,
    numbers,
    pubsub,
    queue_client,
    queue_message,
    queues,
    receive,
    send,
)
from new_async import pubsub as async_pubsub
from new_async import queues as async_queues
from support import PEER_ADDRESS, run_async, unique

INTERNAL, UNAVAILABLE = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE
# A message to this SDK, and none to the server.
TAGS_ONLY = {"tags": {"only": "tags"}}
TOO_LARGE = (
    "Message body size (4194305 bytes) exceeds maximum send size (4194304 bytes). Reduce message"
    " size or increase max_send_size in ClientConfig."
)


def raised(of, function, *arguments):
    """The error that a call fails with, which is of this very class."""
    with pytest.raises(of) as caught:
        function(*arguments)
    assert type(caught.value) is of or of is grpc.RpcError
    return caught.value


def status(function, *arguments):
    """What gRPC told an ordinary client, and it the caller."""
    error = raised(grpc.RpcError, function, *arguments)
    assert not isinstance(error, KubeMQError)
    return error.code(), error.details()


async def raised_async(of, awaitable):
    with pytest.raises(of) as caught:
        await awaitable
    assert type(caught.value) is of
    return caught.value


WHITE = "Channel name cannot contain whitespace."
WILD = "Channel name cannot contain wildcard characters '*' or '>'."
DOT = "Channel name cannot end with '.'."
BODY = {"body": b"x"}
REQUEST = {"channel": "a", "timeout_in_seconds": 1}
REFUSED_BY_THE_SDK = [
    (EventMessage, {"channel": "a b", **BODY}, WHITE),
    (EventMessage, {"channel": "", **BODY}, "Event message must have a channel."),
    (EventStoreMessage, {"channel": "a.*", **BODY}, WILD),
    (EventsStoreSubscription, {"channel": "a.>", "on_receive_event_callback": print}, WILD),
    (QueueMessage, {"channel": "a.", **BODY}, DOT),
    (QueueMessage, {"channel": "a", "delay_in_seconds": -1, **BODY}, "delay_in_seconds must be"),
    (CommandMessage, {**REQUEST, "channel": "a>", **BODY}, WILD),
    (CommandMessage, {**REQUEST, "timeout_in_seconds": 0, **BODY}, "must be greater than 0"),
    (QueryMessage, REQUEST, "at least one of the following"),
    (QueryMessage, {**REQUEST, "cache_key": "k", **BODY}, "cache_ttl_in_seconds must be > 0"),
]


@pytest.mark.parametrize(("of", "fields", "text"), REFUSED_BY_THE_SDK)
def test_what_the_sdk_refuses_is_a_value_error(of, fields, text):
    assert text in str(raised(ValueError, lambda: of(**fields)))


def test_what_is_too_large_for_the_client_is_a_validation_error():
    body, channel = bytes((4 << 20) + 1), unique("large")
    with pubsub() as client, queues() as other:
        sent = EventMessage(channel=channel, body=body)
        stored = EventStoreMessage(channel=channel, body=body)
        for call, refused in (
            (client.send_event, sent),
            (client.publish_event, sent),
            (client.send_event_store, stored),
            (other.send_queue_message, QueueMessage(channel=channel, body=body)),
        ):
            assert raised(KubeMQValidationError, call, refused).message == TOO_LARGE


def test_an_event_that_the_server_refuses_is_an_error_or_a_result():
    channel = unique("refused")
    sent = EventMessage(channel=channel, **TAGS_ONLY)
    stored = EventStoreMessage(channel=channel, **TAGS_ONLY)
    with pubsub() as client:
        assert status(client.send_event, sent) == (INTERNAL, E110)
        result = client.send_event_store(stored)
        assert (result.id, result.sent, result.error) == (stored.id, False, E110)

    async def run():
        async with async_pubsub(PEER_ADDRESS) as client:
            error = await raised_async(KubeMQError, client.send_event_unary(sent))
            told = (error.message, error.code, error.is_retryable)
            assert told == (E110, ErrorCode.INTERNAL, False)
            result = await client.send_event_store(stored)
            assert (result.id, result.sent, result.error) == (stored.id, False, E110)
            [result] = await client.send_events_store_batch([stored])
            assert (result.id, result.sent, result.error) == (stored.id, False, E110)

    run_async(run())


REFUSED_MESSAGES = [
    (TAGS_ONLY, E110),
    ({"body": b"x", "expiration_in_seconds": 43_201}, E133),
    ({"body": b"x", "delay_in_seconds": 43_201}, E135),
    ({"body": b"x", "max_receive_count": 1_025, "max_receive_queue": "dead"}, E134),
    ({"body": b"x", "max_receive_count": 1, "max_receive_queue": "a b"}, E120),
]


@pytest.mark.parametrize(("fields", "text"), REFUSED_MESSAGES)
def test_a_message_that_the_server_refuses_is_a_result_with_its_text(fields, text):
    channel = unique("refused")
    bad, good = QueueMessage(channel=channel, id="bad", **fields), queue_message(channel, 1)

    async def run():
        async with async_queues(PEER_ADDRESS) as client:
            return [
                await client.send_queue_message(bad),
                await client.send_queue_message_fast(bad),
                await client.send_queue_message_simple(bad),
                (await client.send_queue_messages_batch([bad])).results[0],
            ]

    with queues() as client:
        results = [client.send_queue_message(bad), client.send_queue_message_simple(bad)]
        batch = client.send_queue_messages_batch([bad, good])
        assert batch.have_errors and len(batch) == 2
        assert (batch[1].id, batch[1].is_error) == ("id-1", False)
        for result in [*results, batch[0], *run_async(run())]:
            assert (result.id, result.is_error, result.error) == ("bad", True, text)
            times = (result.sent_at, result.expired_at, result.delayed_to)
            assert times == (None, None, None)
        assert numbers(receive(client, channel, 1, auto_ack=True).messages) == [1]
        wait_until_empty(channel)


def test_a_receive_that_the_server_refuses_is_a_response_with_its_text():
    with queues() as client:
        for response in (
            client.receive_queue_messages("a.*", 1, 1),
            client.peek_queue_messages("a.*", 1, 1),
            client.pull("a.*", 1, 1),
        ):
            assert (response.is_error, response.error, response.messages) == (True, E120, [])
        error = raised(KubeMQMessageError, client.ack_all_queue_messages, "a.*", 1)
        told = (error.message, error.operation, error.channel)
        assert told == (E120, "AckAllQueueMessages", "a.*")

    async def run():
        async with async_queues(PEER_ADDRESS) as client:
            for response in (
                await client.receive_queue_messages("a.*", 1, 1),
                await client.receive_queue_messages_fast("a.*", 1, 1),
                await client.peek_queue_messages("a.*", 1, 1),
            ):
                assert (response.is_error, response.error, response.messages) == (True, E120, [])
            error = await raised_async(KubeMQMessageError, client.ack_all_queue_messages("a.*", 1))
            assert (error.message, error.channel) == (E120, "a.*")

    run_async(run())


def test_a_settlement_that_the_server_refuses_leaves_its_messages():
    """It says so on the stream, where no client of this SDK looks: they come back when it goes."""
    with queue_client() as (client, channel):
        send(client, channel, 3)
        with queues(address=PEER_ADDRESS) as leaving:
            receive(leaving, channel, 1).messages[0].re_queue("a b")
            receive(leaving, channel, 2).re_queue_all("a.*")
            assert receive(client, channel, 1, wait=1).messages == []
        back = receive(client, channel, 3).messages
        assert numbers(back) == [0, 1, 2]
        assert [one.receive_count for one in back] == [2, 2, 2]


def test_what_is_settled_cannot_be_settled_again():
    with queue_client() as (client, channel):
        send(client, channel, 3)
        response = receive(client, channel, 2)
        [first, _] = response.messages
        first.ack()
        assert "already completed" in str(raised(ValueError, first.nack))
        response.ack_all()
        for settle in (first.ack, response.ack_all, response.reject_all):
            assert "already completed" in str(raised(ValueError, settle))
        # Its ordinary clients forget that they asked for this, and the server refuses it.
        taken = receive(client, channel, 1, auto_ack=True)
        taken.reject_all()
        wait_until_empty(channel)
        send(client, channel, 1)

        async def run():
            async with async_queues(PEER_ADDRESS) as other:
                taken = await other.receive_queue_messages(channel, 1, 10, auto_ack=True)
                assert taken.is_auto_acked and taken.messages[0].is_auto_acked
                error = await raised_async(ValueError, taken.messages[0].async_nack())
                assert "was set with auto ack" in str(error)
                error = await raised_async(ValueError, taken.reject_all())
                assert str(error) == "Messages are auto-acknowledged"

        run_async(run())
        wait_until_empty(channel)


def test_a_channel_that_cannot_be_is_a_channel_error():
    not_made, not_found = "Create Channel Error: ", "Delete Channel Error: channel not found"
    with queues() as client, pubsub() as other:
        for call, name, text in (
            (client.create_queues_channel, "a.*", not_made + E120),
            (other.create_events_channel, "a.*", not_made + E107),
            (client.delete_queues_channel, unique("none"), not_found),
        ):
            assert raised(KubeMQChannelError, call, name).message == text
        text = "List Channels Error: the search has 1025 bytes, at most 1024 are allowed"
        assert raised(KubeMQChannelError, client.list_queues_channels, "x" * 1025).message == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_fails_is_an_error_of_grpc(kind):
    with cq_client() as client:
        empty = message(kind, unique("empty"), metadata=None, body=b"")
        assert status(ask, client, empty) == (INTERNAL, E115)
        nobody = message(kind, unique("nobody"), timeout=1)
        assert status(ask, client, nobody) == (INTERNAL, E301)


def test_a_server_that_is_not_there_is_a_connection_error():
    # Bound, so that nobody else is there, and never listened on.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % nobody.getsockname()[1]
        # It is made all the same, and learns it when it is used.
        with PubSubClient(address=address, client_id="alone") as client:
            error = raised(KubeMQConnectionError, client.ping)
            assert (error.code, error.is_retryable) == (ErrorCode.UNAVAILABLE, True)
            assert "Connection refused" in error.message
            assert status(client.send_event, event("a", 1))[0] == UNAVAILABLE
            with pytest.raises(KubeMQConnectionError, match="Connection refused"):
                client.create_events_channel("a")

        async def run():
            client = AsyncPubSubClient(address=address, client_id="alone")
            error = await raised_async(KubeMQError, client.connect())
            assert error.message.startswith("Failed to connect to " + address)
            assert type(error.cause) is KubeMQConnectionError
            assert not client.is_connected

        run_async(run())


def test_a_closed_client_says_so():
    with pubsub() as client, queues() as other:
        pass
    for call, arguments in (
        (client.ping, ()),
        (client.send_event, [event("a", 1)]),
        (client.publish_event, [event("a", 1)]),
        (other.send_queue_message, [queue_message("a", 1)]),
        (other.send_queue_message_simple, [queue_message("a", 1)]),
        (other.receive_queue_messages, ["a"]),
        (other.peek_queue_messages, ["a", 1, 1]),
    ):
        error = raised(KubeMQClientClosedError, call, *arguments)
        assert (error.message, error.code) == ("Client is closed", ErrorCode.CLIENT_CLOSED)

    async def run():
        async with async_pubsub() as client:
            pass
        for call in (client.ping(), client.send_event_unary(event("a", 1))):
            error = await raised_async(KubeMQClientClosedError, call)
            assert error.message == "Client is closed"
        error = await raised_async(KubeMQClientClosedError, client.connect())
        assert error.message == "Client is closed and cannot be reconnected"

    run_async(run())
