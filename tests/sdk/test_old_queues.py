"""Queues through the old SDKs' unary calls."""

import threading
import time

import grpc
import pytest
from kubemq.grpc import QueueMessagePolicy
from old import Message, fill, is_free, numbers_of, own_numbers, queue, queue_message
from support import (
    COUNT,
    PEER_ADDRESS,
    SLOWNESS,
    at_once,
    body_of,
    md5_of,
    number_of,
    unique,
    until,
)


def receive_all(q, count):
    """Receives until `count` messages came."""
    messages = []

    def more():
        response = q.receive_queue_messages()
        assert not response.is_error, response.error
        messages.extend(response.messages)
        return len(messages) >= count

    until(more, what="%d messages" % count)
    return messages


def test_ping():
    assert queue().ping().Host


def test_what_is_sent_is_received_once_in_order():
    q = queue()
    before_ns = time.time_ns()
    for number in range(COUNT):
        result = q.send_queue_message(queue_message(number))
        assert not result.is_error, result.error
        assert result.message_id
        assert before_ns - 10**9 < result.sent_at < time.time_ns() + 10**9
        assert result.delayed_to == 0 and result.expiration_at == 0
    response = q.receive_queue_messages(COUNT)
    assert numbers_of(response) == list(range(COUNT))
    assert response.messages_received == COUNT
    assert response.messages_expired == 0
    assert not response.is_peek
    for number, message in enumerate(response.messages):
        assert message.Channel == q.queue_name
        assert message.ClientID == "client-1"
        assert message.Metadata == "m%d" % number
        assert dict(message.Tags) == {"number": str(number)}
        attributes = message.Attributes
        assert attributes.Sequence == number + 1
        assert attributes.ReceiveCount == 1
        assert attributes.MD5OfBody == md5_of(body_of(number))
        assert before_ns - 10**9 < attributes.Timestamp < time.time_ns() + 10**9
        assert not attributes.ReRouted and not attributes.ReRoutedFromQueue
        assert attributes.ExpirationAt == 0 and attributes.DelayedTo == 0
        assert message.Policy.MaxReceiveCount == 1024
    assert numbers_of(q.receive_queue_messages(1)) == [], "received once"


def test_a_batch_is_answered_one_by_one_in_order():
    q = queue()
    messages = [queue_message(number) for number in range(COUNT)]
    for number, message in enumerate(messages):
        message.message_id = "id-%d" % number
        message.queue = q.queue_name
        message.client_id = "client-1"
    answer = q.send_queue_messages_batch(messages)
    assert not answer.have_errors
    assert [result.MessageID for result in answer.result] == [
        "id-%d" % number for number in range(COUNT)
    ]
    assert numbers_of(q.receive_queue_messages(COUNT)) == list(range(COUNT))


def test_a_bad_message_in_a_batch_fails_alone():
    q = queue()
    good, bad = queue_message(1), Message()
    bad.metadata, bad.body, bad.tags = "", b"", {"only": "tags"}
    answer = q.send_queue_messages_batch([good, bad, queue_message(2)])
    assert answer.have_errors
    assert [result.IsError for result in answer.result] == [False, True, False]
    assert answer.result[1].Error == "Error 110: invalid message, cannot be empty"
    assert numbers_of(q.receive_queue_messages(2)) == [1, 2]


def test_ids_that_collide_lose_nothing():
    name = unique("queue")
    first, second = queue(name, "one"), queue(name, "two", address=PEER_ADDRESS)
    for number in range(100):
        for offset, q in ((0, first), (1000, second)):
            message = queue_message(number + offset)
            message.message_id = str(number)
            assert not q.send_queue_message(message).is_error
    received = [number_of(message.Body) for message in receive_all(first, 200)]
    assert sorted(received) == [*range(100), *range(1000, 1100)]


def same_id(number, policy=None):
    message = queue_message(number, policy)
    message.message_id = "1"
    return message


def test_messages_of_one_id_are_all_delayed_and_all_come():
    name = unique("queue")
    policy = QueueMessagePolicy(DelaySeconds=1)
    for client_id, first in (("one", 0), ("two", 5)):
        q = queue(name, client_id)
        for number in range(first, first + 5):
            assert not q.send_queue_message(same_id(number, policy)).is_error
        batch = [same_id(number, policy) for number in range(first + 10, first + 15)]
        answer = q.send_queue_messages_batch(batch)
        assert not answer.have_errors
        assert [result.MessageID for result in answer.result] == ["1"] * 5
    q.wait_time_seconds_queue_messages = 20
    response = q.receive_queue_messages(20)
    assert sorted(numbers_of(response)) == list(range(20))
    assert {message.MessageID for message in response.messages} == {"1"}


