"""What the newest SDK shows of messages: every field of those that were received, peeked and
pulled, of dead letters and of those that were moved; and the ids that it makes."""

import re
import time
from datetime import datetime, timedelta

import new_async
import pytest
from admin import wait_until_empty
from new import (
    EventMessage,
    EventStoreMessage,
    QueueMessage,
    Subscription,
    go_live,
    numbers,
    pubsub,
    queue_client,
    queue_message,
    queues,
    receive,
)
from new import EventStoreStartPosition as Start
from raw import message as raw_message
from support import PEER_ADDRESS, SLOWNESS, md5_of, numbered, pb, raw_stub, run_async, unique, until

NEVER = datetime.fromtimestamp(0)
# The SDK makes its times from numbers with fractions, which tell no nanoseconds.
CLOSE = timedelta(milliseconds=1)
# Of messages that shall be there until they are looked at.
EXPIRY = 600
MADE = re.compile("[0-9a-f]{32}")


def send_one(client, channel, number=7, **policy):
    result = client.send_queue_message(queue_message(channel, number, **policy))
    assert (result.id, result.is_error, result.error) == ("id-%d" % number, False, None)
    return result


def fresh(channel, sender, receiver, result, number=7):
    """What is shown of a message that was sent a moment ago."""
    return {
        **numbered("id", channel, number),
        "from_client_id": sender.config.client_id,
        "receiver_client_id": receiver.config.client_id,
        "timestamp": result.sent_at,
        "sequence": 1,
        "receive_count": 1,
        "is_re_routed": False,
        "re_route_from_queue": "",
        "expired_at": result.expired_at,
        "delayed_to": NEVER,
    }


def assert_shows(message, fields):
    assert {name: getattr(message, name) for name in fields} == fields
    assert not message.is_expired()


def assert_received(message, response, fields):
    """Of a message that is received there is more to see."""
    body = fields["body"]
    assert_shows(message, {**fields, "md5_of_body": md5_of(body)})
    assert message.transaction_id == response.transaction_id
    state = (message.is_auto_acked, message.is_completed, message.is_transaction_completed)
    assert state == (False, False, False)


def peek(client, channel):
    answer = client.peek_queue_messages(channel, 10, 1)
    assert (answer.is_error, answer.error, answer.is_peak) == (False, "", True)
    assert (answer.messages_received, answer.messages_expired) == (answer.count(), 0)
    return answer.messages


def test_peeked_received_and_pulled_messages_show_every_field():
    with queue_client() as (sender, channel), queues(address=PEER_ADDRESS) as receiver:
        result = send_one(sender, channel, expiration_in_seconds=EXPIRY)
        assert abs(result.expired_at - result.sent_at - timedelta(seconds=EXPIRY)) < CLOSE
        fields = fresh(channel, sender, receiver, result)
        [peeked] = peek(receiver, channel)
        assert_shows(peeked, fields)
        assert not peeked.is_delayed() and peeked.get_delay_seconds() == 0
        response = receive(receiver, channel, 1)
        [received] = response.messages
        assert_received(received, response, fields)
        received.nack()
        assert received.is_completed
        # At the tail, where it was put a moment ago.
        [again] = until(lambda: peek(receiver, channel))
        fields = {**fields, "sequence": 2, "receive_count": 2, "timestamp": again.timestamp}
        assert again.timestamp > result.sent_at
        assert_shows(again, fields)
        pulled = receiver.pull(channel, 1, 10)
        assert (pulled.is_error, pulled.error, pulled.is_peak) == (False, "", False)
        assert (pulled.messages_received, pulled.messages_expired) == (1, 0)
        assert_shows(pulled.messages[0], fields)


def test_an_asynchronous_client_sees_the_same_fields():
    with queue_client() as (sender, channel):
        result = send_one(sender, channel)
        assert (result.expired_at, result.delayed_to) == (None, None)

        async def run():
            async with new_async.queues(PEER_ADDRESS) as receiver:
                fields = {**fresh(channel, sender, receiver, result), "expired_at": NEVER}
                peeked = await receiver.peek_queue_messages(channel, 10, 1)
                assert_shows(peeked.messages[0], fields)
                response = await receiver.receive_queue_messages(channel, 1, 10)
                assert_received(response.messages[0], response, fields)
                await response.messages[0].async_ack()
                assert response.messages[0].is_completed
                fast = await receiver.receive_queue_messages_fast(channel, 1, 0)
                assert fast.is_empty() and not fast.is_error

        run_async(run())


