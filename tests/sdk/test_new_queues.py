"""Queues through the newest SDK's clients."""

import threading
import time

from admin import wait_until_empty
from new import QueueMessage, numbers, queue_client, queue_message, queues, receive, send
from support import ADDRESS, COUNT, PEER_ADDRESS, number_of, unique, until


def assert_nothing_to_receive(client, channel):
    response = receive(client, channel, 1, wait=1)
    assert response.messages == [], "all of it should be held by others"


def test_what_is_sent_by_stream_is_received_once_in_order():
    with queue_client() as (client, channel):
        began = time.time()
        for number in range(COUNT):
            result = client.send_queue_message(queue_message(channel, number))
            assert not result.is_error, result.error
            assert result.id == "id-%d" % number
            assert abs(result.sent_at.timestamp() - time.time()) < 60
            assert result.expired_at is None and result.delayed_to is None
        response = receive(client, channel, COUNT)
        assert numbers(response.messages) == list(range(COUNT))
        assert response.transaction_id
        for number, message in enumerate(response.messages):
            assert message.id == "id-%d" % number
            assert message.channel == channel
            assert message.metadata == "m%d" % number
            assert message.tags == {"number": str(number), "ключ": "значение"}
            assert message.from_client_id == client.config.client_id
            assert message.sequence == number + 1
            assert message.receive_count == 1
            assert not message.is_re_routed and not message.re_route_from_queue
            assert began - 1 < message.timestamp.timestamp() < time.time() + 1
        response.ack_all()
        wait_until_empty(channel)


def test_the_unary_send_answers_the_same():
    with queue_client() as (client, channel):
        for number in range(50):
            result = client.send_queue_message_simple(queue_message(channel, number))
            assert not result.is_error and result.id == "id-%d" % number
        assert numbers(receive(client, channel, 50).messages) == list(range(50))


def test_a_batch_goes_to_the_queues_of_its_messages():
    with queue_client() as (client, even):
        odd = unique("odd")
        batch = [queue_message(odd if number % 2 else even, number) for number in range(10)]
        assert not client.send_queue_messages_batch(batch).have_errors
        assert numbers(receive(client, even, 5, auto_ack=True).messages) == [0, 2, 4, 6, 8]
        assert numbers(receive(client, odd, 5, auto_ack=True).messages) == [1, 3, 5, 7, 9]


def test_names_that_differ_by_case_or_are_of_other_letters_are_apart():
    root = unique("queue")
    names = [root + "-a", root + "-A", root + "-очередь"]
    with queues() as client:
        for number, name in enumerate(names):
            assert not client.send_queue_message(queue_message(name, number)).is_error
        for number, name in enumerate(names):
            [message] = receive(client, name, 1).messages
            assert (message.channel, number_of(message.body)) == (name, number)
            message.ack()
            wait_until_empty(name)


def test_a_poll_for_more_than_there_is_brings_what_there_is():
    with queue_client() as (client, channel):
        send(client, channel, 3)
        response = receive(client, channel, 10, wait=2)
        assert numbers(response.messages) == [0, 1, 2]
        response.ack_all()
        wait_until_empty(channel)


def test_bodies_of_any_kind():
    with queue_client() as (client, channel):
        bodies = [b"", b"\x00", bytes(range(256)) * 40, "текст".encode(), b"x" * 3_000_000]
        for body in bodies:
            message = QueueMessage(channel=channel, metadata="m", body=body)
            assert not client.send_queue_message_simple(message).is_error
        got = [receive(client, channel, 1, auto_ack=True).messages[0].body for _ in bodies]
        assert got == bodies


def test_acknowledged_one_by_one_in_any_order():
    with queue_client() as (client, channel):
        send(client, channel, 100)
        response = receive(client, channel, 100)
        for message in reversed(response.messages):
            message.ack()
        wait_until_empty(channel)


def test_a_message_that_is_held_is_nobody_elses():
    with queue_client() as (client, channel), queues(address=PEER_ADDRESS) as other:
        send(client, channel, 10)
        held = receive(client, channel, 6)
        rest = receive(other, channel, 4)
        assert numbers(held.messages) == list(range(6))
        assert numbers(rest.messages) == list(range(6, 10))
        assert_nothing_to_receive(other, channel)
        held.ack_all()
        rest.ack_all()
        wait_until_empty(channel)


def test_a_rejected_message_comes_again_at_the_tail():
    with queue_client() as (client, channel):
        send(client, channel, 3)
        first = receive(client, channel, 1)
        first.messages[0].nack()
        response = receive(client, channel, 3)
        assert numbers(response.messages) == [1, 2, 0]
        back = response.messages[2]
        assert back.id == "id-0"
        assert back.receive_count == 2
        assert back.sequence == 4
        response.ack_all()
        wait_until_empty(channel)


def test_all_rejected_messages_come_again():
    with queue_client() as (client, channel):
        send(client, channel, COUNT)
        receive(client, channel, COUNT).reject_all()
        response = receive(client, channel, COUNT)
        assert numbers(response.messages) == list(range(COUNT))
        assert {message.receive_count for message in response.messages} == {2}
        response.ack_all()
        wait_until_empty(channel)


