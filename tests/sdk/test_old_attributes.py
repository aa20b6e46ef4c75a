"""What a queue message says of itself to the old SDKs, wherever it has been."""

import time

from kubemq.grpc import QueueMessageAttributes, QueueMessagePolicy
from old import held, is_free, queue, queue_message, well
from support import PEER_ADDRESS, SLOWNESS, body_of, md5_of, unique, until

SECOND = 10**9
MINUTE = 60 * SECOND


def all_of(message):
    """Each of its attributes, by name, even those that have their zero value."""
    attributes = message.Attributes
    return {field.name: getattr(attributes, field.name) for field in attributes.DESCRIPTOR.fields}


def expected(number, sequence, timestamp, **others):
    """The attributes of the message of this number; others are as for a message that is new."""
    return {
        "Timestamp": timestamp,
        "Sequence": sequence,
        "MD5OfBody": md5_of(body_of(number)),
        "ReceiveCount": 1,
        "ReRouted": False,
        "ReRoutedFromQueue": "",
        "ExpirationAt": 0,
        "DelayedTo": 0,
        **others,
    }


def policy_of(message):
    policy = message.Policy
    return (
        policy.ExpirationSeconds,
        policy.DelaySeconds,
        policy.MaxReceiveCount,
        policy.MaxReceiveQueue,
    )


def send(q, number, **policy):
    answer = q.send_queue_message(queue_message(number, QueueMessagePolicy(**policy)))
    assert not answer.is_error, answer.error
    return answer


def one_of(name, seconds=20):
    """The next message of a queue, which another node is asked for if there is one."""
    q = queue(name, wait_seconds=seconds, address=PEER_ADDRESS)
    [message] = q.receive_queue_messages(1).messages
    return message


def is_since(timestamp, began_ns):
    """A time that nobody told, by clocks of nodes that may differ a little."""
    return began_ns - SECOND // 20 < timestamp <= time.time_ns() + SECOND // 20


def is_same_content(message, other):
    assert message.MessageID == other.MessageID
    assert message.ClientID == other.ClientID == "client-1"
    assert (message.Metadata, message.Body) == (other.Metadata, other.Body)
    assert dict(message.Tags) == dict(other.Tags) != {}


def test_peeks_transactions_and_receives_show_the_same():
    q = queue(wait_seconds=10)
    answers = [send(q, 0), send(q, 1, ExpirationSeconds=60), send(q, 2, MaxReceiveCount=7)]
    peeked = list(q.peek_queue_message(3).messages)
    assert [all_of(message) for message in peeked] == [
        expected(number, number + 1, answer.sent_at, ExpirationAt=answer.expiration_at)
        for number, answer in enumerate(answers)
    ]
    assert answers[1].expiration_at == answers[1].sent_at + MINUTE
    assert [policy_of(message) for message in peeked] == [
        (0, 0, 1024, ""),
        (60, 0, 1024, ""),
        (0, 0, 7, ""),
    ]
    transaction = q.create_transaction()
    for message in peeked[:2]:
        in_hand = held(transaction)
        assert in_hand == message
        well(transaction.ack_message(in_hand.Attributes.Sequence), 2)
        is_free(transaction)
    assert one_of(q.queue_name) == peeked[2]


def test_attributes_that_a_sender_sets_are_not_believed():
    q, message = queue(wait_seconds=10), queue_message(3)
    message.attributes = QueueMessageAttributes(
        Timestamp=1,
        Sequence=77,
        MD5OfBody="no digest",
        ReceiveCount=77,
        ReRouted=True,
        ReRoutedFromQueue="elsewhere",
        ExpirationAt=1,
        DelayedTo=time.time_ns() + MINUTE,
    )
    answer = q.send_queue_message(message)
    assert (answer.is_error, answer.delayed_to, answer.expiration_at) == (False, 0, 0)
    assert all_of(one_of(q.queue_name)) == expected(3, 1, answer.sent_at)


