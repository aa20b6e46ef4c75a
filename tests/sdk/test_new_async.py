"""The native async clients of the newest SDK: events and stored events."""

import asyncio
import time
from datetime import datetime

from kubemq import AsyncPubSubClient
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from kubemq.pubsub import EventsStoreSubscription, EventsSubscription
from new import EventMessage, event, store_event
from new import EventStoreStartPosition as Start
from new_async import cancelled, collect, pubsub, reached, to_stored
from support import (
    ADDRESS,
    COUNT,
    PEER_ADDRESS,
    SECONDS_MAX,
    number_of,
    store_events,
    unique,
    until,
)


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


async def read(channel, start, count, **value):
    """Sequence, number and metadata of the first events, with a client of its own: where it was is
    known by its name."""
    got = []
    wanted = to_stored(channel, start, **value)

    async def read_some(client):
        async for one in client.subscribe_to_events_store(wanted):
            got.append((one.sequence, number_of(one.body), one.metadata))
            if len(got) == count:
                return

    async with pubsub(PEER_ADDRESS) as client:
        await asyncio.wait_for(read_some(client), SECONDS_MAX)
    return got


def test_events_are_stored_and_read_from_any_place():
    channel = unique("store")

    async def run():
        async with AsyncPubSubClient(address=ADDRESS, client_id=unique("async")) as client:
            for number in range(3):
                result = await client.send_event_store(store_event(channel, number))
                assert (result.id, result.sent) == ("event-%d" % number, True)
            batch = [store_event(channel, number) for number in range(3, 50)]
            results = await client.send_events_store_batch(batch)
            assert [result.id for result in results] == ["event-%d" % n for n in range(3, 50)]
            assert all(result.sent for result in results)
        for start, first, value in (
            (Start.StartFromFirst, 1, {}),
            (Start.StartAtSequence, 41, {"events_store_sequence_value": 41}),
            (Start.StartFromLast, 50, {}),
        ):
            got = await read(channel, start, 51 - first, **value)
            assert [sequence for sequence, _, _ in got] == list(range(first, 51))
            # A batch is sent at once, in no certain order.
            assert all(metadata == "m%d" % number for _, number, metadata in got)
            if first == 1:
                assert [number for _, number, _ in got][:3] == [0, 1, 2]
                assert sorted(number for _, number, _ in got) == list(range(50))

    asyncio.run(run())


def test_stored_events_are_read_from_a_time_on():
    channel = unique("store")
    store_events(channel, range(10))
    older = time.time()
    until(lambda: time.time() > older + 5, what="time")
    # The SDK sends whole seconds.
    second = datetime.fromtimestamp(int(time.time()))
    store_events(channel, range(10, 15))
    young = [(number + 1, number, "m%d" % number) for number in range(10, 15)]

    async def run():
        at_time = {"events_store_start_time": second}
        assert await read(channel, Start.StartAtTime, 5, **at_time) == young
        # Back to a moment between the two.
        delta = {"events_store_time_delta_seconds": int(time.time() - older) - 1}
        assert await read(channel, Start.StartAtTimeDelta, 5, **delta) == young

    asyncio.run(run())


def test_new_only_begins_with_what_comes_after():
    channel, got = unique("store"), []
    store_events(channel, range(20))

    async def run():
        token = AsyncCancellationToken()
        wanted = to_stored(channel, Start.StartFromNew)
        async with pubsub() as client, pubsub(PEER_ADDRESS) as reader:
            reading = collect(reader.subscribe_to_events_store(wanted, token), got)
            task = asyncio.create_task(reading)
            while not got:
                probe = store_event(channel, 0).with_updates(metadata="probe")
                assert (await client.send_event_store(probe)).sent
            for number in range(100, 110):
                assert (await client.send_event_store(store_event(channel, number))).sent
            await reached(lambda: got[-1].metadata == "m109")
            await cancelled(token, task)

    asyncio.run(run())
    sequences = [one.sequence for one in got]
    assert sequences == list(range(sequences[0], sequences[0] + len(got)))
    assert sequences[0] > 20
    numbers = [number_of(one.body) for one in got if one.metadata != "probe"]
    assert numbers == list(range(100, 110))