def test_a_part_acknowledged_and_the_rest_rejected():
    with queue_client() as (client, channel):
        send(client, channel, 10)
        for message in receive(client, channel, 10).messages:
            if number_of(message.body) % 2:
                message.ack()
            else:
                message.nack()
        response = receive(client, channel, 5)
        assert numbers(response.messages) == [0, 2, 4, 6, 8]
        response.ack_all()
        wait_until_empty(channel)


def test_asking_for_the_state_of_a_transaction_changes_nothing():
    """This SDK asks the server, and answers from what it knows itself."""
    with queue_client() as (client, channel):
        send(client, channel, 3)
        response = receive(client, channel, 3)
        response.messages[0].ack()
        assert response.get_active_offsets() == []
        assert response.get_transaction_status() is False
        response.messages[1].nack()
        response.messages[2].ack()
        assert numbers(receive(client, channel, 1, auto_ack=True).messages) == [1]
        wait_until_empty(channel)


def test_a_closed_transaction_gives_everything_back_to_its_place():
    with queue_client() as (client, channel):
        send(client, channel, 10)
        first = receive(client, channel, 4)
        first.messages[1].ack()
        first.close_transaction()
        response = receive(client, channel, 9)
        assert numbers(response.messages) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
        assert [message.sequence for message in response.messages] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
        assert [message.receive_count for message in response.messages] == [2] * 3 + [1] * 6


def test_auto_ack_takes_messages_away():
    with queue_client() as (client, channel):
        send(client, channel, COUNT)
        response = receive(client, channel, COUNT, auto_ack=True)
        assert numbers(response.messages) == list(range(COUNT))
        wait_until_empty(channel)


def test_a_message_refused_too_often_goes_to_the_dead_letter_queue():
    with queue_client() as (client, channel):
        dead = unique("dead")
        send(client, channel, 20, max_receive_count=3, max_receive_queue=dead)
        for delivery in (1, 2, 3):
            response = receive(client, channel, 20)
            assert {message.receive_count for message in response.messages} == {delivery}
            response.reject_all()
        response = receive(client, dead, 20)
        assert sorted(numbers(response.messages)) == list(range(20))
        for message in response.messages:
            number = number_of(message.body)
            assert message.id == "id-%d" % number
            assert message.metadata == "m%d" % number
            assert message.tags == {"number": str(number), "ключ": "значение"}
            assert message.channel == dead
            assert message.is_re_routed
            assert message.re_route_from_queue == channel
            assert message.receive_count == 1
        wait_until_empty(channel)
        # The policy went with the move: rejected there, a message stays there.
        response.reject_all()
        response = receive(client, dead, 20)
        assert sorted(numbers(response.messages)) == list(range(20))
        response.ack_all()
        wait_until_empty(dead)


def test_one_allowed_delivery_means_one():
    with queue_client() as (client, channel):
        dead = unique("dead")
        send(client, channel, 1, max_receive_count=1, max_receive_queue=dead)
        receive(client, channel, 1).messages[0].nack()
        assert numbers(receive(client, dead, 1).messages) == [0]
        wait_until_empty(channel)


def test_a_delayed_message_comes_when_it_is_due():
    with queue_client() as (client, channel):
        result = client.send_queue_message(queue_message(channel, 1, delay_in_seconds=3))
        client.send_queue_message(queue_message(channel, 2))
        assert abs((result.delayed_to - result.sent_at).total_seconds() - 3) < 1
        peeked = client.peek_queue_messages(channel, 10, 1)
        assert numbers(peeked.messages) == [2], "a delayed message is not peeked"
        assert numbers(receive(client, channel, 1, auto_ack=True).messages) == [2]
        [message] = receive(client, channel, 1).messages
        now = time.time()
        assert number_of(message.body) == 1
        due = result.delayed_to.timestamp()
        assert due - 0.05 <= now < due + 2
        assert message.delayed_to.timestamp() == 0


def test_the_time_to_expiry_begins_when_the_delay_is_over():
    with queue_client() as (client, channel):
        policy = {"delay_in_seconds": 2, "expiration_in_seconds": 60}
        result = client.send_queue_message(queue_message(channel, 1, **policy))
        assert abs((result.delayed_to - result.sent_at).total_seconds() - 2) < 1
        assert abs((result.expired_at - result.sent_at).total_seconds() - 62) < 1
        [message] = receive(client, channel, 1).messages
        assert time.time() >= result.delayed_to.timestamp() - 0.05
        assert abs((message.expired_at - result.expired_at).total_seconds()) < 1


