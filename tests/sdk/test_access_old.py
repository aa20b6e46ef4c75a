"""The old SDKs (1.1.0, 2.4.0) under access rules: 2.4.0 with a token and under TLS, of which 1.1.0
has no notion."""

import inspect
import os

import grpc
import pytest
from access import CA_FILE, DENIED, SECRET, expired, forged, token
from kubemq.events.subscriber import Subscriber
from kubemq.queue.message_queue import MessageQueue
from kubemq.subscription.subscribe_request import SubscribeRequest
from old import (
    EventsStoreType,
    Initiator,
    PatientToken,
    RequestType,
    Responder,
    Sender,
    SubscribeType,
    event,
    held,
    is_free,
    numbers_of,
    queue_message,
    request_of,
    response_to,
    well,
)
from support import ADDRESS, Inbox, unique, until

if CA_FILE:
    # Where this SDK looks for it.
    os.environ["KubeMQCertificateFile"] = CA_FILE

HAS_TOKENS = "encryptionHeader" in inspect.signature(Sender.__init__).parameters
ALL_KINDS = [
    SubscribeType.Events,
    SubscribeType.EventsStore,
    SubscribeType.Commands,
    SubscribeType.Queries,
]


def with_token(auth_token=None):
    """How the clients of these SDKs are given a token."""
    return {"encryptionHeader": auth_token or token()} if SECRET else {}


def sender(auth_token=None):
    return Sender(ADDRESS, **with_token(auth_token))


def queue_of(name, who):
    return MessageQueue(name, who, ADDRESS, 1, 1, **with_token())


def event_of(who, channel, store):
    made = event(channel, 1, store)
    made.client_id = who
    return made


def subscribe(kind, who, channel, inbox, cancel, answer=None):
    is_store = kind == SubscribeType.EventsStore
    wanted = SubscribeRequest(
        subscribe_type=kind,
        client_id=who,
        channel=channel,
        events_store_type=(
            EventsStoreType.StartFromFirst if is_store else EventsStoreType.Undefined
        ),
        events_store_type_value=0,
        group="",
    )
    if kind in (SubscribeType.Commands, SubscribeType.Queries):
        responder = Responder(ADDRESS, **with_token())
        responder.subscribe_to_requests(wanted, answer or inbox.add, inbox.add_error, cancel)
    else:
        subscriber = Subscriber(ADDRESS, **with_token())
        subscriber.subscribe_to_events(wanted, inbox.add, inbox.add_error, cancel)


@pytest.mark.parametrize("store", [False, True])
def test_events_are_sent_and_seen_by_whoever_may(store):
    channel, inbox, cancel = unique("open.events"), Inbox(), PatientToken()
    kind = SubscribeType.EventsStore if store else SubscribeType.Events
    subscribe(kind, "reader", channel, inbox, cancel)
    until(inbox.now, lambda: sender().send_event(event_of("writer", channel, store)))
    cancel.cancel()
    for who, denied in [("writer", "closed"), ("reader", channel)]:
        with pytest.raises(grpc.RpcError, match=DENIED):
            sender().send_event(event_of(who, denied, store))


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_subscription_that_is_not_allowed_is_an_error(kind, caplog):
    # 1.1.0 hands none of its responders' errors over: they are in its log.
    is_logged = kind in (SubscribeType.Commands, SubscribeType.Queries) and not HAS_TOKENS
    for who, channel in [("reader", "closed"), ("writer", "open.x")]:
        inbox, cancel = Inbox(), PatientToken()
        caplog.clear()
        subscribe(kind, who, channel, inbox, cancel)
        if is_logged:
            until(lambda: DENIED in caplog.text, what="the error in the log")
        else:
            assert DENIED in str(inbox.wait_error())
        cancel.cancel()


def test_queues_are_filled_and_emptied_by_whoever_may():
    name = unique("open.queue")
    assert not queue_of(name, "writer").send_queue_message(queue_message(1)).is_error
    for who, denied in [("writer", "closed"), ("reader", name)]:
        sent = queue_of(denied, who).send_queue_message(queue_message(1))
        assert (sent.is_error, sent.error) == (True, DENIED)
    for who, denied in [("writer", name), ("reader", "closed")]:
        with pytest.raises(grpc.RpcError, match=DENIED):
            queue_of(denied, who).receive_queue_messages()
        with pytest.raises(grpc.RpcError, match=DENIED):
            queue_of(denied, who).ack_all_queue_messages()
    assert len(queue_of(name, "reader").receive_queue_messages().messages) == 1