def test_every_call_that_sends_events_and_every_call_that_listens():
    channel = unique("events")
    iterated, fast, called = [], [], []

    def sent(got):
        return sorted(number_of(one.body) for one in got if one.metadata != "probe")

    async def hear(one):
        called.append(one)

    async def run():
        token = AsyncCancellationToken()
        wanted = EventsSubscription(channel=channel, on_receive_event_callback=lambda _: None)
        async with pubsub() as client, pubsub(PEER_ADDRESS) as other:
            listening = [
                collect(other.subscribe_to_events(wanted, token), iterated),
                collect(client.subscribe_to_events_fast(wanted, token), fast),
                client.subscribe_with_callback(wanted, hear, cancellation_token=token),
            ]
            tasks = [asyncio.create_task(one) for one in listening]
            while not (iterated and fast and called):
                probe = EventMessage(channel=channel, metadata="probe", body=b"p")
                await client.send_event_unary(probe)
                await asyncio.sleep(0.02)
            await client.send_event_unary(event(channel, 0))
            await client.publish_event(event(channel, 1))
            await client.publish_event_fast(event(channel, 2))
            batch = [event(channel, number) for number in range(3, 30)]
            results = await client.send_events_batch(batch)
            assert [result.id for result in results] == ["event-%d" % n for n in range(3, 30)]
            assert all(result.sent for result in results)
            for got in (iterated, fast, called):
                await reached(lambda got=got: sent(got) == list(range(30)))
            await cancelled(token, *tasks)

    asyncio.run(run())


def test_a_group_shares_what_a_pattern_matches():
    prefix = unique("pattern")
    members, alone, elsewhere = [[], []], [], []

    def wanted(pattern, group=None):
        return EventsSubscription(
            channel=pattern, group=group, on_receive_event_callback=lambda _: None
        )

    def sent(got):
        return [(one.channel, number_of(one.body)) for one in got if one.metadata != "probe"]

    async def run():
        token = AsyncCancellationToken()
        async with pubsub() as client, pubsub(PEER_ADDRESS) as other:
            listening = [
                (client, wanted(prefix + ".*", "g"), members[0]),
                (other, wanted(prefix + ".*", "g"), members[1]),
                (other, wanted(prefix + ".>"), alone),
                (client, wanted(prefix + ".*.deeper"), elsewhere),
            ]
            tasks = [
                asyncio.create_task(collect(one.subscribe_to_events(what, token), into))
                for one, what, into in listening
            ]
            while not all([*members, alone, elsewhere]):
                for channel in (".a", ".a.deeper"):
                    probe = EventMessage(channel=prefix + channel, metadata="probe", body=b"p")
                    await client.send_event(probe)
                await asyncio.sleep(0.02)
            for number in range(100):
                await client.publish_event(event("%s.%d" % (prefix, number % 2), number))
            await client.publish_event(event(prefix + ".a.deeper", 100))
            await reached(lambda: len(sent(alone)) == 101 and len(sent(elsewhere)) == 1)
            await reached(lambda: sum(len(sent(member)) for member in members) >= 100)
            await cancelled(token, *tasks)

    asyncio.run(run())
    shallow = [("%s.%d" % (prefix, number % 2), number) for number in range(100)]
    deep = [(prefix + ".a.deeper", 100)]
    assert sent(alone) == shallow + deep
    assert sent(elsewhere) == deep
    assert all(sent(member) for member in members), "both members have some"
    shared = sorted(sent(members[0]) + sent(members[1]), key=lambda one: one[1])
    assert shared == shallow


def test_the_calls_without_measurements_and_with_callbacks_store_and_read_events():
    channel = unique("store")
    fast, called, at_once = [], [], []

    async def hear(one):
        called.append(one)

    async def hear_some(one):
        await asyncio.sleep(0)
        at_once.append(one)

    async def run():
        token = AsyncCancellationToken()
        wanted = EventsStoreSubscription(
            channel=channel,
            events_store_type=Start.StartFromFirst,
            on_receive_event_callback=lambda _: None,
        )
        # A client for each: where it was is known by its name.
        async with pubsub() as client, pubsub(PEER_ADDRESS) as other, pubsub() as third:
            for number in range(30):
                result = await client.send_event_store_fast(store_event(channel, number))
                assert (result.id, result.sent) == ("event-%d" % number, True)
            reading = [
                collect(client.subscribe_to_events_store_fast(wanted, token), fast),
                other.subscribe_store_with_callback(wanted, hear, cancellation_token=token),
                third.subscribe_store_with_callback(
                    wanted, hear_some, cancellation_token=token, max_concurrent_callbacks=4
                ),
            ]
            tasks = [asyncio.create_task(one) for one in reading]
            await reached(lambda: all(len(got) >= 30 for got in (fast, called, at_once)))
            await cancelled(token, *tasks)

    asyncio.run(run())
    for got in (fast, called):
        assert [one.sequence for one in got] == list(range(1, 31))
        assert [number_of(one.body) for one in got] == list(range(30))
    assert sorted(one.sequence for one in at_once) == list(range(1, 31))
