"""The native async clients of the newest SDK: queues."""

import asyncio

from admin import wait_until_empty
from killed_consumer import kill_one_that_holds
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from new import numbers, queue_message
from new_async import cancelled, queues, reached
from support import COUNT, PEER_ADDRESS, SECONDS_MAX, number_of, unique


async def fill(client, channel, count):
    batch = [queue_message(channel, number) for number in range(count)]
    answer = await client.send_queue_messages_batch(batch)
    assert not answer.have_errors
    assert [result.id for result in answer.results] == ["id-%d" % n for n in range(count)]


async def assert_gone(client, channel):
    """Nothing is there, and nothing comes back from clients that were closed."""
    assert (await client.receive_queue_messages(channel, 1, 2)).messages == []


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


def test_the_calls_without_measurements_send_and_receive_messages():
    channel = unique("queue")

    async def run():
        async with queues() as client, queues(PEER_ADDRESS) as other:
            for number in range(10):
                result = await client.send_queue_message_fast(queue_message(channel, number))
                assert (result.id, result.is_error) == ("id-%d" % number, False)
            response = await other.receive_queue_messages_fast(channel, 6, 10)
            assert not response.is_error and numbers(response.messages) == list(range(6))
            for message in response.messages:
                await message.async_ack()
            taken = await client.receive_queue_messages_fast(channel, 4, 10, auto_ack=True)
            assert numbers(taken.messages) == [6, 7, 8, 9]
            empty = await other.receive_queue_messages_fast(channel, 1, 1)
            assert not empty.is_error and empty.messages == []

    asyncio.run(run())


def test_messages_are_processed_by_a_callback():
    """With `auto_ack`: there is nothing that this call would acknowledge."""
    channel, got, failed = unique("queue"), [], []

    async def process(message):
        got.append(number_of(message.body))
        if got[-1] == 3:
            raise ValueError("not this one")

    async def fail(error):
        failed.append(str(error))

    async def run():
        token = AsyncCancellationToken()
        async with queues() as client, queues(PEER_ADDRESS) as worker:
            await fill(client, channel, 10)
            processing = worker.process_queue_messages(
                channel,
                process,
                fail,
                max_messages=2,
                wait_timeout_seconds=1,
                auto_ack=True,
                cancellation_token=token,
            )
            task = asyncio.create_task(processing)
            await reached(lambda: len(got) >= 10)
            await cancelled(token, task)
            assert (await client.peek_queue_messages(channel, 1, 1)).messages == []

    asyncio.run(run())
    assert got == list(range(10))
    assert len(failed) == 1 and "not this one" in failed[0]


def test_what_is_received_is_settled_as_a_whole():
    """This SDK's async clients send `ack_all`, `reject_all` and `re_queue_all` through a stream of
    its own for each, and wait for its end: what they settled is settled by then."""
    channel, target = unique("queue"), unique("target")

    async def run():
        async with queues() as client, queues(PEER_ADDRESS) as worker:
            await fill(client, channel, 6)
            acked, rejected, moved = [
                await worker.receive_queue_messages(channel, 2, 10) for _ in range(3)
            ]
            assert (await client.peek_queue_messages(channel, 1, 1)).messages == []
            await rejected.reject_all()
            # At once, and to whoever asks first: the client that had them as well.
            again = await worker.receive_queue_messages(channel, 2, 10)
            assert numbers(again.messages) == [2, 3]
            assert [message.receive_count for message in again.messages] == [2, 2]
            await again.ack_all()
            await moved.re_queue_all(target)
            got = await client.receive_queue_messages(target, 2, 10)
            assert numbers(got.messages) == [4, 5]
            assert all(message.re_route_from_queue == channel for message in got.messages)
            await got.ack_all()
            await acked.ack_all()
        async with queues() as client:
            for name in (channel, target):
                await assert_gone(client, name)

    asyncio.run(run())


def test_what_is_left_of_a_transaction_is_settled_as_a_whole():
    channel = unique("queue")

    async def run():
        async with queues() as client:
            await fill(client, channel, 4)
            response = await client.receive_queue_messages(channel, 4, 10)
            await response.messages[1].async_nack()
            # It has come back: what goes through the other stream has no order with it.
            again = await client.receive_queue_messages(channel, 1, 10)
            assert numbers(again.messages) == [1]
            await response.ack_all()
            await again.reject_all()
            left = await client.receive_queue_messages(channel, 1, 10, auto_ack=True)
            assert numbers(left.messages) == [1]
        async with queues() as client:
            await assert_gone(client, channel)

    asyncio.run(run())


def test_a_processor_acknowledges_each_batch():
    channel = unique("queue")

    async def run():
        got, errors = [], []
        async with queues() as client:
            await fill(client, channel, 30)
            async with queues(PEER_ADDRESS) as worker:
                token = AsyncCancellationToken()

                async def on_message(message):
                    got.append(number_of(message.body))

                async def on_error(error):
                    errors.append(error)

                working = worker.process_queue_messages(
                    channel, on_message, on_error, 10, 1, cancellation_token=token
                )
                task = asyncio.create_task(working)
                await reached(lambda: len(got) >= 30)
                # It acknowledges what it has before it ends.
                token.cancel()
                await asyncio.wait_for(task, SECONDS_MAX)
            assert (got, errors) == (list(range(30)), [])
            await assert_gone(client, channel)

    asyncio.run(run())


def test_messages_of_a_killed_client_go_to_another_in_order():
    """At another node, if there is one."""
    channel, count = unique("queue"), COUNT // 10

    async def run():
        async with queues(PEER_ADDRESS) as client:
            await fill(client, channel, count)
            await asyncio.to_thread(kill_one_that_holds, channel, count, "async")
            response = await client.receive_queue_messages(channel, count, 20)
            assert numbers(response.messages) == list(range(count))
            assert [one.receive_count for one in response.messages] == [2] * count
            await response.ack_all()
            await asyncio.to_thread(wait_until_empty, channel)

    asyncio.run(run())
