"""What the clients of 3.6.0 tell of queue messages, wherever they show them: every field of it."""

from datetime import datetime, timedelta
from time import time

import pytest
from admin import wait_until_empty
from mid import (
    QueueMessage,
    message_of,
    numbers,
    put,
    queues,
    receive,
    send,
)
from support import PEER_ADDRESS, SLOWNESS, numbered, pb, raw_stub, unique, until

NEVER = datetime.fromtimestamp(0)


def expected(sender, receiver, result, channel, number, **others):
    """A message as it was sent, in every field; `result` is what its send was answered with."""
    return {
        **numbered("id", channel, number),
        "from_client_id": sender.connection.client_id,
        "timestamp": result.sent_at,
        "sequence": number + 1,
        "receive_count": 1,
        "is_re_routed": False,
        "re_route_from_queue": "",
        "expired_at": NEVER,
        "delayed_to": NEVER,
        "receiver_client_id": receiver.connection.client_id,
        **others,
    }


def assert_shown(response, messages):
    """That a response shows these messages."""
    shown = [{name: getattr(one, name) for name in messages[0]} for one in response.messages]
    assert shown == messages
    assert not response.is_error
    assert response.count() == len(messages)
    assert not response.is_empty()


def peek(channel):
    """The only message of a queue, as the stub shows it: the clients cannot read an expiry."""
    request = pb.ReceiveQueueMessagesRequest(
        ClientID="peek", Channel=channel, MaxNumberOfMessages=2, WaitTimeSeconds=1, IsPeak=True
    )
    (message,) = raw_stub(PEER_ADDRESS).ReceiveQueueMessages(request).Messages
    return message


def expiry_of(message):
    return datetime.fromtimestamp(message.Attributes.ExpirationAt / 1e9)


def test_a_message_is_shown_whole_to_who_peeks_pulls_or_receives():
    channel = unique("queue")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        results = send(sender, channel, 4)
        whole = [
            expected(sender, receiver, result, channel, number)
            for number, result in enumerate(results)
        ]
        assert_shown(receiver.waiting(channel, 10, 1), whole)
        assert_shown(receiver.pull(channel, 2, 10), whole[:2])
        response = receive(receiver, channel, 2)
        assert_shown(response, whole[2:])
        assert response.transaction_id
        for message in response.messages:
            assert message.transaction_id == response.transaction_id
            assert message.is_visible and not message.is_completed
        response.ack_all()
        assert all(message.is_completed for message in response.messages)
        with pytest.raises(ValueError, match="already completed"):
            response.ack_all()
        wait_until_empty(channel)
        assert receiver.waiting(channel, 1, 1).is_empty()


def test_a_message_that_was_rejected_is_shown_at_its_new_place():
    channel = unique("queue")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        results = send(sender, channel, 2)
        receive(receiver, channel, 2).messages[0].reject()
        response = receive(receiver, channel, 1)
        (message,) = response.messages
        again = {"sequence": 3, "receive_count": 2, "timestamp": message.timestamp}
        assert_shown(response, [expected(sender, receiver, results[0], channel, 0, **again)])
        assert results[0].sent_at <= message.timestamp <= datetime.now()


def test_a_delayed_message_is_shown_as_if_it_was_sent_when_it_was_due():
    channel = unique("queue")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        late = put(sender, message_of(channel, 1, delay_in_seconds=1))
        first = put(sender, message_of(channel, 0))
        assert late.delayed_to - late.sent_at == timedelta(seconds=1)
        response = receive(receiver, channel, 2)
        assert datetime.now() >= late.delayed_to
        put_in = {"timestamp": late.delayed_to}
        assert_shown(
            response,
            [
                expected(sender, receiver, first, channel, 0),
                expected(sender, receiver, late, channel, 1, **put_in),
            ],
        )


def test_a_message_that_was_re_queued_is_shown_with_where_it_was():
    channel, other = unique("queue"), unique("other")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        results = send(sender, channel, 2)
        for message in reversed(receive(receiver, channel, 2).messages):
            message.re_queue(other)
        response = receive(receiver, other, 2)
        moved = [
            expected(
                *(sender, receiver, results[number], other, number),
                sequence=place + 1,
                is_re_routed=True,
                re_route_from_queue=channel,
                timestamp=response.messages[place].timestamp,
            )
            for place, number in enumerate([1, 0])
        ]
        assert_shown(response, moved)
        assert results[1].sent_at < response.messages[0].timestamp <= datetime.now()


