"""The native async clients of the newest SDK: events and stored events."""

import asyncio

from kubemq import AsyncPubSubClient
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from kubemq.pubsub import EventsStoreSubscription, EventsSubscription
from new import EventMessage, EventStoreStartPosition, event, store_event
from new_async import cancelled, collect, pubsub, reached
from support import ADDRESS, COUNT, PEER_ADDRESS, SECONDS_MAX, number_of, unique


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
            events_store_type=EventStoreStartPosition.StartFromFirst,
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