def test_dead_letters_of_one_id_all_come():
    q, dead = queue(), queue(unique("dead"), wait_seconds=20)
    policy = QueueMessagePolicy(MaxReceiveCount=1, MaxReceiveQueue=dead.queue_name)
    assert not q.send_queue_messages_batch([same_id(n, policy) for n in range(5)]).have_errors
    transaction = q.create_transaction()
    for number in range(5):
        message = transaction.receive(60, 10).message
        assert number_of(message.Body) == number
        rejected = transaction.rejected_message(message.Attributes.Sequence)
        assert not rejected.is_error, rejected.error
        is_free(transaction)
    letters = dead.receive_queue_messages(5)
    assert numbers_of(letters) == list(range(5))
    assert {message.MessageID for message in letters.messages} == {"1"}


def test_a_delayed_message_comes_when_it_is_due():
    q = queue()
    late = q.send_queue_message(queue_message(1, QueueMessagePolicy(DelaySeconds=3)))
    assert abs(late.delayed_to - late.sent_at - 3 * 10**9) < 10**9
    q.send_queue_message(queue_message(2))
    assert numbers_of(q.peek_queue_message(10)) == [2], "a delayed message is not peeked"
    assert numbers_of(q.receive_queue_messages(1)) == [2]
    q.wait_time_seconds_queue_messages = 10
    [message] = q.receive_queue_messages(1).messages
    assert time.time_ns() >= late.delayed_to - 50 * 10**6, "not early"
    assert time.time_ns() < late.delayed_to + 2 * 10**9, "not late"
    assert number_of(message.Body) == 1
    assert message.Attributes.DelayedTo == 0


def test_an_expired_message_is_never_delivered():
    q = queue()
    policy = QueueMessagePolicy(ExpirationSeconds=1)
    result = q.send_queue_message(queue_message(1, policy))
    assert abs(result.expiration_at - result.sent_at - 10**9) < 5 * 10**8
    q.send_queue_message(queue_message(2))
    until(lambda: time.time_ns() > result.expiration_at + 10**8, what="the expiry")
    assert numbers_of(q.peek_queue_message(10)) == [2]
    assert numbers_of(q.receive_queue_messages(10)) == [2]


def test_a_message_that_has_not_expired_tells_when_it_will():
    q = queue()
    result = q.send_queue_message(queue_message(1, QueueMessagePolicy(ExpirationSeconds=60)))
    [message] = q.receive_queue_messages(1).messages
    assert message.Attributes.ExpirationAt == result.expiration_at


def test_expiry_is_counted_after_the_delay():
    q = queue()
    policy = QueueMessagePolicy(DelaySeconds=2, ExpirationSeconds=3)
    result = q.send_queue_message(queue_message(1, policy))
    assert abs(result.expiration_at - result.sent_at - 5 * 10**9) < 10**9
    q.wait_time_seconds_queue_messages = 10
    assert numbers_of(q.receive_queue_messages(1)) == [1]


def test_a_delayed_message_that_nobody_takes_before_it_expires_is_gone():
    q = queue()
    policy = QueueMessagePolicy(DelaySeconds=1, ExpirationSeconds=1)
    result = q.send_queue_message(queue_message(1, policy))
    q.send_queue_message(queue_message(2))
    peeked = numbers_of(q.peek_queue_message(2))
    assert peeked == [2] or time.time_ns() > result.delayed_to, "it is not due"
    until(lambda: time.time_ns() > result.expiration_at + 10**8, what="the expiry")
    assert numbers_of(q.peek_queue_message(2)) == [2]
    assert numbers_of(q.receive_queue_messages(2)) == [2]


def test_large_messages_come_in_answers_that_every_client_takes():
    """The newest clients refuse answers above 4 MiB."""
    q = queue()
    for number in range(6):
        message = queue_message(number)
        message.body = b"%d:" % number + b"x" * 1_000_000
        assert not q.send_queue_message(message).is_error

    def taken(response):
        assert not response.is_error, response.error
        assert 0 < sum(len(message.Body) for message in response.messages) < 4 << 20
        return [int(message.Metadata[1:]) for message in response.messages]

    peeked = taken(q.peek_queue_message(6))
    assert peeked == list(range(len(peeked)))
    received = []
    while len(received) < 6:
        received += taken(q.receive_queue_messages(6))
    assert received == list(range(6))


def test_a_peek_takes_nothing():
    q = queue()
    for number in range(20):
        q.send_queue_message(queue_message(number))
    for _ in range(2):
        peeked = q.peek_queue_message(10)
        assert peeked.is_peek
        assert numbers_of(peeked) == list(range(10))
        assert all(message.Attributes.ReceiveCount == 1 for message in peeked.messages)
    received = q.receive_queue_messages(20)
    assert numbers_of(received) == list(range(20))
    assert all(message.Attributes.ReceiveCount == 1 for message in received.messages)


