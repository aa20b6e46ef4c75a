"""Transactions of the old SDKs: one message at a time, as the reference page shows them."""

import subprocess
import sys
import threading
import time

from kubemq.grpc import QueueMessagePolicy
from old import Message, fill, held, is_free, numbers_of, queue, queue_message, well
from support import ADDRESS, PEER_ADDRESS, body_of, md5_of, number_of, unique

E125 = "Error 125: ack sequence cannot be 0 or negative"
E129 = "Error 129: current visibility timer expired"
E138 = "Error 138: no new message in queue, wait time expired"


def numbers(q, count):
    return numbers_of(q.receive_queue_messages(count))


def is_dead_letter(dead, q):
    """The only message of a queue is one of its dead letters."""
    [letter] = dead.receive_queue_messages(1).messages
    assert number_of(letter.Body) == 0
    attributes = letter.Attributes
    assert (attributes.ReRouted, attributes.ReRoutedFromQueue) == (True, q.queue_name)
    assert attributes.ReceiveCount == 1
    assert numbers(q, 1) == []


def test_acknowledged_messages_are_gone_and_one_transaction_takes_many():
    q = queue()
    fill(q, 20)
    transaction = q.create_transaction()
    for number in range(20):
        message = held(transaction)
        assert number_of(message.Body) == number
        assert message.Channel == q.queue_name
        assert message.ClientID == "client-1"
        assert message.Metadata == "m%d" % number
        assert dict(message.Tags) == {"number": str(number)}
        attributes = message.Attributes
        assert (attributes.Sequence, attributes.ReceiveCount) == (number + 1, 1)
        assert attributes.MD5OfBody == md5_of(body_of(number))
        well(transaction.ack_message(attributes.Sequence), 2)
        is_free(transaction)
    assert numbers(q, 1) == []


def test_a_held_message_is_nobody_elses():
    q = queue()
    fill(q, 2)
    transaction, other = q.create_transaction(), queue(q.queue_name, address=PEER_ADDRESS)
    first = held(transaction)
    assert numbers(other, 1) == [1]
    assert numbers(other, 1) == []
    well(transaction.ack_message(first.Attributes.Sequence), 2)


def test_a_wrong_sequence_is_refused_and_the_message_stays():
    q = queue()
    fill(q, 1)
    transaction = q.create_transaction()
    sequence = held(transaction).Attributes.Sequence
    for wrong in (0, sequence + 1):
        response = transaction.ack_message(wrong)
        assert (response.is_error, response.error) == (True, E125)
        response = transaction.rejected_message(wrong)
        assert (response.is_error, response.error) == (True, E125)
    well(transaction.ack_message(sequence), 2)


def test_a_rejected_message_comes_again_at_the_tail():
    q = queue()
    fill(q, 2)
    transaction = q.create_transaction()
    message = held(transaction)
    well(transaction.rejected_message(message.Attributes.Sequence), 3)
    is_free(transaction)
    messages = q.receive_queue_messages(2).messages
    assert [number_of(message.Body) for message in messages] == [1, 0]
    assert [message.Attributes.Sequence for message in messages] == [2, 3]
    assert [message.Attributes.ReceiveCount for message in messages] == [1, 2]
    assert messages[1].MessageID == message.MessageID


def test_a_message_rejected_too_often_goes_to_the_dead_letter_queue():
    q, dead = queue(), queue(unique("dead"), wait_seconds=10)
    fill(q, 1, QueueMessagePolicy(MaxReceiveCount=3, MaxReceiveQueue=dead.queue_name))
    transaction = q.create_transaction()
    for delivery in (1, 2, 3):
        message = held(transaction)
        assert message.Attributes.ReceiveCount == delivery
        assert message.Policy.MaxReceiveCount == 3
        well(transaction.rejected_message(message.Attributes.Sequence), 3)
        is_free(transaction)
    is_dead_letter(dead, q)


def test_a_last_delivery_that_runs_out_of_time_makes_a_dead_letter():
    q, dead = queue(), queue(unique("dead"), wait_seconds=20)
    fill(q, 1, QueueMessagePolicy(MaxReceiveCount=1, MaxReceiveQueue=dead.queue_name))
    held(q.create_transaction(), visibility=1)
    is_dead_letter(dead, q)


def test_a_last_delivery_to_a_client_that_left_makes_a_dead_letter():
    q, dead = queue(), queue(unique("dead"), wait_seconds=20)
    fill(q, 1, QueueMessagePolicy(MaxReceiveCount=2, MaxReceiveQueue=dead.queue_name))
    for delivery in (1, 2):
        # Of its own: the end of a stream may be told when the next one is open.
        transaction = queue(q.queue_name).create_transaction()
        message = held(transaction, visibility=600)
        assert message.Attributes.ReceiveCount == delivery
        transaction.close_stream()
    is_dead_letter(dead, q)


def test_a_message_refused_too_often_is_gone_where_no_queue_is_named_for_it():
    q = queue()
    fill(q, 1, QueueMessagePolicy(MaxReceiveCount=2))
    transaction = q.create_transaction()
    for delivery in (1, 2):
        message = held(transaction)
        assert message.Attributes.ReceiveCount == delivery
        well(transaction.rejected_message(message.Attributes.Sequence), 3)
        is_free(transaction)
    assert numbers(q, 1) == []


def test_an_extended_message_stays_in_hand():
    q = queue()
    fill(q, 1)
    transaction = q.create_transaction()
    message = held(transaction, visibility=3)
    well(transaction.extend_visibility(60), 4)
    time.sleep(3.5)
    well(transaction.ack_message(message.Attributes.Sequence), 2)
    assert numbers(q, 1) == []


