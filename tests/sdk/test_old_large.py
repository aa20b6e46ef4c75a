"""Messages of more than 4 MiB through the old SDKs. Their clients send them, but refuse to receive
them, and cannot be told otherwise: all else goes on."""

import grpc
import pytest
from kubemq.grpc import QueueMessagePolicy
from old import (
    KINDS,
    NO_RESPONSE,
    EventsStoreType,
    Initiator,
    Sender,
    Serving,
    await_serving,
    echo,
    event,
    fill,
    go_live,
    held,
    is_free,
    numbers_of,
    queue,
    queue_message,
    request_of,
    response_to,
    subscribe_to_events,
    subscribe_to_store,
    well,
)
from support import (
    ADDRESS,
    PEER_ADDRESS,
    SECONDS_MAX,
    body_of,
    md5_of,
    number_of,
    pb,
    raw_stub,
    settle,
    status_of,
    unique,
    until,
)

LARGE = bytes(range(256)) * (5 * 4096)


def is_refused(function):
    """By the client itself."""
    code, text = status_of(function)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in text


def large_message(number, policy=None):
    message = queue_message(number, policy)
    message.body = LARGE
    return message


def send_large(q, number, policy=None):
    answer = q.send_queue_message(large_message(number, policy))
    assert not answer.is_error, answer.error


def large_ones_of(name, wait_seconds=20):
    """What a client gets which takes more: a large message comes alone."""
    request = pb.ReceiveQueueMessagesRequest(
        ClientID="other", Channel=name, MaxNumberOfMessages=1, WaitTimeSeconds=wait_seconds
    )
    answer = raw_stub(PEER_ADDRESS).ReceiveQueueMessages(request, timeout=SECONDS_MAX)
    for message in answer.Messages:
        assert message.Body == LARGE
        assert message.Attributes.MD5OfBody == md5_of(LARGE)
    return list(answer.Messages)


def large_one_of(name):
    [message] = large_ones_of(name)
    return message


def test_a_receive_that_is_refused_harms_no_other_message():
    """The large one is gone if the connection took all of it before the client refused it, which is
    rare; else it is in its old place."""
    q = queue()
    fill(q, 1)
    send_large(q, 1)
    assert numbers_of(q.receive_queue_messages(2)) == [0]
    is_refused(lambda: q.receive_queue_messages(2))
    left = large_ones_of(q.queue_name, wait_seconds=1)
    assert [(m.Attributes.Sequence, m.Attributes.ReceiveCount) for m in left] in ([(2, 2)], [])
    fill(q, [2])
    assert numbers_of(q.receive_queue_messages(1)) == [2]


def test_a_batch_of_large_messages_is_sent_and_peeks_that_are_refused_take_nothing():
    q = queue()
    batch = [large_message(0), large_message(1), queue_message(2)]
    assert not q.send_queue_messages_batch(batch).have_errors
    for _ in range(2):
        is_refused(lambda: q.peek_queue_message(3))
    for number in range(2):
        message = large_one_of(q.queue_name)
        assert message.Metadata == "m%d" % number
        assert (message.Attributes.Sequence, message.Attributes.ReceiveCount) == (number + 1, 1)
    assert numbers_of(q.receive_queue_messages(1)) == [2]


def test_a_transaction_gives_a_large_message_back_to_its_place_and_goes_on():
    q = queue()
    send_large(q, 0)
    transaction = q.create_transaction()
    is_refused(lambda: transaction.receive(60, 10))
    is_free(transaction)
    message = large_one_of(q.queue_name)
    assert (message.Attributes.Sequence, message.Attributes.ReceiveCount) == (1, 2)
    fill(q, [1])
    message = held(transaction)
    assert number_of(message.Body) == 1
    well(transaction.ack_message(message.Attributes.Sequence), 2)


def test_a_large_message_that_no_transaction_takes_becomes_a_dead_letter():
    q, dead = queue(), unique("dead")
    send_large(q, 0, QueueMessagePolicy(MaxReceiveCount=2, MaxReceiveQueue=dead))
    transaction = q.create_transaction()
    for _ in range(2):
        is_refused(lambda: transaction.receive(60, 10))
        is_free(transaction)
    attributes = large_one_of(dead).Attributes
    assert (attributes.ReRouted, attributes.ReRoutedFromQueue) == (True, q.queue_name)
    fill(q, [1])
    assert number_of(held(transaction).Body) == 1