def test_a_long_poll_ends_when_a_message_comes():
    q = queue(wait_seconds=20)
    began = time.monotonic()
    sender = threading.Timer(1.0, lambda: queue(q.queue_name).send_queue_message(queue_message(7)))
    sender.start()
    assert numbers_of(q.receive_queue_messages(1)) == [7]
    assert 0.9 < time.monotonic() - began < 10
    sender.join()


def sending_later(name, *numbers):
    """Sends them one after the other, the first in half a second."""

    def send():
        for number in numbers:
            queue(name, address=PEER_ADDRESS).send_queue_message(queue_message(number))

    timer = threading.Timer(0.5, send)
    timer.start()
    return timer


def test_a_receive_of_more_than_there_is_waits_for_its_whole_time():
    wait = 2 * SLOWNESS
    q = queue(wait_seconds=wait)
    fill(q, 2)
    began, sender = time.monotonic(), sending_later(q.queue_name, 2)
    assert numbers_of(q.receive_queue_messages(5)) == [0, 1, 2]
    assert wait - 0.1 < time.monotonic() - began < wait + 8
    sender.join()


def test_a_receive_ends_with_the_last_message_that_it_wants():
    q = queue(wait_seconds=30)
    fill(q, 1)
    began, sender = time.monotonic(), sending_later(q.queue_name, 1, 2, 3)
    assert numbers_of(q.receive_queue_messages(3)) == [0, 1, 2]
    assert 0.4 < time.monotonic() - began < 20
    sender.join()
    assert numbers_of(q.receive_queue_messages(1)) == [3], "it took no more than it wanted"


def test_a_receive_without_a_wait_time_waits_for_a_second():
    q = queue(wait_seconds=0)
    fill(q, 2)
    for expected in ([0, 1], []):
        began = time.monotonic()
        assert numbers_of(q.receive_queue_messages(3)) == expected
        assert 0.9 < time.monotonic() - began < 10
    fill(q, 3)
    assert numbers_of(q.receive_queue_messages(3)) == [0, 1, 2]


def test_a_peek_waits_only_while_there_is_nothing():
    q = queue(wait_seconds=30)
    began, sender = time.monotonic(), sending_later(q.queue_name, 7)
    for _ in range(2):
        assert numbers_of(q.peek_queue_message(5)) == [7]
    assert 0.4 < time.monotonic() - began < 20
    sender.join()


def test_a_poll_of_an_empty_queue_ends_with_its_time():
    q = queue(wait_seconds=2)
    began = time.monotonic()
    response = q.receive_queue_messages(5)
    assert not response.is_error
    assert list(response.messages) == []
    assert 1.9 < time.monotonic() - began < 4


def test_each_message_goes_to_one_of_many_receivers():
    name = unique("queue")
    received, lock = [], threading.Lock()

    def receive():
        q = queue(name)
        empty = 0
        while empty < 2:
            messages = q.receive_queue_messages(50).messages
            empty = 0 if messages else empty + 1
            with lock:
                received.extend(number_of(message.Body) for message in messages)

    receivers = [threading.Thread(target=receive) for _ in range(4)]
    q = queue(name)
    q.send_queue_messages_batch([queue_message(number) for number in range(COUNT)])
    for thread in receivers:
        thread.start()
    for thread in receivers:
        thread.join()
    assert sorted(received) == list(range(COUNT))


def test_several_threads_may_share_a_queue_object():
    q, count = queue(), COUNT // 10
    received = [[] for _ in range(4)]

    def all_came():
        return sum(map(len, received)) >= 4 * count

    def work(thread):
        if thread < 4:
            fill(q, own_numbers(thread, count))
        else:
            mine = received[thread - 4]
            until(all_came, lambda: mine.extend(numbers_of(q.receive_queue_messages(5))))

    at_once(work, 8)
    for mine in received:
        # What one sender sent comes to one receiver in its order.
        assert sorted(mine, key=lambda number: number // 10_000) == sorted(mine)
    everything = sorted(number for mine in received for number in mine)
    assert everything == [n for thread in range(4) for n in own_numbers(thread, count)]


def test_ack_all_empties_the_queue():
    q = queue()
    q.send_queue_messages_batch([queue_message(number) for number in range(COUNT)])
    q.send_queue_message(queue_message(2000, QueueMessagePolicy(DelaySeconds=2)))
    answer = q.ack_all_queue_messages()
    assert not answer.is_error
    assert answer.affected_messages == COUNT
    q.wait_time_seconds_queue_messages = 10
    assert numbers_of(q.receive_queue_messages(1)) == [2000], "a delayed message stays"


def test_a_batch_of_none_is_refused():
    q = queue()
    with pytest.raises(grpc.RpcError) as failure:
        q.send_queue_messages_batch([])
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert failure.value.details() == "empty messages batch"
