"""Queues through the clients of 3.6.0: every way in which a message can be dealt with."""

import threading
import time

from killed_consumer import kill_one_that_holds
from mid import QueueMessage, assert_empty, message_of, numbers, put, queues, receive, send
from support import COUNT, LARGE_BODY, PEER_ADDRESS, number_of, pb, raw_stub, unique, until


def test_contents_and_attributes():
    channel = unique("queue")
    with queues() as client:
        send(client, channel, 10)
        response = receive(client, channel, 10)
        for number, message in enumerate(response.messages):
            assert number_of(message.body) == number
            assert message.id == "id-%d" % number
            assert message.metadata == "m%d" % number
            assert message.tags == {"number": str(number), "ключ": "значение"}
            assert (message.sequence, message.receive_count) == (number + 1, 1)
            assert not message.is_re_routed
        response.ack_all()
        assert_empty(client, channel)


def test_many_messages_keep_their_order_whoever_takes_them():
    channel, half = unique("queue"), COUNT // 10
    with queues() as client:
        send(client, channel, 2 * half)
        assert numbers(client.waiting(channel, 10, 1)) == list(range(10))
        response = receive(client, channel, half)
        assert numbers(response) == list(range(half))
        response.messages[0].reject()
        for message in response.messages[1:]:
            message.ack()
        assert numbers(client.pull(channel, half + 1, 10)) == [*range(half, 2 * half), 0]


def test_what_a_send_is_answered_with():
    channel = unique("queue")
    with queues() as client:
        for number, policy in enumerate(
            ({}, {"delay_in_seconds": 3}, {"expiration_in_seconds": 60, "delay_in_seconds": 2})
        ):
            result = client.send_queues_message(message_of(channel, number, **policy))
            assert (result.id, result.is_error, result.error) == ("id-%d" % number, False, None)
            assert abs(result.sent_at.timestamp() - time.time()) < 60
            delay = policy.get("delay_in_seconds", 0)
            if not delay:
                assert result.delayed_to is None
            else:
                assert abs((result.delayed_to - result.sent_at).total_seconds() - delay) < 1
            if "expiration_in_seconds" not in policy:
                assert result.expired_at is None
            else:
                # Counted after the delay.
                assert abs((result.expired_at - result.sent_at).total_seconds() - 62) < 1
        refused = client.send_queues_message(message_of(channel, 3, dead_letter_queue="a b"))
        assert refused.is_error
        assert refused.error.startswith("Error 120: invalid queue name value")


def test_an_expired_message_is_never_delivered():
    channel = unique("queue")
    with queues() as client:
        result = put(client, message_of(channel, 1, expiration_in_seconds=1))
        send(client, channel, 1)
        until(lambda: time.time() > result.expired_at.timestamp() + 0.1, what="the expiry")
        assert numbers(client.waiting(channel, 10, 1)) == [0]
        assert numbers(client.pull(channel, 1, 1)) == [0]
        assert_empty(client, channel)


def test_a_poll_of_an_empty_queue_ends_with_its_time():
    channel = unique("queue")
    with queues() as client:
        # The stream of a client's receives is opened by the first of them.
        send(client, channel, 1)
        assert numbers(receive(client, channel, 1, auto_ack=True)) == [0]
        for wait in (0, 1):
            began = time.monotonic()
            # This SDK gives up half a second after the wait, with an error.
            assert receive(client, channel, 5, wait=wait).messages == []
            assert wait - 0.05 < time.monotonic() - began < wait + 0.5


def test_messages_of_a_killed_consumer_go_to_another_in_order():
    """At another node, if there is one."""
    channel, count = unique("queue"), COUNT // 10
    with queues(PEER_ADDRESS) as client:
        send(client, channel, count)
        kill_one_that_holds(channel, count)
        response = receive(client, channel, count)
        assert numbers(response) == list(range(count))
        assert {message.receive_count for message in response.messages} == {2}
        response.ack_all()
        assert_empty(client, channel)


def test_a_long_poll_ends_when_a_message_comes():
    channel = unique("queue")
    with queues() as client, queues(PEER_ADDRESS) as sender:
        timer = threading.Timer(1, lambda: send(sender, channel, 1))
        timer.start()
        began = time.monotonic()
        assert numbers(receive(client, channel, 1, wait=20)) == [0]
        assert 0.9 < time.monotonic() - began < 10
        timer.join()


def test_a_message_of_many_megabytes_goes_both_ways():
    channel, body = unique("queue"), LARGE_BODY
    # It waits two seconds for an answer where nobody says more.
    with queues(send_timeout=30) as client:
        put(client, QueueMessage(channel=channel, metadata="large", body=body))
        response = receive(client, channel, 1, wait=30)
        assert response.messages[0].body == body
        response.ack_all()
        assert_empty(client, channel)