def test_a_delayed_message_is_put_in_when_it_is_due():
    q = queue(wait_seconds=10)
    late = send(q, 0, DelaySeconds=1, ExpirationSeconds=60)
    early = send(q, 1)
    assert late.delayed_to == late.sent_at + SECOND
    assert late.expiration_at == late.delayed_to + MINUTE
    assert all_of(one_of(q.queue_name)) == expected(1, 1, early.sent_at)
    # A peek waits while there is nothing.
    [peeked] = q.peek_queue_message(1).messages
    assert all_of(peeked) == expected(0, 2, late.delayed_to, ExpirationAt=late.expiration_at)
    assert policy_of(peeked) == (60, 1, 1024, "")
    assert one_of(q.queue_name) == peeked


def test_a_rejected_message_keeps_its_expiry_and_is_put_in_anew():
    q = queue(wait_seconds=10)
    answer = send(q, 0, ExpirationSeconds=60)
    send(q, 1)
    transaction, began_ns = q.create_transaction(), time.time_ns()
    first = held(transaction)
    well(transaction.rejected_message(first.Attributes.Sequence), 3)
    is_free(transaction)
    peeked = until(lambda: list(q.peek_queue_message(2).messages)[1:], what="its return")[0]
    timestamp = peeked.Attributes.Timestamp
    assert is_since(timestamp, began_ns) and timestamp > answer.sent_at
    assert all_of(peeked) == expected(
        0, 3, timestamp, ReceiveCount=2, ExpirationAt=answer.expiration_at
    )
    is_same_content(peeked, first)
    assert list(q.receive_queue_messages(2).messages)[1] == peeked


def test_a_dead_letter_keeps_its_expiry_and_nothing_else_of_its_policy():
    q, dead = queue(), unique("dead")
    answer = send(q, 5, ExpirationSeconds=60, MaxReceiveCount=1, MaxReceiveQueue=dead)
    transaction, began_ns = q.create_transaction(), time.time_ns()
    last = held(transaction)
    assert policy_of(last) == (60, 0, 1, dead)
    well(transaction.rejected_message(last.Attributes.Sequence), 3)
    letter = one_of(dead)
    timestamp = letter.Attributes.Timestamp
    assert is_since(timestamp, began_ns) and timestamp > answer.sent_at
    assert all_of(letter) == expected(
        5,
        1,
        timestamp,
        ReRouted=True,
        ReRoutedFromQueue=q.queue_name,
        ExpirationAt=answer.expiration_at,
    )
    policy = letter.Policy
    assert (policy.ExpirationSeconds, policy.DelaySeconds, policy.MaxReceiveQueue) == (0, 0, "")
    assert letter.Channel == dead
    is_same_content(letter, last)