def test_a_response_tells_of_its_transaction():
    with queue_client() as (client, channel):
        for number in range(3):
            send_one(client, channel, number)
        response = receive(client, channel, 2)
        assert response.ref_request_id and response.transaction_id
        assert (response.count(), response.is_empty(), response.error) == (2, False, "")
        assert response.receiver_client_id == client.config.client_id
        told = (response.active_offsets, response.request_type_data, response.response_metadata)
        assert told == ([], 1, {})
        assert (response.is_auto_acked, response.is_transaction_completed) == (False, False)
        first, second = response.messages
        first.ack()
        assert (first.is_completed, second.is_completed) == (True, False)
        response.ack_all()
        assert response.is_transaction_completed
        assert second.is_completed and second.is_transaction_completed
        taken = receive(client, channel, 1, auto_ack=True)
        assert numbers(taken.messages) == [2]
        assert taken.transaction_id != response.transaction_id
        wait_until_empty(channel)


def test_a_dead_letter_shows_every_field_and_keeps_its_expiry():
    with queue_client() as (client, channel), queues(address=PEER_ADDRESS) as reader:
        dead = unique("dead")
        policy = {"max_receive_count": 1, "max_receive_queue": dead}
        result = send_one(client, channel, expiration_in_seconds=EXPIRY, **policy)
        receive(client, channel, 1).messages[0].nack()
        [peeked] = until(lambda: peek(reader, dead), what="the dead letter")
        assert peeked.timestamp > result.sent_at
        fields = {
            **fresh(dead, client, reader, result),
            "timestamp": peeked.timestamp,
            "is_re_routed": True,
            "re_route_from_queue": channel,
        }
        assert_shows(peeked, fields)
        response = receive(reader, dead, 1)
        [letter] = response.messages
        assert_received(letter, response, fields)
        letter.nack()
        [again] = receive(reader, dead, 1).messages
        assert again.timestamp > peeked.timestamp
        changed = {"timestamp": again.timestamp, "sequence": 2, "receive_count": 2}
        assert_shows(again, {**fields, **changed})


def test_a_dead_letter_expires_when_the_message_would_have():
    with queue_client() as (client, channel):
        dead = unique("dead")
        policy = {"max_receive_count": 1, "max_receive_queue": dead}
        result = send_one(client, channel, expiration_in_seconds=2 * SLOWNESS, **policy)
        receive(client, channel, 1).messages[0].nack()
        [letter] = until(lambda: peek(client, dead), what="the dead letter")
        assert letter.expired_at == result.expired_at
        wait_until_empty(dead)
        assert time.time() >= result.expired_at.timestamp()


def test_a_moved_message_shows_every_field_and_its_expiry_begins_anew():
    with queue_client() as (client, channel), queues(address=PEER_ADDRESS) as reader:
        other = unique("other")
        result = send_one(client, channel, expiration_in_seconds=EXPIRY)
        receive(client, channel, 1).messages[0].re_queue(other)
        [peeked] = until(lambda: peek(reader, other), what="the moved message")
        assert peeked.timestamp > result.sent_at
        assert abs(peeked.expired_at - peeked.timestamp - timedelta(seconds=EXPIRY)) < CLOSE
        fields = {
            **fresh(other, client, reader, result),
            "timestamp": peeked.timestamp,
            "expired_at": peeked.expired_at,
            "is_re_routed": True,
            "re_route_from_queue": channel,
        }
        assert_shows(peeked, fields)
        response = receive(reader, other, 1)
        assert_received(response.messages[0], response, fields)


