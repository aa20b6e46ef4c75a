"""Subscriptions of the newest SDK that are cancelled, and members that leave their group: they get
nothing more, and the others go on."""

import asyncio
import itertools

import pytest
from admin import subscribers
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from kubemq.common.cancellation_token import CancellationToken
from new import EventStoreStartPosition as Start
from new import Subscription, event, go_live, pubsub
from new_async import cancelled, collect, reached, to_stored
from new_async import pubsub as async_pubsub
from support import PEER_ADDRESS, run_async, settle, store_events, unique, until


def cancel(subscription):
    subscription.cancel()


def close(subscription):
    subscription.client.close()


def known_channel():
    """Of stored events: the server tells of those only that it has."""
    channel = unique("store")
    with pubsub() as client:
        assert client.create_events_store_channel(channel)
    return channel


def wait_for_subscribers(channel, count):
    until(lambda: subscribers(channel) == count, what="%d subscribers" % count)


def share(channel, *members):
    """Stores events until each of the members has had some, and all together have had them all.
    A member is what tells what it has. Gives how many events these are."""
    counts = []

    def store_some():
        store_events(channel, range(10))
        counts.append(10)

    until(lambda: all(got() for got in members), store_some, what="something for each")
    until(lambda: sum(len(got()) for got in members) >= sum(counts), what="all of it")
    return sum(counts)


def test_a_cancelled_subscription_to_events_gets_nothing_more():
    channel = unique("events")
    with (
        pubsub() as client,
        Subscription(address=PEER_ADDRESS).events(channel) as leaving,
        Subscription().events(channel) as staying,
    ):
        go_live(client, channel, leaving, staying)
        leaving.cancel()
        for number in range(50):
            client.publish_event(event(channel, number))
        until(lambda: len(staying.numbers()) >= 50)
        settle([leaving.inbox, staying.inbox])
        assert staying.numbers() == list(range(50))
        assert leaving.numbers() == []
        # Its client may listen again, with another token.
        leaving.token = CancellationToken()
        leaving.inbox.items.clear()
        leaving.events(channel)
        go_live(client, channel, leaving)
        client.send_event(event(channel, 50))
        until(lambda: 50 in leaving.numbers())
        assert leaving.numbers() == [50]


@pytest.mark.parametrize("leave", [cancel, close])
def test_a_group_of_events_goes_on_without_a_member(leave):
    channel, numbers = unique("events"), itertools.count()
    with (
        pubsub() as client,
        Subscription().events(channel, "g") as leaving,
        Subscription(address=PEER_ADDRESS).events(channel, "g") as staying,
    ):
        go_live(client, channel, leaving, staying)
        leave(leaving)
        # What is sent until the server has seen it may go to the one that left.
        def last_of_the_other():
            got = staying.numbers()
            return len(got) >= 20 and got[-20:] == list(range(got[-1] - 19, got[-1] + 1))

        until(last_of_the_other, lambda: client.send_event(event(channel, next(numbers))))
        first = next(numbers)
        for number in range(first, first + 100):
            client.publish_event(event(channel, number))
        until(lambda: first + 99 in staying.numbers())
        settle([staying.inbox, leaving.inbox], 0.2)
        assert [n for n in staying.numbers() if n >= first] == list(range(first, first + 100))
        assert [n for n in leaving.numbers() if n >= first] == []


def test_a_cancelled_subscription_to_stored_events_goes_on_where_it_was():
    channel = unique("store")
    store_events(channel, range(50))
    with Subscription().store(channel, Start.StartFromFirst) as reading:
        reading.inbox.wait(50)
        reading.cancel()
        wait_for_subscribers(channel, 0)
        store_events(channel, range(50, 80))
        settle([reading.inbox])
        assert reading.sequences() == list(range(1, 51)), "nothing comes after the end"
        # The same client may read on, with another token.
        reading.token = CancellationToken()
        reading.store(channel, Start.StartFromFirst)
        reading.inbox.wait(80)
        settle([reading.inbox], 0.2)
        assert reading.sequences() == list(range(1, 81))
        assert reading.numbers() == list(range(80))


@pytest.mark.parametrize("leave", [cancel, close])
def test_a_group_of_stored_events_goes_on_without_a_member(leave):
    channel, start = known_channel(), Start.StartFromFirst
    with (
        Subscription().store(channel, start, "g") as leaving,
        Subscription(address=PEER_ADDRESS).store(channel, start, "g") as staying,
    ):
        wait_for_subscribers(channel, 2)
        count = share(channel, leaving.sequences, staying.sequences)
        leave(leaving)
        wait_for_subscribers(channel, 1)
        before, left_with = staying.sequences(), leaving.sequences()
        assert sorted(before + left_with) == list(range(1, count + 1))
        store_events(channel, range(100, 200))
        until(lambda: len(staying.sequences()) >= len(before) + 100)
        settle([staying.inbox, leaving.inbox], 0.2)
        assert staying.sequences() == before + list(range(count + 1, count + 101))
        assert staying.numbers()[-100:] == list(range(100, 200))
        assert leaving.sequences() == left_with


def test_a_member_that_comes_back_shares_again():
    channel, start = known_channel(), Start.StartFromFirst
    with Subscription().store(channel, start, "g") as staying:
        with Subscription(address=PEER_ADDRESS).store(channel, start, "g"):
            wait_for_subscribers(channel, 2)
        wait_for_subscribers(channel, 1)
        store_events(channel, range(50))
        staying.inbox.wait(50)
        with Subscription(address=PEER_ADDRESS).store(channel, start, "g") as back:
            wait_for_subscribers(channel, 2)
            count = share(channel, lambda: staying.sequences()[50:], back.sequences)
            rest = list(range(51, 51 + count))
            settle([staying.inbox, back.inbox], 0.2)
            assert staying.sequences()[:50] == list(range(1, 51))
            assert sorted(staying.sequences()[50:] + back.sequences()) == rest


def test_a_group_of_asynchronous_clients_goes_on_without_a_member():
    channel, left_with, staying = known_channel(), [], []

    async def run():
        wanted = to_stored(channel, Start.StartFromFirst, "g")
        leaving_token, token = AsyncCancellationToken(), AsyncCancellationToken()
        async with async_pubsub() as client, async_pubsub(PEER_ADDRESS) as other:
            leaving = asyncio.create_task(
                collect(client.subscribe_to_events_store(wanted, leaving_token), left_with)
            )
            task = asyncio.create_task(
                collect(other.subscribe_to_events_store(wanted, token), staying)
            )
            await asyncio.to_thread(wait_for_subscribers, channel, 2)
            got = [lambda: list(left_with), lambda: list(staying)]
            count = await asyncio.to_thread(share, channel, *got)
            # The token alone ends it.
            leaving_token.cancel()
            await asyncio.wait_for(leaving, 30)
            await asyncio.to_thread(wait_for_subscribers, channel, 1)
            await asyncio.to_thread(store_events, channel, range(100, 200))
            await reached(lambda: len(left_with) + len(staying) >= count + 100)
            await cancelled(token, task)
            return count

    count = run_async(run())
    got = [one.sequence for one in staying]
    assert got[-100:] == list(range(count + 1, count + 101))
    assert sorted(got + [one.sequence for one in left_with]) == list(range(1, count + 101))