def test_a_transaction_replaces_a_message_by_a_large_one():
    q, target = queue(), unique("target")
    fill(q, 1)
    transaction = q.create_transaction()
    held(transaction)
    message = large_message(1)
    message.queue = target
    well(transaction.modify(message), 6)
    assert large_one_of(target).Metadata == "m1"
    assert numbers_of(q.receive_queue_messages(1)) == []


def large_event(channel, number, store=False):
    sent = event(channel, number, store)
    sent.body = LARGE
    return sent


def has_sent(sender, event):
    result = sender.send_event(event)
    assert (result.sent, result.error) == (True, "")


def subscribe_raw(channel, **fields):
    """A subscription of a client that takes more."""
    request = pb.Subscribe(ClientID="other", Channel=channel, **fields)
    events = raw_stub(PEER_ADDRESS).SubscribeToEvents(request, timeout=SECONDS_MAX)
    events.initial_metadata()
    return events


def is_ended_by_a_large_one(subscription):
    assert "RESOURCE_EXHAUSTED" in str(subscription.inbox.wait_error())
    subscription.wait_for_the_end()


def test_a_large_event_ends_a_subscription_and_others_go_on():
    channel, sender = unique("events"), Sender(ADDRESS)
    with subscribe_to_events(channel) as ended:
        go_live(sender, channel, ended)
        other = subscribe_raw(channel, SubscribeTypeData=1)
        has_sent(sender, event(channel, 1))
        has_sent(sender, large_event(channel, 2))
        is_ended_by_a_large_one(ended)
        has_sent(sender, event(channel, 3))
        assert ended.numbers() == [1]
        assert [next(other).Body for _ in range(3)] == [body_of(1), LARGE, body_of(3)]
        other.cancel()
    with subscribe_to_events(channel) as again:
        go_live(sender, channel, again)
        has_sent(sender, event(channel, 4))
        until(lambda: again.numbers() == [4], what="the event")


def test_a_large_stored_event_ends_a_subscription_and_another_one_begins_behind_it():
    """Whether the one that ended would go on before it or behind it depends on what its connection
    took."""
    channel, sender = unique("store"), Sender(ADDRESS)
    has_sent(sender, event(channel, 0, store=True))
    has_sent(sender, large_event(channel, 1, store=True))
    with subscribe_to_store(channel, EventsStoreType.StartFromFirst) as ended:
        is_ended_by_a_large_one(ended)
        assert ended.numbers() == [0]
    has_sent(sender, event(channel, 2, store=True))
    with subscribe_to_store(channel, EventsStoreType.StartAtSequence, 3) as behind:
        behind.inbox.wait(1)
        settle([behind.inbox], 0.2)
        assert behind.numbers() == [2]
    other = subscribe_raw(channel, SubscribeTypeData=2, EventsStoreTypeData=2)
    assert [next(other).Body for _ in range(3)] == [body_of(0), LARGE, body_of(2)]
    other.cancel()


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_large_request_ends_a_responder_and_another_one_serves(kind, subscribe):
    """The end is told to 2.4.0's handler of errors, and to nobody by 1.1.0."""
    channel, initiator = unique("large"), Initiator(ADDRESS)
    with Serving(subscribe, channel, echo) as ended:
        await_serving(initiator, kind, channel, ended)
        request = request_of(kind, channel, body=LARGE, timeout=1000)
        assert status_of(lambda: initiator.send_request(request)) == NO_RESPONSE
        ended.wait_for_the_end()
        assert ended.inbox.now() == []
    with Serving(subscribe, channel, echo) as serving:
        await_serving(initiator, kind, channel, serving)
        response = initiator.send_request(request_of(kind, channel, 1))
        assert number_of(response.body) == 1


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_large_response_is_refused_and_the_next_one_comes(kind, subscribe):
    channel, initiator = unique("large"), Initiator(ADDRESS)

    def answer(request):
        return response_to(request, LARGE if request.metadata == "m1" else request.body)

    with Serving(subscribe, channel, answer) as serving:
        await_serving(initiator, kind, channel, serving)
        is_refused(lambda: initiator.send_request(request_of(kind, channel, 1)))
        response = initiator.send_request(request_of(kind, channel, 2))
        assert number_of(response.body) == 2
        assert serving.numbers() == [1, 2]
        assert serving.inbox.errors == []