def test_a_message_without_a_dead_letter_queue_is_gone_after_its_last_delivery():
    """This SDK makes no such message; others do."""
    with queue_client() as (client, channel):
        with pytest.raises(ValueError, match="must also provide a max_receive_queue"):
            queue_message(channel, 0, max_receive_count=2)
        policy = pb.QueueMessagePolicy(MaxReceiveCount=2)
        sent = raw_message(channel, 0, Policy=policy)
        assert not raw_stub().SendQueueMessage(sent).IsError
        for delivery in (1, 2):
            [message] = receive(client, channel, 1).messages
            assert message.receive_count == delivery
            message.nack()
        wait_until_empty(channel)


def test_a_dead_letter_queue_without_a_limit_gets_nothing():
    with queue_client() as (client, channel):
        dead = unique("dead")
        send_one(client, channel, max_receive_queue=dead)
        for delivery in range(1, 6):
            [message] = receive(client, channel, 1).messages
            assert message.receive_count == delivery
            message.nack()
        assert [message.receive_count for message in receive(client, channel, 1).messages] == [6]
        assert peek(client, dead) == []


def test_ids_that_the_sdk_makes_for_messages_are_those_that_receivers_see():
    with queue_client() as (client, channel):
        message = QueueMessage(channel=channel, body=b"b")

        async def send_asynchronously():
            async with new_async.queues() as sender:
                batch = (await sender.send_queue_messages_batch([message] * 2)).results
                return [
                    (await sender.send_queue_message(message)).id,
                    (await sender.send_queue_message_fast(message)).id,
                    (await sender.send_queue_message_simple(message)).id,
                    *(result.id for result in batch),
                ]

        told = [client.send_queue_message(message).id, client.send_queue_message_simple(message).id]
        told += [result.id for result in client.send_queue_messages_batch([message] * 2)]
        told += run_async(send_asynchronously())
        assert len(set(told)) == 9 and all(MADE.fullmatch(one) for one in told)
        got = receive(client, channel, 9).messages
        assert sorted(one.id for one in got) == sorted(told)


def test_ids_that_the_sdk_makes_for_events_are_those_that_receivers_see():
    channel = unique("events")
    events = [EventMessage(channel=channel, metadata="m%d" % n, body=b"b") for n in range(5)]

    async def send_asynchronously():
        async with new_async.pubsub() as sender:
            await sender.publish_event(events[2])
            await sender.publish_event_fast(events[3])
            await sender.send_event_unary(events[4])
            # What it was given is on its way before it is closed.
            await new_async.reached(lambda: len(heard.numbers()) >= 5)

    with pubsub() as client, Subscription(address=PEER_ADDRESS).events(channel) as heard:
        go_live(client, channel, heard)
        client.send_event(events[0])
        client.publish_event(events[1])
        run_async(send_asynchronously())
        got = {one.metadata: one.id for one in heard.inbox.now() if one.metadata != "probe"}
        assert got == {one.metadata: one.id for one in events}
        assert len(set(got.values())) == 5 and all(MADE.fullmatch(one) for one in got.values())
        # Made later, and nobody but receivers is told.
        client.send_event(EventMessage(channel=channel, id="", metadata="m9"))
        until(lambda: 9 in heard.numbers())
        assert MADE.fullmatch(heard.inbox.now()[-1].id)


def test_ids_that_the_sdk_makes_for_stored_events_are_those_that_readers_see():
    channel = unique("store")
    stored = [EventStoreMessage(channel=channel, body=b"b") for _ in range(4)]
    nameless = EventStoreMessage(channel=channel, id="", body=b"b")

    async def send_asynchronously():
        async with new_async.pubsub() as sender:
            return [
                await sender.send_event_store(stored[1]),
                await sender.send_event_store_fast(stored[2]),
                *(await sender.send_events_store_batch(stored[3:])),
                await sender.send_event_store(nameless),
            ]

    with pubsub() as client:
        results = [client.send_event_store(stored[0]), *run_async(send_asynchronously())]
        results.append(client.send_event_store(nameless))
    assert [(result.sent, result.error) for result in results] == [(True, "")] * 6
    told = [result.id for result in results]
    assert told[:4] == [one.id for one in stored]
    assert len(set(told)) == 6 and all(MADE.fullmatch(one) for one in told)
    with Subscription(address=PEER_ADDRESS).store(channel, Start.StartFromFirst) as reading:
        assert [one.id for one in reading.inbox.wait(6)] == told