def test_settled_one_by_one():
    channel, other = unique("queue"), unique("other")
    with queues() as client:
        send(client, channel, 9)
        for message in receive(client, channel, 9).messages:
            number = number_of(message.body)
            (message.ack, message.reject, lambda m=message: m.re_queue(other))[number % 3]()
        rejected = receive(client, channel, 3)
        assert numbers(rejected) == [1, 4, 7]
        assert {message.receive_count for message in rejected.messages} == {2}
        moved = receive(client, other, 3)
        assert numbers(moved) == [2, 5, 8]
        for message in moved.messages:
            assert message.receive_count == 1
            assert (message.is_re_routed, message.re_route_from_queue) == (True, channel)
        rejected.ack_all()
        moved.ack_all()
        assert_empty(client, channel)
        assert_empty(client, other)


def test_settled_all_at_once():
    channel, other = unique("queue"), unique("other")
    with queues() as client:
        send(client, channel, 10)
        receive(client, channel, 10).reject_all()
        receive(client, channel, 10).re_queue_all(other)
        assert_empty(client, channel)
        moved = receive(client, other, 10)
        assert numbers(moved) == list(range(10))
        moved.ack_all()
        assert_empty(client, other)


def test_auto_ack():
    channel = unique("queue")
    with queues() as client:
        send(client, channel, 5)
        assert numbers(receive(client, channel, 5, auto_ack=True)) == list(range(5))
        assert_empty(client, channel)


def test_dead_letters():
    channel, dead = unique("queue"), unique("dead")
    with queues() as client:
        send(client, channel, 2, attempts_before_dead_letter_queue=2, dead_letter_queue=dead)
        for _ in range(2):
            receive(client, channel, 2).reject_all()
        letters = receive(client, dead, 2)
        assert numbers(letters) == [0, 1]
        assert all(m.is_re_routed and m.receive_count == 1 for m in letters.messages)
        assert_empty(client, channel)


def test_a_delayed_message_comes_when_it_is_due():
    channel = unique("queue")
    with queues() as client:
        began = time.monotonic()
        send(client, channel, 1, delay_in_seconds=2)
        assert numbers(receive(client, channel, 1)) == [0]
        assert 1.5 < time.monotonic() - began < 8


def test_visibility_of_this_sdk_gives_the_message_back():
    channel = unique("queue")
    with queues() as client, queues(PEER_ADDRESS) as other:
        send(client, channel, 2)
        response = receive(client, channel, 2, visibility_seconds=2)
        response.messages[0].extend_visibility_timer(5)
        assert numbers(receive(other, channel, 1)) == [1]
        response.messages[0].ack()
        assert_empty(other, channel)


def test_waiting_and_pulled():
    channel = unique("queue")
    with queues() as client:
        send(client, channel, 5)
        waiting = client.waiting(channel, 3, 1)
        assert [number_of(m.body) for m in waiting.messages] == [0, 1, 2]
        pulled = client.pull(channel, 5, 10)
        assert [number_of(m.body) for m in pulled.messages] == list(range(5))
        assert_empty(client, channel)


def test_what_a_closed_client_held_comes_back_in_order():
    channel = unique("queue")
    with queues() as client:
        send(client, channel, 5)
        leaving = queues(PEER_ADDRESS)
        receive(leaving, channel, 3)
        leaving.close()
        response = receive(client, channel, 5)
        assert numbers(response) == list(range(5))
        assert [message.sequence for message in response.messages] == [1, 2, 3, 4, 5]


def test_an_ack_goes_through_while_a_poll_waits():
    channel, empty = unique("queue"), unique("empty")
    with queues() as client, queues(PEER_ADDRESS) as other:
        send(client, channel, 1)
        held = receive(client, channel, 1)
        poll = threading.Thread(target=lambda: receive(client, empty, 1, wait=5))
        poll.start()
        held.messages[0].reject()
        assert numbers(receive(other, channel, 1, wait=3)) == [0]
        assert poll.is_alive(), "the poll still waits"
        poll.join()


def test_figures_of_queues():
    """The newest SDKs have lost this call; this one has its stub, and no method for it."""
    stub, first, second = raw_stub(), unique("queue"), unique("queue")
    with queues() as client:
        send(client, first, 3)
        send(client, second, 2)
        held = receive(client, second, 1)
        request = pb.QueuesInfoRequest(RequestID="r", QueueName="%s;%s" % (first, second))
        response = stub.QueuesInfo(request)
        assert response.RefRequestID == "r"
        info = response.Info
        assert (info.TotalQueue, info.Sent, info.Delivered, info.Waiting) == (2, 5, 1, 4)
        told = {queue.Name: queue for queue in info.Queues}
        queue = told[second]
        assert (queue.Messages, queue.FirstSequence, queue.LastSequence) == (2, 1, 2)
        assert (queue.Sent, queue.Delivered, queue.Waiting) == (2, 1, 1)
        assert queue.Bytes > 0
        everything = stub.QueuesInfo(pb.QueuesInfoRequest()).Info
        assert {first, second} <= {queue.Name for queue in everything.Queues}
        assert everything.TotalQueue == len(everything.Queues)
        held.ack_all()
