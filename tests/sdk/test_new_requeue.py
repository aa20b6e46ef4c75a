"""Sending messages on to another queue with the newest SDK, and what a transaction tells of
itself."""

import asyncio
import time

from kubemq import AsyncQueuesClient
from new import numbers, queue_client, queue_message, queues, receive, send
from raw import Downstream, Type, fill
from support import ADDRESS, number_of, raw_stub, unique


def assert_empty(client, channel):
    """By a peek: a receive of this SDK gives up half a second after its wait, with an error."""
    assert client.peek_queue_messages(channel, 1, 1).messages == []


def assert_moved(messages, source, expected):
    assert sorted(numbers(messages)) == expected
    for message in messages:
        number = number_of(message.body)
        assert message.id == "id-%d" % number
        assert message.metadata == "m%d" % number
        assert message.tags == {"number": str(number), "ключ": "значение"}
        assert (message.is_re_routed, message.re_route_from_queue) == (True, source)
        assert message.receive_count == 1


def test_all_messages_go_to_another_queue():
    with queue_client() as (client, channel):
        other = unique("other")
        send(client, channel, 100)
        receive(client, channel, 100).re_queue_all(other)
        moved = receive(client, other, 100).messages
        assert_moved(moved, channel, list(range(100)))
        assert numbers(moved) == list(range(100)), "they keep their order"
        assert_empty(client, channel)


def test_single_messages_go_to_another_queue():
    with queue_client() as (client, channel):
        other = unique("other")
        send(client, channel, 6)
        response = receive(client, channel, 6)
        for message in response.messages:
            if number_of(message.body) % 2:
                message.re_queue(other)
            else:
                message.ack()
        assert_moved(receive(client, other, 3).messages, channel, [1, 3, 5])
        assert_empty(client, channel)


def test_a_policy_goes_with_its_message():
    with queue_client() as (client, channel):
        other, dead = unique("other"), unique("dead")
        send(client, channel, 1, max_receive_count=2, max_receive_queue=dead)
        receive(client, channel, 1).re_queue_all(other)
        for delivery in (1, 2):
            response = receive(client, other, 1)
            assert response.messages[0].receive_count == delivery, "it is counted anew there"
            response.reject_all()
        [letter] = receive(client, dead, 1).messages
        assert letter.re_route_from_queue == other


def test_a_requeued_message_is_delayed_again():
    with queue_client() as (client, channel):
        other = unique("other")
        send(client, channel, 1, delay_in_seconds=2)
        response = receive(client, channel, 1)
        began = time.monotonic()
        response.re_queue_all(other)
        assert numbers(receive(client, other, 1).messages) == [0]
        assert time.monotonic() - began > 1.9


def test_the_async_client_requeues():
    channel, other = unique("queue"), unique("other")

    async def run():
        async with AsyncQueuesClient(address=ADDRESS, client_id=unique("async")) as client:
            for number in range(3):
                result = await client.send_queue_message(queue_message(channel, number))
                assert not result.is_error
            response = await client.receive_queue_messages(channel, 3, 10)
            for message in response.messages:
                await message.async_re_queue(other)
            moved = await client.receive_queue_messages(other, 3, 10)
            assert_moved(moved.messages, channel, [0, 1, 2])

    asyncio.run(run())


def test_a_requeue_is_silent_and_what_is_left_is_told():
    stub, channel, other = raw_stub(), unique("queue"), unique("other")
    fill(stub, channel, 4)
    stream = Downstream(stub)
    got = stream.get(channel, 4)
    known = dict(RefTransactionId=got.TransactionId)
    stream.send(Type.ReQueueRange, ReQueueChannel=other, SequenceRange=[1, 3], **known)
    stream.assert_silent()
    stream.send(Type.ActiveOffsets, **known)
    assert sorted(stream.answer().ActiveOffsets) == [2, 4]
    stream.send(Type.ReQueueAll, ReQueueChannel=other, **known)
    stream.send(Type.TransactionStatus, **known)
    status = stream.answer()
    assert (status.RequestTypeData, status.TransactionComplete) == (Type.TransactionStatus, True)
    moved = stream.get(other, 4)
    assert sorted(number_of(m.Body) for m in moved.Messages) == [0, 1, 2, 3]
    stream.cancel()


def test_requeue_errors_are_answered_and_the_messages_stay():
    stub, channel, other = raw_stub(), unique("queue"), unique("other")
    fill(stub, channel, 2)
    stream = Downstream(stub)
    known = stream.get(channel, 2).TransactionId

    def refused(kind, target, transaction=known, sequences=()):
        stream.send(
            kind,
            request_id="bad",
            RefTransactionId=transaction,
            ReQueueChannel=target,
            SequenceRange=sequences,
        )
        response = stream.answer()
        assert response.IsError
        assert (response.RequestTypeData, response.RefRequestId) == (kind, "bad")
        return response.Error

    for kind in (Type.ReQueueAll, Type.ReQueueRange):
        assert refused(kind, "") == "cannot requeue messages with empty channel destination "
        assert refused(kind, "a.*").startswith("Error 120")
        assert refused(kind, other, "nothing", [1]) == (
            "transaction is completed or transaction id not found"
        )
    assert refused(Type.ReQueueRange, other) == "cannot requeue empty list of of offsets"
    assert refused(Type.ReQueueRange, other, sequences=[9]) == "invalid ack sequence id 9"
    stream.cancel()
    with queues() as client:
        assert numbers(receive(client, channel, 2).messages) == [0, 1]
