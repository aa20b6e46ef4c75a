"""One client of the newest SDK that many threads or tasks share: nothing is lost or mixed up, and
what each of them sends keeps its order."""

import asyncio

import pytest
from admin import wait_until_empty
from cq import KINDS, Serving, cq_client, message, response_to, send
from cq import go_live as go_live_with
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from new import EventStoreStartPosition as Start
from new import (
    Subscription,
    event,
    go_live,
    pubsub,
    queue_client,
    queue_message,
    receive,
    store_event,
)
from new_async import ask, cancelled, collect, reached, serve, stopped, to_events, to_stored
from new_async import asking as async_requests
from new_async import go_live as go_live_async
from new_async import pubsub as async_pubsub
from new_async import queues as async_queues
from support import COUNT, PEER_ADDRESS, at_once, number_of, run_async, settle, unique, until

THREADS = 4
TASKS = 10
# Of what each of them sends.
EACH = max(COUNT // 50, 10)


def share_of(sender):
    """The numbers that one thread or task sends."""
    return range(sender * EACH, (sender + 1) * EACH)


def assert_in_order_of_each(numbers, senders):
    for sender in range(senders):
        assert [n for n in numbers if n // EACH == sender] == list(share_of(sender))
    assert len(numbers) == senders * EACH


def assert_sent(results, senders):
    told = {number: (result.id, result.is_error) for number, result in results.items()}
    assert told == {number: ("id-%d" % number, False) for number in range(senders * EACH)}


def assert_received(got, senders):
    """`got`: the sequence and number of each message."""
    got = sorted(got)
    assert [sequence for sequence, _ in got] == list(range(1, senders * EACH + 1))
    assert_in_order_of_each([number for _, number in got], senders)


def test_threads_share_a_client_of_queues():
    results, got = {}, []
    with queue_client() as (client, channel):

        def send_some(thread):
            for number in share_of(thread):
                results[number] = client.send_queue_message(queue_message(channel, number))

        def receive_some():
            for _ in range(EACH):
                [one] = receive(client, channel, 1).messages
                one.ack()
                got.append((one.sequence, number_of(one.body)))

        at_once(lambda n: send_some(n) if n < THREADS else receive_some(), 2 * THREADS)
        assert_sent(results, THREADS)
        assert_received(got, THREADS)
        wait_until_empty(channel)


def test_threads_share_a_client_of_events_and_stored_events():
    live, stored, results = unique("live"), unique("stored"), {}
    with (
        pubsub() as client,
        Subscription(address=PEER_ADDRESS).events(live) as heard,
        Subscription(address=PEER_ADDRESS).store(stored, Start.StartFromFirst) as reading,
    ):
        go_live(client, live, heard)

        def send_some(thread):
            for number in share_of(thread):
                client.publish_event(event(live, number))
                results[number] = client.send_event_store(store_event(stored, number))

        at_once(send_some, THREADS)
        assert {n: (result.id, result.sent) for n, result in results.items()} == {
            number: ("event-%d" % number, True) for number in range(THREADS * EACH)
        }
        reading.inbox.wait(THREADS * EACH)
        until(lambda: len(heard.numbers()) >= THREADS * EACH)
        settle([heard.inbox, reading.inbox], 0.2)
        assert reading.sequences() == list(range(1, THREADS * EACH + 1))
        assert_in_order_of_each(reading.numbers(), THREADS)
        assert_in_order_of_each(heard.numbers(), THREADS)


def test_threads_share_a_client_of_requests():
    channels, answers = {kind: unique(kind) for kind in KINDS}, {}

    def answer(kind):
        return lambda request: response_to(kind, request, body=request.body)

    with (
        cq_client() as client,
        Serving("command", channels["command"], answer("command")) as commands,
        Serving("query", channels["query"], answer("query")) as queries,
    ):
        for kind, serving in zip(KINDS, (commands, queries), strict=True):
            go_live_with(client, kind, channels[kind], serving)

        def ask_some(thread):
            kind = KINDS[thread % 2]
            for number in share_of(thread):
                answers[number] = send(client, message(kind, channels[kind], number))

        at_once(ask_some, THREADS)
        assert sorted(answers) == list(range(THREADS * EACH))
        assert all(response.is_executed for response in answers.values())
        assert all(number_of(response.body) == number for number, response in answers.items())
        heard = [number_of(r.body) for one in (commands, queries) for r in one.inbox.now()]
        assert_in_order_of_each(heard, THREADS)


def test_tasks_share_an_asynchronous_client_of_queues():
    channel, first, results, got = unique("queue"), unique("first"), {}, []

    async def run():
        async with async_queues() as client:

            async def send_some(task):
                for number in share_of(task):
                    sent = queue_message(channel, number)
                    results[number] = await client.send_queue_message(sent)

            async def receive_some():
                for _ in range(EACH):
                    [one] = (await client.receive_queue_messages(channel, 1, 20)).messages
                    await one.async_ack()
                    got.append((one.sequence, number_of(one.body)))

            # One of each alone: this SDK loses what is asked while its streams are being opened.
            assert not (await client.send_queue_message(queue_message(first, 0))).is_error
            assert (await client.receive_queue_messages(first, 1, 10, auto_ack=True)).count() == 1
            sending = [send_some(task) for task in range(TASKS)]
            receiving = [receive_some() for _ in range(TASKS)]
            await asyncio.gather(*sending, *receiving)
            await asyncio.to_thread(wait_until_empty, channel)

    run_async(run())
    assert_sent(results, TASKS)
    assert_received(got, TASKS)


def test_tasks_share_an_asynchronous_client_of_events_and_stored_events():
    """What they send comes to subscriptions of the same client."""
    live, stored, results, heard, read = unique("live"), unique("stored"), {}, [], []

    def numbers(events):
        return [int(one.metadata[1:]) for one in events if one.metadata != "probe"]

    async def run():
        token = AsyncCancellationToken()
        async with async_pubsub() as client:
            wanted = to_stored(stored, Start.StartFromFirst)
            tasks = [
                asyncio.create_task(collect(events, into))
                for events, into in (
                    (client.subscribe_to_events(to_events(live), token), heard),
                    (client.subscribe_to_events_store(wanted, token), read),
                )
            ]
            while not heard:
                await client.publish_event(event(live, 0).with_updates(metadata="probe"))
                await asyncio.sleep(0.02)

            async def send_some(task):
                for number in share_of(task):
                    await client.publish_event(event(live, number))
                    sent = store_event(stored, number)
                    results[number] = await client.send_event_store(sent)

            await asyncio.gather(*(send_some(task) for task in range(TASKS)))
            await reached(lambda: len(read) >= TASKS * EACH)
            await reached(lambda: len(numbers(heard)) >= TASKS * EACH)
            await cancelled(token, *tasks)

    run_async(run())
    assert [results[n].id for n in sorted(results)] == ["event-%d" % n for n in range(TASKS * EACH)]
    assert all(result.sent for result in results.values())
    assert [one.sequence for one in read] == list(range(1, TASKS * EACH + 1))
    assert_in_order_of_each(numbers(read), TASKS)
    assert_in_order_of_each(numbers(heard), TASKS)


@pytest.mark.parametrize("concurrent", [0, 3])
def test_tasks_share_an_asynchronous_client_that_asks_and_answers(concurrent):
    """Commands and queries, of which it may have only some under way at a time."""
    channels, heard = {kind: unique(kind) for kind in KINDS}, {kind: [] for kind in KINDS}
    responses = {}

    async def run():
        async with async_requests() as client:
            serving = [
                asyncio.create_task(serve(client, kind, channels[kind], heard[kind]))
                for kind in KINDS
            ]
            for kind in KINDS:
                await go_live_async(client, kind, channels[kind], heard[kind])
            client.set_pipeline_concurrency(concurrent)

            async def ask_one(number):
                kind = KINDS[number % 2]
                request = message(kind, channels[kind], number)
                call = client.send_command_fast if kind == "command" else client.send_query_fast
                responses[number] = await (call(request) if concurrent else ask(client, request))

            await asyncio.gather(*(ask_one(number) for number in range(100)))
            await stopped(*serving)

    run_async(run())
    assert sorted(responses) == list(range(100))
    for number, response in responses.items():
        assert (response.is_executed, number_of(response.body)) == (True, number)
    for kind in KINDS:
        asked = sorted(number_of(request.body) for request in heard[kind])
        assert asked == list(range(KINDS.index(kind), 100, 2))
