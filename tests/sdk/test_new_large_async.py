"""Messages of more than 4 MiB through the asynchronous clients of the newest SDK (4.1.5), which
take them when they are told to."""

import asyncio

import pytest
from admin import wait_until_free
from cq import KINDS, message, response_to
from kubemq import ErrorCode, KubeMQMessageError, RetryPolicy
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from large import DISCONNECTED, LARGE, TAKES_ALL, large, number_shown, shown
from new import (
    EventMessage,
    EventStoreMessage,
    QueueMessage,
    event,
    numbers,
    queue_message,
    store_event,
)
from new import EventStoreStartPosition as Start
from new_async import (
    answering,
    ask,
    asking,
    cancelled,
    collect,
    go_live,
    pubsub,
    queues,
    reached,
    serve,
    stopped,
    to_events,
    to_stored,
)
from support import PEER_ADDRESS, SECONDS_MAX, number_of, run_async, unique


def test_an_asynchronous_client_goes_on_behind_what_it_refused():
    channel = unique("queue")

    async def run():
        all_taken = queues(PEER_ADDRESS, **TAKES_ALL)
        async with all_taken as other, queues() as client:
            for sent in (
                queue_message(channel, 0),
                large(QueueMessage, channel, 1),
                queue_message(channel, 2),
            ):
                assert not (await other.send_queue_message(sent)).is_error
            held = await client.receive_queue_messages(channel, 1, 10)
            assert numbers(held.messages) == [0]
            refused = await client.receive_queue_messages(channel, 1, 10)
            assert (refused.is_error, refused.error) == (True, DISCONNECTED)
            await asyncio.to_thread(wait_until_free, channel)
            back = await other.receive_queue_messages(channel, 1, 10, auto_ack=True)
            assert shown(back.messages) == [(1, 2, 0)]
            with pytest.raises(KubeMQMessageError, match="larger than max") as refusal:
                await client.peek_queue_messages(channel, 2, 1)
            assert refusal.value.code == ErrorCode.RESOURCE_EXHAUSTED
            back = await other.receive_queue_messages(channel, 1, 10, auto_ack=True)
            assert shown(back.messages) == [(2, 2, 1)]
            response = await received_by(client, channel)
            assert shown(response.messages) == [(3, 1, 2)]

    run_async(asyncio.wait_for(run(), 2 * SECONDS_MAX))


async def received_by(client, channel):
    """What it gets when its stream is there again: until then it refuses to ask."""
    while True:
        try:
            return await client.receive_queue_messages(channel, 1, 10, auto_ack=True)
        except ConnectionError as error:
            assert "not ready" in str(error)
            await asyncio.sleep(0.02)


def test_large_events_break_asynchronous_subscriptions_and_others_go_on():
    live, stored = unique("live"), unique("stored")
    errors, heard, heard_all, read, read_all = [], [], [], [], []

    async def run():
        token = AsyncCancellationToken()
        small, small_stored = to_events(live), to_stored(stored, Start.StartFromFirst)
        for subscription in (small, small_stored):
            subscription.on_error_callback = errors.append
        async with pubsub(**TAKES_ALL) as client, pubsub(PEER_ADDRESS) as other:
            listening = [
                collect(other.subscribe_to_events(small, token), heard),
                collect(client.subscribe_to_events(to_events(live), token), heard_all),
                collect(other.subscribe_to_events_store(small_stored, token), read),
            ]
            tasks = [asyncio.create_task(one) for one in listening]
            wanted = to_stored(stored, Start.StartFromFirst)
            reading = collect(client.subscribe_to_events_store(wanted, token), read_all)
            tasks.append(asyncio.create_task(reading))

            async def heard_by(into):
                into.clear()
                while not into:
                    probe = EventMessage(channel=live, metadata="m0", body=b"0:")
                    await client.send_event_unary(probe)
                    await asyncio.sleep(0.02)

            await heard_by(heard)
            await heard_by(heard_all)
            for number in (1, 2, 3):
                of_each = (
                    (large(EventMessage, live, 2), large(EventStoreMessage, stored, 2))
                    if number == 2
                    else (event(live, number), store_event(stored, number))
                )
                await client.send_event_unary(of_each[0])
                assert (await client.send_event_store(of_each[1])).sent
            await reached(lambda: len(errors) >= 2 and len(read_all) >= 3)
            await heard_by(heard)
            await cancelled(token, *tasks)

    run_async(asyncio.wait_for(run(), 2 * SECONDS_MAX))
    assert all("larger than max" in str(error) for error in errors)
    assert [number for one in heard_all if (number := number_shown(one))] == [1, 2, 3]
    assert [number_shown(one) for one in read_all] == [1, 2, 3]
    assert read[0].sequence == 1 and 2 not in [one.sequence for one in read]


@pytest.mark.parametrize("kind", KINDS)
def test_an_asynchronous_client_asks_again_when_it_refused_a_response(kind):
    """For this SDK that is worth another try, be it that somebody has done what it asked."""
    channel, heard = unique(kind), []
    retries = RetryPolicy(max_retries=2, initial_backoff_ms=50, max_backoff_ms=1_000)

    def answer(kind, request):
        body = LARGE if number_of(request.body) == 1 else request.body
        return response_to(kind, request, body=body)

    async def run():
        async with asking(retry_policy=retries) as client, answering(**TAKES_ALL) as responder:
            task = asyncio.create_task(serve(responder, kind, channel, heard, answer=answer))
            await go_live(client, kind, channel, heard)
            with pytest.raises(KubeMQMessageError, match="larger than max") as refusal:
                await ask(client, message(kind, channel, 1))
            assert refusal.value.code == ErrorCode.RESOURCE_EXHAUSTED
            assert number_of((await ask(client, message(kind, channel, 2))).body) == 2
            await stopped(task)

    run_async(asyncio.wait_for(run(), 2 * SECONDS_MAX))
    assert [number_of(request.body) for request in heard] == [1, 1, 1, 2]


def test_asynchronous_clients_that_take_more_pass_large_messages_and_requests():
    queue, channel, heard = unique("queue"), unique("query"), []

    async def run():
        async with queues(**TAKES_ALL) as client, queues(**TAKES_ALL) as other:
            assert not (await client.send_queue_message(large(QueueMessage, queue, 1))).is_error
            for _ in range(2):
                peeked = await other.peek_queue_messages(queue, 2, 1)
                assert [number_shown(one) for one in peeked.messages] == [1]
            got = await other.receive_queue_messages(queue, 1, 10)
            assert shown(got.messages) == [(1, 1, 1)]
            await got.ack_all()
        async with asking(**TAKES_ALL) as client, answering(**TAKES_ALL) as responder:
            task = asyncio.create_task(serve(responder, "query", channel, heard))
            await go_live(client, "query", channel, heard)
            response = await ask(client, message("query", channel, 1, body=LARGE))
            assert (response.is_executed, response.body) == (True, LARGE)
            await stopped(task)

    run_async(asyncio.wait_for(run(), 2 * SECONDS_MAX))
    assert [request.body for request in heard] == [LARGE]
