"""What the new SDKs (3.6.0, 4.1.5) are told when their rarer calls are not allowed, and that
nothing was done then."""

import contextlib
import threading

import grpc
import pytest
from access import CA_FILE, CERT_FILE, DENIED, KEY_FILE, forged, token
from access_clients import call, connected, following, peek, receive, send_message
from channels import call as manage
from cq import IS_NEWEST, KINDS, message, response_to, send
from kubemq.cq import Client as CqClient
from kubemq.grpc import kubemq_pb2 as pb
from kubemq.grpc import kubemq_pb2_grpc
from kubemq.pubsub import Client as PubSubClient
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, SECONDS_MAX, Inbox, status_of, unique, until

PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
CLIENTS = {"queues": QueuesClient}
CLIENTS |= dict.fromkeys(("events", "events_store"), PubSubClient)
CLIENTS |= dict.fromkeys(("commands", "queries"), CqClient)
# Names of the same, in each release.
LIMITS = (
    {"max_receive_count": 1, "max_receive_queue": "closed"}
    if IS_NEWEST
    else {"attempts_before_dead_letter_queue": 1, "dead_letter_queue": "closed"}
)


def assert_not_allowed(function):
    """A management call is denied with the SDK's own error, of 4.1.5 with the server's text."""
    with pytest.raises(Exception, match="(?i)denied") as caught:
        function()
    if IS_NEWEST:
        from kubemq import ErrorCode, KubeMQAuthenticationError

        assert type(caught.value) is KubeMQAuthenticationError
        told = (caught.value.message, caught.value.code, caught.value.is_retryable)
        assert told == (DENIED, ErrorCode.PERMISSION_DENIED, False)


@pytest.mark.parametrize("kind", CLIENTS)
def test_channels_of_every_kind_are_made_and_deleted_by_whoever_may_send_there(kind):
    name, closed = unique("open.managed"), unique("closed")
    with (
        connected(CLIENTS[kind], "writer") as writer,
        connected(CLIENTS[kind], "reader") as reader,
        connected(CLIENTS[kind], "somebody") as somebody,
    ):

        def listed(client, search):
            return [channel.name for channel in manage(client, "list", kind, search)]

        assert manage(writer, "create", kind, name) is True
        assert listed(writer, name) == listed(reader, name) == [name]
        assert listed(somebody, name) == listed(somebody, "") == []
        for operation in ("create", "delete"):
            for client, channel in ((reader, name), (somebody, name), (writer, closed)):
                assert_not_allowed(lambda: manage(client, operation, kind, channel))
        assert listed(reader, name) == [name], "it is still there"
        assert listed(writer, "closed") == []
        assert manage(writer, "delete", kind, name) is True
        assert listed(writer, name) == []


def test_peeks_and_pulls_that_are_not_allowed_take_nothing():
    queue = unique("open.queue")
    with connected(QueuesClient, "writer") as writer, connected(QueuesClient, "reader") as reader:
        assert not send_message(writer, queue).is_error
        for client, name in ((writer, queue), (reader, unique("closed"))):
            for function in (call(client, "peek_queue_messages", "waiting"), client.pull):
                denied = status_of(lambda: function(name, 1, 1))
                assert denied == (PERMISSION_DENIED, DENIED)
            if IS_NEWEST:
                denied = status_of(lambda: client.ack_all_queue_messages(name, 1))
                assert denied == (PERMISSION_DENIED, DENIED)
        assert len(peek(reader, queue).messages) == 1
        [one] = reader.pull(queue, 1, 5).messages
        assert (bytes(one.body), one.from_client_id) == (b"b", "writer")


@pytest.mark.skipif(not IS_NEWEST, reason="3.6.0 has no such call")
def test_whoever_may_read_a_queue_may_empty_it():
    queue = unique("open.queue")
    with connected(QueuesClient, "writer") as writer, connected(QueuesClient, "reader") as reader:
        for _ in range(3):
            assert not send_message(writer, queue).is_error
        assert reader.ack_all_queue_messages(queue, 1) == 3
        assert peek(reader, queue).messages == []


def test_messages_do_not_go_to_queues_that_their_receiver_may_not_write():
    """The server says so on the stream, where the SDKs do not look: the messages come back."""
    queue, other = unique("open.queue"), unique("open.other")
    with connected(QueuesClient, "writer") as writer:
        for _ in range(3):
            assert not send_message(writer, queue).is_error
    with connected(QueuesClient, "reader") as leaving:
        receive(leaving, queue).messages[0].re_queue(other)
        receive(leaving, queue, 2).re_queue_all("closed")
        assert peek(leaving, queue).messages == peek(leaving, other).messages == []
    with connected(QueuesClient, "reader") as reader:
        back = receive(reader, queue, 3).messages
        assert [(one.sequence, one.receive_count) for one in back] == [(1, 2), (2, 2), (3, 2)]
        assert peek(reader, other).messages == []


def test_dead_letters_do_not_go_where_their_sender_may_not_write():
    with connected(QueuesClient, "writer") as writer:
        sent = QueueMessage(channel=unique("open.queue"), body=b"b", **LIMITS)
        result = call(writer, "send_queue_message", "send_queues_message")(sent)
        assert (result.is_error, result.error) == (True, DENIED)


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_was_given_a_request_may_have_it_answered_by_anybody_with_a_token(kind):
    channel, answers = unique("open.requests"), Inbox()
    with (
        connected(CqClient, "somebody") as somebody,
        connected(CqClient, "reader", auth_token=forged()) as unknown,
        following(CqClient, "reader", kind, channel) as (_, inbox),
        connected(CqClient, "writer") as writer,
    ):

        def ask():
            # That nobody is there yet is an error.
            with contextlib.suppress(Exception):
                send(writer, message(kind, channel, timeout=1))

        until(inbox.now, ask, what="a live responder")
        before = len(inbox.now())
        asked = message(kind, channel, timeout=SECONDS_MAX)
        asking = threading.Thread(target=lambda: answers.add(send(writer, asked)))
        asking.start()
        request = inbox.wait(before + 1)[-1]
        with pytest.raises(Exception, match="(?i)authentication"):
            unknown.send_response_message(response_to(kind, request, is_executed=False))
        somebody.send_response_message(response_to(kind, request))
        [response] = answers.wait(1)
        asking.join()
        assert (response.is_executed, response.client_id) == (True, "somebody")


@pytest.mark.skipif(IS_NEWEST, reason="4.1.5 does not know the call")
def test_figures_of_queues_are_told_to_whoever_may_read_them():
    """By no call of the SDK's clients: it has no client's name, and the token tells it."""
    queue = unique("open.queue")
    with connected(QueuesClient, "writer") as writer:
        assert not send_message(writer, queue).is_error
    files = []
    for path in (CA_FILE, KEY_FILE, CERT_FILE):
        with open(path, "rb") as file:
            files.append(file.read())
    with grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials(*files)) as channel:
        stub = kubemq_pb2_grpc.kubemqStub(channel)

        def told(who, name):
            metadata = [("authorization", token(sub=who))]
            request = pb.QueuesInfoRequest(RequestID="r", QueueName=name)
            return stub.QueuesInfo(request, metadata=metadata, timeout=SECONDS_MAX)

        for name in ("", queue):
            info = told("reader", name).Info
            found = {one.Name: (one.Messages, one.Waiting) for one in info.Queues}
            assert found[queue] == (1, 1)
        for who in ("somebody", "writer"):
            assert (told(who, "").Info.TotalQueue, list(told(who, "").Info.Queues)) == (0, [])
            assert status_of(lambda: told(who, queue)) == (PERMISSION_DENIED, DENIED)