def test_an_expired_message_is_never_delivered():
    with queue_client() as (client, channel):
        result = client.send_queue_message(queue_message(channel, 1, expiration_in_seconds=1))
        client.send_queue_message(queue_message(channel, 2, expiration_in_seconds=60))
        until(lambda: time.time() > result.expired_at.timestamp() + 0.1, what="the expiry")
        [message] = receive(client, channel, 1).messages
        assert number_of(message.body) == 2
        assert 50 < message.expired_at.timestamp() - time.time() < 61
        message.ack()
        wait_until_empty(channel)


def test_a_message_that_expired_while_held_does_not_come_again():
    with queue_client() as (client, channel):
        # The stream of a client's receives is opened by the first of them.
        send(client, channel, 1)
        assert numbers(receive(client, channel, 1, auto_ack=True).messages) == [0]
        result = client.send_queue_message(queue_message(channel, 1, expiration_in_seconds=3))
        response = receive(client, channel, 1)
        until(lambda: time.time() > result.expired_at.timestamp() + 0.1, what="the expiry")
        response.reject_all()
        wait_until_empty(channel)


def test_a_peek_takes_nothing():
    with queue_client() as (client, channel):
        send(client, channel, 20)
        for _ in range(2):
            peeked = client.peek_queue_messages(channel, 10, 1)
            assert not peeked.is_error and peeked.is_peak
            assert numbers(peeked.messages) == list(range(10))
        assert numbers(receive(client, channel, 20).messages) == list(range(20))


def test_a_pull_takes_away():
    with queue_client() as (client, channel):
        send(client, channel, COUNT)
        pulled = client.pull(channel, COUNT, 10)
        assert not pulled.is_error
        assert pulled.messages_received == COUNT
        assert numbers(pulled.messages) == list(range(COUNT))
        wait_until_empty(channel)


def test_ack_all_empties_the_queue_but_leaves_what_is_held():
    with queue_client() as (client, channel):
        send(client, channel, COUNT)
        held = receive(client, channel, 10)
        began = time.monotonic()
        assert client.ack_all_queue_messages(channel, 60) == COUNT - 10
        assert time.monotonic() - began < 30, "it does not wait when it is done"
        held.reject_all()
        assert numbers(receive(client, channel, 10).messages) == list(range(10))


def test_a_long_poll_ends_when_a_message_comes():
    with queue_client() as (client, channel), queues(address=PEER_ADDRESS) as sender:
        timer = threading.Timer(
            1, lambda: sender.send_queue_message(queue_message(channel, 7))
        )
        timer.start()
        began = time.monotonic()
        assert numbers(receive(client, channel, 1, wait=20).messages) == [7]
        assert 0.9 < time.monotonic() - began < 10
        timer.join()


def test_a_poll_of_an_empty_queue_ends_with_its_time():
    with queue_client() as (client, channel):
        # The stream of a client's receives is opened by the first of them.
        send(client, channel, 1)
        assert numbers(receive(client, channel, 1, auto_ack=True).messages) == [0]
        for wait in (0, 1, 2):
            began = time.monotonic()
            response = receive(client, channel, 5, wait=wait)
            assert response.messages == []
            # The SDK itself gives up half a second after the wait, with an error.
            assert wait - 0.05 < time.monotonic() - began < wait + 0.5


def test_an_ack_goes_through_while_a_poll_waits():
    """Two threads share the client's one stream: the waiting poll must not hold the ack back."""
    with queue_client() as (client, channel), queues(address=PEER_ADDRESS) as other:
        empty = unique("empty")
        send(client, channel, 1)
        held = receive(client, channel, 1)
        poll = threading.Thread(target=lambda: receive(client, empty, 1, wait=5))
        poll.start()
        held.messages[0].nack()
        assert numbers(receive(other, channel, 1, wait=3).messages) == [0]
        assert poll.is_alive(), "the poll still waits"
        poll.join()


def test_messages_held_by_a_client_that_closes_come_back():
    with queue_client() as (client, channel):
        send(client, channel, COUNT)
        with queues(address=PEER_ADDRESS) as leaving:
            assert len(receive(leaving, channel, COUNT).messages) == COUNT
            assert_nothing_to_receive(client, channel)
        response = receive(client, channel, COUNT)
        assert numbers(response.messages) == list(range(COUNT))
        assert [message.sequence for message in response.messages] == list(range(1, COUNT + 1))
        assert {message.receive_count for message in response.messages} == {2}


def test_many_clients_share_the_work():
    channel = unique("queue")
    received, lock = [], threading.Lock()

    def work(address):
        with queues(address=address) as client:
            empty = 0
            while empty < 2:
                response = receive(client, channel, 20, wait=1)
                empty = 0 if response.messages else empty + 1
                with lock:
                    received.extend(numbers(response.messages))
                if response.messages:
                    response.ack_all()

    addresses = [ADDRESS, PEER_ADDRESS] * 2
    workers = [threading.Thread(target=work, args=(address,)) for address in addresses]
    with queues() as client:
        for number in range(0, COUNT, 100):
            batch = [queue_message(channel, n) for n in range(number, number + 100)]
            assert not client.send_queue_messages_batch(batch).have_errors
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(received) == list(range(COUNT))
        wait_until_empty(channel)