def test_a_dead_letter_expires_when_the_message_would_have():
    q, dead = queue(wait_seconds=10), queue(unique("dead"), wait_seconds=10, address=PEER_ADDRESS)
    policy = {"MaxReceiveCount": 1, "MaxReceiveQueue": dead.queue_name}
    expiring = send(q, 0, ExpirationSeconds=2 * SLOWNESS, **policy)
    staying = send(q, 1, **policy)
    transaction = q.create_transaction()
    for number in (0, 1):
        message = held(transaction)
        assert message.Body == body_of(number)
        well(transaction.rejected_message(message.Attributes.Sequence), 3)
        is_free(transaction)
    [first, *_] = dead.peek_queue_message(2).messages
    assert first.Body == body_of(0) or time.time_ns() > expiring.expiration_at
    until(lambda: time.time_ns() > expiring.expiration_at + SECOND // 10, what="the expiry")
    [letter] = dead.peek_queue_message(2).messages
    assert letter.MessageID == staying.message_id
    assert letter.Attributes.ExpirationAt == 0


def test_a_resent_message_has_its_delay_and_expiry_anew():
    q, target = queue(wait_seconds=10), unique("target")
    first_answer = send(q, 8, DelaySeconds=1, ExpirationSeconds=60, MaxReceiveCount=9)
    transaction = q.create_transaction()
    message = held(transaction)
    resent_ns = time.time_ns()
    well(transaction.resend(target), 5)
    moved = one_of(target)
    timestamp = moved.Attributes.Timestamp
    assert is_since(timestamp, resent_ns + SECOND)
    assert moved.Attributes.ExpirationAt > first_answer.expiration_at
    assert all_of(moved) == expected(
        8,
        1,
        timestamp,
        ReRouted=True,
        ReRoutedFromQueue=q.queue_name,
        ExpirationAt=timestamp + MINUTE,
    )
    assert policy_of(moved) == (60, 1, 9, "")
    is_same_content(moved, message)


def test_a_message_that_is_resent_twice_names_the_queue_before():
    first, second, third = queue(), queue(address=PEER_ADDRESS), unique("queue")
    send(first, 4, ExpirationSeconds=60)
    expiries = []
    for q, target in ((first, second.queue_name), (second, third)):
        transaction = q.create_transaction()
        expiries.append(held(transaction).Attributes.ExpirationAt)
        well(transaction.resend(target), 5)
        is_free(transaction)
    moved = one_of(third)
    attributes = moved.Attributes
    assert (attributes.ReRouted, attributes.ReRoutedFromQueue) == (True, second.queue_name)
    assert (attributes.Sequence, attributes.ReceiveCount) == (1, 1)
    assert expiries[0] < expiries[1] < attributes.ExpirationAt
    assert moved.Policy.ExpirationSeconds == 60


def test_a_message_that_was_moved_shows_the_limit_of_its_new_queue():
    q, dead, target = queue(), unique("dead"), unique("target")
    send(q, 0, MaxReceiveCount=1, MaxReceiveQueue=dead)
    send(q, 1)
    transaction = q.create_transaction()
    well(transaction.rejected_message(held(transaction).Attributes.Sequence), 3)
    is_free(transaction)
    assert held(transaction).Policy.MaxReceiveCount == 1024
    well(transaction.resend(target), 5)
    assert policy_of(one_of(dead)) == (0, 0, 1024, "")
    assert policy_of(one_of(target)) == (0, 0, 1024, "")


def test_a_message_that_is_resent_after_a_rejection_counts_from_one():
    q, target = queue(), unique("target")
    send(q, 6)
    transaction = q.create_transaction()
    well(transaction.rejected_message(held(transaction).Attributes.Sequence), 3)
    is_free(transaction)
    again = held(transaction)
    assert (again.Attributes.Sequence, again.Attributes.ReceiveCount) == (2, 2)
    well(transaction.resend(target), 5)
    moved = one_of(target)
    assert (moved.Attributes.Sequence, moved.Attributes.ReceiveCount) == (1, 1)


def test_a_modified_message_is_new_whatever_its_attributes_said():
    q, target = queue(), unique("target")
    answer = send(q, 9, ExpirationSeconds=60, MaxReceiveCount=9)
    transaction = q.create_transaction()
    message = held(transaction)
    message.Channel = target
    message.Attributes.ReceiveCount = 77
    message.Attributes.ReRouted = True
    message.Attributes.ExpirationAt = 1
    began_ns = time.time_ns()
    well(transaction.modify(message), 6)
    modified = one_of(target)
    timestamp = modified.Attributes.Timestamp
    assert is_since(timestamp, began_ns) and timestamp > answer.sent_at
    assert all_of(modified) == expected(9, 1, timestamp, ExpirationAt=timestamp + MINUTE)
    assert policy_of(modified) == (60, 0, 9, "")
    # The SDK gives it another id.
    assert modified.MessageID not in ("", answer.message_id)
    assert dict(modified.Tags) == {"number": "9"}