def test_batches_and_peeks_that_are_not_allowed_are_errors():
    name = unique("open.queue")
    sent = queue_of(name, "writer").send_queue_messages_batch([queue_message(n) for n in range(2)])
    assert not sent.have_errors
    for who, denied in [("writer", unique("closed")), ("reader", name)]:
        batch = [queue_message(number) for number in range(2)]
        sent = queue_of(denied, who).send_queue_messages_batch(batch)
        assert sent.have_errors
        assert [(one.IsError, one.Error) for one in sent.result] == [(True, DENIED)] * 2
    for who, denied in [("writer", name), ("reader", unique("closed"))]:
        with pytest.raises(grpc.RpcError, match=DENIED) as caught:
            queue_of(denied, who).peek_queue_message()
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    reader = queue_of(name, "reader")
    assert numbers_of(reader.peek_queue_message(2)) == [0, 1]
    answer = reader.ack_all_queue_messages()
    assert (answer.is_error, answer.affected_messages) == (False, 2)


def test_events_of_a_stream_that_are_not_allowed_are_refused_alone():
    channel, results = unique("open.events"), []
    events = [
        event_of("writer", channel, True),
        event_of("writer", "closed", True),
        event_of("reader", channel, False),
        event_of("writer", channel, True),
    ]
    sender().stream_event(iter(events), results.append)
    refusals = [(False, DENIED)] * 2
    assert [(one.sent, one.error) for one in results] == [(True, ""), *refusals, (True, "")]


def test_a_transaction_that_is_not_allowed_is_an_error():
    transaction = queue_of("closed", "reader").create_transaction()
    answer = transaction.receive(10, 1)
    assert (answer.is_error, answer.error) == (True, DENIED)


def test_a_message_does_not_go_where_its_receiver_may_not_write():
    name, other = unique("open.queue"), unique("open.other")
    assert not queue_of(name, "writer").send_queue_message(queue_message(1)).is_error
    transaction = queue_of(name, "reader").create_transaction()
    message = held(transaction)
    # Else it is its sender's.
    message.ClientID = "reader"
    for refused in (transaction.resend(other), transaction.modify(message)):
        assert (refused.is_error, refused.error) == (True, DENIED)
    assert numbers_of(queue_of(other, "reader").peek_queue_message()) == []
    # It is held all the same.
    well(transaction.ack_message(message.Attributes.Sequence), 2)
    is_free(transaction)
    assert numbers_of(queue_of(name, "reader").peek_queue_message()) == []


@pytest.mark.parametrize("kind", [RequestType.Command, RequestType.Query])
def test_requests_are_asked_and_answered_by_whoever_may(kind):
    channel, inbox, cancel = unique("open.requests"), Inbox(), PatientToken()
    serve = SubscribeType.Commands if kind == RequestType.Command else SubscribeType.Queries
    subscribe(serve, "reader", channel, inbox, cancel, answer=response_to)
    initiator = Initiator(ADDRESS, **with_token())

    def ask():
        try:
            asked = request_of(kind, channel, client_id="writer", timeout=500)
            inbox.add(initiator.send_request(asked))
        except grpc.RpcError as error:
            assert "Error 301" in error.details(), "nobody is there yet"

    until(inbox.now, ask)
    cancel.cancel()
    for who, denied in [("writer", "closed"), ("reader", channel)]:
        with pytest.raises(grpc.RpcError, match=DENIED):
            initiator.send_request(request_of(kind, denied, client_id=who, timeout=500))


@pytest.mark.skipif(not SECRET, reason="1.1.0 cannot send a token")
def test_without_a_good_token_nobody_comes_in():
    assert HAS_TOKENS
    for wrong in [expired(), forged()]:
        with pytest.raises(grpc.RpcError) as caught:
            sender(wrong).send_event(event_of("writer", "open.events", True))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details().startswith(
            "Error 421: authentication verification failed, "
        )
        assert sender(wrong).ping(), "a ping needs none"