def test_a_message_whose_time_is_up_goes_to_others():
    q = queue(wait_seconds=20)
    fill(q, 2)
    transaction = q.create_transaction()
    began = time.monotonic()
    late = held(transaction, visibility=2)
    assert number_of(late.Body) == 0
    messages = q.receive_queue_messages(2).messages
    assert [number_of(message.Body) for message in messages] == [1, 0]
    assert 1.9 < time.monotonic() - began < 10
    assert messages[1].Attributes.ReceiveCount == 2
    # The stream has ended by itself; its last word is what the client reads next.
    response = transaction.ack_message(late.Attributes.Sequence)
    assert (response.is_error, response.error) == (True, E129)
    is_free(transaction)
    fill(q, 1)
    well(transaction.ack_message(held(transaction).Attributes.Sequence), 2)


def test_a_message_is_resent_to_another_queue():
    q, target = queue(), queue(unique("target"), wait_seconds=10)
    fill(q, 1)
    transaction = q.create_transaction()
    message = held(transaction)
    well(transaction.resend(target.queue_name), 5)
    is_free(transaction)
    [moved] = target.receive_queue_messages(1).messages
    assert number_of(moved.Body) == 0
    assert moved.MessageID == message.MessageID
    assert dict(moved.Tags) == {"number": "0"}
    attributes = moved.Attributes
    assert (attributes.ReRouted, attributes.ReRoutedFromQueue) == (True, q.queue_name)
    assert (attributes.Sequence, attributes.ReceiveCount) == (1, 1)
    assert numbers(q, 1) == []


def test_a_modified_message_goes_to_the_queue_it_names():
    q, target = queue(), queue(unique("target"), wait_seconds=10)
    fill(q, 1)
    transaction = q.create_transaction()
    # With the attributes and the policy that it came with: a limit of 1024 deliveries is a proper one.
    message = held(transaction)
    message.Channel = target.queue_name
    message.Metadata = "new metadata"
    well(transaction.modify(message), 6)
    is_free(transaction)
    [modified] = target.receive_queue_messages(1).messages
    assert number_of(modified.Body) == 0
    assert modified.Metadata == "new metadata"
    assert (modified.Attributes.Sequence, modified.Attributes.ReceiveCount) == (1, 1)
    assert modified.Policy.MaxReceiveCount == 1024
    assert numbers(q, 1) == []


def test_a_new_message_may_take_the_place_of_the_old_one():
    q = queue()
    fill(q, 1)
    transaction = q.create_transaction()
    held(transaction)
    message = queue_message(7)
    message.queue, message.client_id = q.queue_name, "client-1"
    assert isinstance(message, Message)
    well(transaction.modify(message), 6)
    is_free(transaction)
    assert numbers(q, 2) == [7]


def test_a_bad_modified_message_is_refused_and_the_old_one_stays():
    q = queue()
    fill(q, 1)
    transaction = q.create_transaction()
    message = held(transaction)
    message.Channel = "a b"
    response = transaction.modify(message)
    assert response.is_error and response.error.startswith("Error 120")
    well(transaction.ack_message(message.Attributes.Sequence), 2)


def test_nothing_in_time_says_so_and_the_transaction_can_wait_again():
    q = queue()
    transaction = q.create_transaction()
    for _ in range(2):
        began = time.monotonic()
        response = transaction.receive(5, 1)
        assert (response.is_error, response.error) == (True, E138)
        assert 0.9 < time.monotonic() - began < 5
        is_free(transaction)
    fill(q, 1)
    well(transaction.ack_message(held(transaction).Attributes.Sequence), 2)


def test_a_receive_ends_when_a_message_comes():
    q = queue()
    sender = threading.Timer(1.0, lambda: fill(queue(q.queue_name), 1))
    sender.start()
    began = time.monotonic()
    transaction = q.create_transaction()
    message = held(transaction, wait=20)
    assert 0.9 < time.monotonic() - began < 10
    well(transaction.ack_message(message.Attributes.Sequence), 2)
    sender.join()


def test_a_cancelled_transaction_gives_its_message_back_to_its_place():
    q = queue(wait_seconds=10)
    fill(q, 2)
    transaction = q.create_transaction()
    held(transaction, visibility=600)
    transaction.close_stream()
    messages = q.receive_queue_messages(2).messages
    assert [number_of(message.Body) for message in messages] == [0, 1]
    assert [message.Attributes.Sequence for message in messages] == [1, 2]


def test_the_message_of_a_killed_client_goes_to_others_in_its_place():
    q = queue()
    fill(q, 3)
    client = subprocess.Popen(
        [sys.executable, "killed_transaction.py", q.queue_name],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout.readline() == "1\n"
    client.kill()
    client.wait()
    killed = time.monotonic()
    other = queue(q.queue_name, wait_seconds=20, address=PEER_ADDRESS)
    messages = other.receive_queue_messages(3).messages
    assert time.monotonic() - killed < 5
    attributes = [message.Attributes for message in messages]
    found = [(one.Sequence, one.ReceiveCount) for one in attributes]
    assert found == [(1, 2), (2, 1), (3, 1)]


def test_each_message_goes_through_one_of_many_transactions():
    name, count = unique("queue"), 100
    fill(queue(name), count)
    received, lock = [], threading.Lock()

    def work(address):
        transaction = queue(name, address=address).create_transaction()
        while True:
            response = transaction.receive(60, 2)
            if response.is_error:
                assert response.error == E138
                return
            message = response.message
            well(transaction.ack_message(message.Attributes.Sequence), 2)
            with lock:
                received.append(number_of(message.Body))
            is_free(transaction)

    addresses = [ADDRESS, PEER_ADDRESS] * 2
    workers = [threading.Thread(target=work, args=(address,)) for address in addresses]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(received) == list(range(count))