def test_a_dead_letter_is_shown_with_where_it_was():
    channel, dead = unique("queue"), unique("dead")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        limit = {"attempts_before_dead_letter_queue": 2, "dead_letter_queue": dead}
        results = send(sender, channel, 2, **limit)
        for count in (1, 2):
            response = receive(receiver, channel, 2)
            assert [message.receive_count for message in response.messages] == [count, count]
            response.reject_all()
        response = receive(receiver, dead, 2)
        letters = [
            expected(
                *(sender, receiver, results[number], dead, number),
                is_re_routed=True,
                re_route_from_queue=channel,
                timestamp=response.messages[number].timestamp,
            )
            for number in range(2)
        ]
        assert_shown(response, letters)
        response.reject_all()
        # The limit is left behind.
        for count in (2, 3):
            response = receive(receiver, dead, 2)
            assert [message.receive_count for message in response.messages] == [count, count]
            response.reject_all()


def test_a_message_that_expires_is_never_shown_by_this_sdk():
    """It takes the nanoseconds of the expiry for microseconds, and fails. What it received goes
    back when the client is closed, what it pulled is lost."""
    channel = unique("queue")
    with queues() as sender:
        result = put(sender, message_of(channel, 0, expiration_in_seconds=600))
        with pytest.raises(ValueError, match="is out of range"):
            sender.waiting(channel, 1, 1)
        with queues(PEER_ADDRESS) as receiver, pytest.raises(ValueError, match="is out of range"):
            receive(receiver, channel, 1)
        until(lambda: sender.list_queues_channels(channel)[0].incoming.waiting, what="its return")
        message = peek(channel)
        assert (message.MessageID, message.Attributes.ReceiveCount) == ("id-0", 2)
        assert expiry_of(message) == result.expired_at
        with pytest.raises(ValueError, match="is out of range"):
            sender.pull(channel, 1, 10)
        wait_until_empty(channel)


def test_a_dead_letter_expires_when_the_message_would_have():
    channel, dead = unique("queue"), unique("dead")
    limit = {"attempts_before_dead_letter_queue": 1, "dead_letter_queue": dead}
    with queues() as sender:
        message = message_of(channel, 0, expiration_in_seconds=2 * SLOWNESS, **limit)
        result = put(sender, message)
        # It cannot be read, and has had its one delivery.
        with queues(PEER_ADDRESS) as receiver, pytest.raises(ValueError, match="is out of range"):
            receive(receiver, channel, 1)
        until(lambda: sender.list_queues_channels(dead), what="the dead letter")
        letter = peek(dead)
        assert (letter.MessageID, letter.Attributes.ReRoutedFromQueue) == ("id-0", channel)
        assert expiry_of(letter) == result.expired_at
        wait_until_empty(dead)
        assert time() > result.expired_at.timestamp()
        (listed,) = sender.list_queues_channels(dead)
        assert (listed.incoming.messages, listed.incoming.expired) == (1, 1)


def test_what_was_rejected_too_often_is_gone_where_there_are_no_dead_letters():
    with pytest.raises(ValueError, match="must also provide a dead_letter_queue"):
        message_of("queue", 0, attempts_before_dead_letter_queue=2)
    # Other clients send such messages, and this one gets them.
    channel = unique("queue")
    message = message_of(channel, 0).encode_message("sender")
    message.Policy.MaxReceiveCount = 2
    assert not raw_stub().SendQueueMessage(message).IsError
    with queues() as client, queues(PEER_ADDRESS) as receiver:
        put(client, message_of(channel, 1))
        first = receive(receiver, channel, 2)
        assert [message.receive_count for message in first.messages] == [1, 1]
        first.reject_all()
        second = receive(receiver, channel, 2)
        assert [message.receive_count for message in second.messages] == [2, 2]
        second.reject_all()
        response = receive(receiver, channel, 1)
        assert numbers(response) == [1], "only the other one is still there"
        response.ack_all()
        wait_until_empty(channel)


def test_ids_are_made_where_none_are_given():
    channel, other = unique("queue"), unique("other")
    with queues() as sender, queues(PEER_ADDRESS) as receiver:
        message = QueueMessage(channel=channel, metadata="m")
        # Made by each send anew.
        ids = [put(sender, message).id for _ in range(3)]
        assert all(ids) and len(set(ids)) == 3
        assert [one.id for one in receiver.waiting(channel, 3, 1).messages] == ids
        response = receive(receiver, channel, 3)
        assert [one.id for one in response.messages] == ids
        response.re_queue_all(other)
        assert [one.id for one in receiver.pull(other, 3, 10).messages] == ids
