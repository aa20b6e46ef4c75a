"""The native async clients of the newest SDK."""

import asyncio

from kubemq import AsyncPubSubClient, AsyncQueuesClient
from kubemq.pubsub import EventsStoreSubscription, EventsSubscription
from new import EventMessage, EventStoreStartPosition, event, queue_message, store_event
from support import ADDRESS, COUNT, PEER_ADDRESS, SECONDS_MAX, number_of, unique


def numbers(messages):
    return [number_of(message.body) for message in messages]


def queues(address=ADDRESS):
    return AsyncQueuesClient(address=address, client_id=unique("async"))


async def fill(client, channel, count):
    batch = [queue_message(channel, number) for number in range(count)]
    answer = await client.send_queue_messages_batch(batch)
    assert not answer.have_errors
    assert [result.id for result in answer.results] == ["id-%d" % n for n in range(count)]


def test_events_are_published_and_heard():
    channel = unique("events")

    async def run():
        received = []
        async with AsyncPubSubClient(address=ADDRESS, client_id=unique("async")) as client:
            subscription = EventsSubscription(
                channel=channel, on_receive_event_callback=lambda _: None
            )

            async def collect():
                async for one in client.subscribe_to_events(subscription):
                    received.append(one)
                    if one.metadata == "m%d" % (COUNT - 1):
                        return

            task = asyncio.create_task(collect())
            while not received:
                await client.send_event(EventMessage(channel=channel, metadata="probe", body=b"p"))
                await asyncio.sleep(0.02)
            for number in range(COUNT):
                await client.publish_event(event(channel, number))
            await asyncio.wait_for(task, SECONDS_MAX)
        return [int(one.metadata[1:]) for one in received if one.metadata != "probe"]

    assert asyncio.run(run()) == list(range(COUNT))


def test_events_are_stored_and_read_from_any_place():
    channel = unique("store")

    async def read(client, start, count, **value):
        subscription = EventsStoreSubscription(
            channel=channel,
            events_store_type=start,
            on_receive_event_callback=lambda _: None,
            **value,
        )
        got = []
        async for one in client.subscribe_to_events_store(subscription):
            got.append((one.sequence, number_of(one.body), one.metadata))
            if len(got) == count:
                return got

    async def run():
        async with AsyncPubSubClient(address=ADDRESS, client_id=unique("async")) as client:
            for number in range(3):
                result = await client.send_event_store(store_event(channel, number))
                assert (result.id, result.sent) == ("event-%d" % number, True)
            batch = [store_event(channel, number) for number in range(3, 50)]
            results = await client.send_events_store_batch(batch)
            assert [result.id for result in results] == ["event-%d" % n for n in range(3, 50)]
            assert all(result.sent for result in results)
        position = EventStoreStartPosition
        # A client for each: where it was is known by its name.
        for start, first, value in (
            (position.StartFromFirst, 1, {}),
            (position.StartAtSequence, 41, {"events_store_sequence_value": 41}),
            (position.StartFromLast, 50, {}),
        ):
            async with AsyncPubSubClient(
                address=PEER_ADDRESS, client_id=unique("async")
            ) as reader:
                reading = read(reader, start, 51 - first, **value)
                got = await asyncio.wait_for(reading, SECONDS_MAX)
            assert [sequence for sequence, _, _ in got] == list(range(first, 51))
            # A batch is sent at once, in no certain order.
            assert all(metadata == "m%d" % number for _, number, metadata in got)
            if first == 1:
                assert [number for _, number, _ in got][:3] == [0, 1, 2]
                assert sorted(number for _, number, _ in got) == list(range(50))

    asyncio.run(run())


def test_messages_are_sent_received_and_acknowledged():
    channel = unique("queue")

    async def run():
        async with queues() as client:
            # One send alone: this SDK loses what is sent while its stream is being opened.
            assert not (await client.send_queue_message(queue_message(channel, 0))).is_error
            for start in range(1, COUNT, 50):
                results = await asyncio.gather(
                    *(
                        client.send_queue_message(queue_message(channel, number))
                        for number in range(start, min(start + 50, COUNT))
                    )
                )
                assert not any(result.is_error for result in results)
            response = await client.receive_queue_messages(channel, COUNT, 10)
            assert sorted(numbers(response.messages)) == list(range(COUNT))
            for message in response.messages:
                await message.async_ack()
            empty = await client.receive_queue_messages(channel, 1, 1)
            assert not empty.is_error and empty.messages == []

    asyncio.run(run())


def test_messages_are_peeked_rejected_and_all_acknowledged():
    channel = unique("queue")

    async def run():
        async with queues() as client:
            await fill(client, channel, 10)
            for _ in range(2):
                peeked = await client.peek_queue_messages(channel, 4, 1)
                assert not peeked.is_error and numbers(peeked.messages) == [0, 1, 2, 3]
            response = await client.receive_queue_messages(channel, 4, 10)
            assert numbers(response.messages) == [0, 1, 2, 3]
            for message in response.messages[:2]:
                await message.async_nack()
            for message in response.messages[2:]:
                await message.async_ack()
            again = await client.receive_queue_messages(channel, 8, 10)
            assert numbers(again.messages) == [4, 5, 6, 7, 8, 9, 0, 1]
            assert [message.receive_count for message in again.messages] == [1] * 6 + [2] * 2
            for message in again.messages:
                await message.async_nack()
            taken = await client.receive_queue_messages(channel, 3, 10, auto_ack=True)
            assert numbers(taken.messages) == [4, 5, 6]
            assert await client.ack_all_queue_messages(channel, 1) == 5
            assert (await client.peek_queue_messages(channel, 1, 1)).messages == []

    asyncio.run(run())


def test_a_subscription_to_a_queue_brings_what_comes():
    channel = unique("queue")

    async def run():
        got = []
        async with queues() as client, queues(PEER_ADDRESS) as worker:

            async def work():
                # One at a time: a poll for more waits for more.
                async for response in worker.subscribe_to_queue(channel, 1, 10):
                    for message in response.messages:
                        await message.async_ack()
                    got.extend(numbers(response.messages))
                    if len(got) == 20:
                        return

            task = asyncio.create_task(work())
            await fill(client, channel, 10)
            for number in range(10, 20):
                result = await client.send_queue_message_simple(queue_message(channel, number))
                assert not result.is_error
            await asyncio.wait_for(task, SECONDS_MAX)
            assert got == list(range(20))
            assert (await client.peek_queue_messages(channel, 1, 1)).messages == []

    asyncio.run(run())


def test_what_is_settled_as_a_whole_stays_held_until_its_client_closes():
    """This SDK's async clients send `ack_all` and `reject_all` through a stream of its own, where no such
    transaction is: nothing is changed, and nothing is lost."""
    channel = unique("queue")

    async def run():
        async with queues() as client:
            await fill(client, channel, 4)
            async with queues() as other:
                acked = await other.receive_queue_messages(channel, 2, 10)
                rejected = await other.receive_queue_messages(channel, 2, 10)
                await acked.ack_all()
                await rejected.reject_all()
                assert (await client.peek_queue_messages(channel, 1, 1)).messages == []
            response = await client.receive_queue_messages(channel, 4, 10)
            assert numbers(response.messages) == [0, 1, 2, 3]
            assert [message.sequence for message in response.messages] == [1, 2, 3, 4]
            for message in response.messages:
                await message.async_ack()
            assert (await client.peek_queue_messages(channel, 1, 1)).messages == []

    asyncio.run(run())
