"""Events Store through the old SDKs: the six start positions, durable resume, groups."""

import itertools
import time

import killed_member
import one_name
import pytest
from old import (
    Event,
    EventsStoreType,
    ListenerCancellationToken,
    Sender,
    assert_own_order,
    event,
    number_of_event,
    own_numbers,
    probe,
    subscribe_to_store,
)
from retention import NUMBERS_KEPT, SEQUENCES_KEPT, trimmed_channel
from support import (
    ADDRESS,
    COUNT,
    PEER_ADDRESS,
    at_once,
    number_of,
    resumed,
    settle,
    unique,
    until,
)


def store(channel, numbers, sender=None):
    """Stores numbered events and checks that each is answered, in order."""
    results = []
    numbers = list(numbers)
    sender = sender or Sender(ADDRESS)
    sender.stream_event((event(channel, n, store=True) for n in numbers), results.append)
    assert [result.event_id for result in results] == ["event-%d" % number for number in numbers]
    assert all(result.sent and not result.error for result in results)


def sequences(subscription):
    return [received.sequence for received in subscription.inbox.now()]


def test_from_first_every_event_comes_as_it_was_stored():
    channel = unique("store")
    before_ns = time.time_ns()
    store(channel, range(COUNT))
    with subscribe_to_store(channel, EventsStoreType.StartFromFirst) as subscription:
        received = subscription.inbox.wait(COUNT)
        assert [e.sequence for e in received] == list(range(1, COUNT + 1))
        assert [number_of_event(e) for e in received] == list(range(COUNT))
        for number, one in enumerate(received):
            assert one.event_id == "event-%d" % number
            assert one.channel == channel
            assert number_of(one.body) == number
            assert dict(one.tags) == {"number": str(number), "ключ": "значение"}
            assert before_ns - 10**9 < one.timestamp < time.time_ns() + 10**9
        # Then live, without a gap.
        store(channel, range(COUNT, COUNT + 100))
        received = subscription.inbox.wait(COUNT + 100)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == list(range(1, COUNT + 101))


def test_a_single_store_send_is_answered():
    channel = unique("store")
    result = Sender(ADDRESS).send_event(event(channel, 3, store=True))
    assert (result.event_id, result.sent) == ("event-3", True)


def test_several_threads_may_share_a_sender():
    """Some store one by one, some in streams."""
    channel, sender, count = unique("store"), Sender(ADDRESS), COUNT // 10
    done = []

    def send(thread):
        numbers = own_numbers(thread, count)
        if thread % 2:
            store(channel, numbers, sender)
        else:
            for number in numbers:
                result = sender.send_event(event(channel, number, store=True))
                assert (result.event_id, result.sent) == ("event-%d" % number, True)
        done.append(thread)

    at_once(send, 4)
    assert sorted(done) == [0, 1, 2, 3], "every result was the one of its event"
    with subscribe_to_store(
        channel, EventsStoreType.StartFromFirst, address=PEER_ADDRESS
    ) as subscription:
        subscription.inbox.wait(4 * count)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == list(range(1, 4 * count + 1))
        assert_own_order(subscription.numbers(), range(4), count)


def test_events_as_the_pages_of_these_sdks_write_them():
    """Without ids, which the SDK then makes, and with pairs for tags."""
    channel, results = unique("store"), []

    def events():
        for counter in range(3):
            sent = Event(
                metadata="EventMetaData",
                body=b"Event %d" % counter,
                store=True,
                channel=channel,
                client_id="page",
            )
            sent.tags = [("key", "value"), ("key2", "value2")]
            yield sent

    Sender(ADDRESS).stream_event(events(), results.append)
    ids = [result.event_id for result in results]
    assert all(result.sent and not result.error for result in results)
    assert len(set(ids)) == 3 and all(ids)
    with subscribe_to_store(channel, EventsStoreType.StartFromFirst) as subscription:
        received = subscription.inbox.wait(3)
    assert [one.event_id for one in received] == ids
    for counter, one in enumerate(received):
        assert (one.metadata, one.body) == ("EventMetaData", b"Event %d" % counter)
        assert dict(one.tags) == {"key": "value", "key2": "value2"}


def test_new_only_begins_with_what_comes_after():
    channel, sender = unique("store"), Sender(ADDRESS)
    store(channel, range(20))
    with subscribe_to_store(channel, EventsStoreType.StartNewOnly) as subscription:
        until(subscription.inbox.now, lambda: probe(sender, channel, store=True))
        store(channel, range(100, 200))
        until(lambda: 199 in subscription.numbers())
        assert subscription.numbers() == list(range(100, 200))
        got = sequences(subscription)
        assert got[0] > 20
        assert got == list(range(got[0], got[0] + len(got)))


def test_from_last_begins_with_the_last_one():
    channel = unique("store")
    store(channel, range(20))
    with subscribe_to_store(channel, EventsStoreType.StartFromLast) as subscription:
        subscription.inbox.wait(1)
        store(channel, range(20, 25))
        subscription.inbox.wait(6)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == [20, 21, 22, 23, 24, 25]


def test_from_last_of_an_empty_channel_begins_with_the_first():
    channel, sender = unique("store"), Sender(ADDRESS)
    with subscribe_to_store(channel, EventsStoreType.StartFromLast) as subscription:
        until(subscription.inbox.now, lambda: probe(sender, channel, store=True))
        got = sequences(subscription)
        assert got == list(range(got[0], got[0] + len(got)))


def test_at_sequence():
    channel = unique("store")
    store(channel, range(COUNT))
    with subscribe_to_store(channel, EventsStoreType.StartAtSequence, COUNT // 2 + 1) as subscription:
        subscription.inbox.wait(COUNT - COUNT // 2)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == list(range(COUNT // 2 + 1, COUNT + 1))


def test_at_a_sequence_beyond_the_end_waits_for_it():
    channel = unique("store")
    store(channel, range(10))
    with subscribe_to_store(channel, EventsStoreType.StartAtSequence, 15) as subscription:
        store(channel, range(10, 20))
        subscription.inbox.wait(6)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == [15, 16, 17, 18, 19, 20]


def two_ages(gap_seconds):
    """A channel with ten events, and ten more that are younger by the gap; and when the older were there."""
    channel = unique("store")
    store(channel, range(10))
    older = time.time()
    until(lambda: time.time() > older + gap_seconds, what="time")
    store(channel, range(10, 20))
    return channel, older


def test_at_time_in_nanoseconds_and_in_seconds():
    channel, _ = two_ages(2.1)
    with subscribe_to_store(channel, EventsStoreType.StartFromFirst) as subscription:
        stored = subscription.inbox.wait(20)
    young_ns = stored[10].timestamp
    assert young_ns - stored[9].timestamp > 2 * 10**9
    # A whole second between the two ages.
    second = young_ns // 10**9
    assert stored[9].timestamp < second * 10**9 <= young_ns
    for value in (young_ns, second):
        with subscribe_to_store(channel, EventsStoreType.StartAtTime, value) as subscription:
            subscription.inbox.wait(10)
            settle([subscription.inbox], 0.2)
            assert sequences(subscription) == list(range(11, 21)), value


def test_at_time_delta_counts_back_from_now():
    channel, older = two_ages(6)
    # Back to a moment between the two.
    delta = int(time.time() - older) - 2
    with subscribe_to_store(channel, EventsStoreType.StartAtTimeDelta, delta) as subscription:
        subscription.inbox.wait(10)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == list(range(11, 21))
    with subscribe_to_store(channel, EventsStoreType.StartAtTimeDelta, 3600) as subscription:
        subscription.inbox.wait(20)
        assert sequences(subscription) == list(range(1, 21))


def test_a_known_client_goes_on_where_it_was_cancelled():
    channel, client_id = unique("store"), unique("durable")
    store(channel, range(300))
    before = subscribe_to_store(
        channel,
        EventsStoreType.StartFromFirst,
        client_id=client_id,
        token=ListenerCancellationToken(),
    )
    before.inbox.wait(300)
    before.cancel_and_wait()
    store(channel, range(300, 400))

    def again():
        # At another node, if there is one.
        return subscribe_to_store(
            channel, EventsStoreType.StartFromFirst, client_id=client_id, address=PEER_ADDRESS
        )

    with resumed(again) as subscription:
        subscription.inbox.wait(100)
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == list(range(301, 401))
    assert sequences(before) == list(range(1, 301)), "nothing comes to what was cancelled"


def test_a_group_shares_one_place_and_each_event_goes_to_one_member():
    channel, group = unique("store"), unique("group")
    store(channel, range(COUNT))
    start = EventsStoreType.StartFromFirst
    with (
        subscribe_to_store(channel, start, group=group) as first,
        subscribe_to_store(channel, start, group=group, address=PEER_ADDRESS) as second,
        subscribe_to_store(channel, start) as alone,
    ):
        until(lambda: len(sequences(first)) + len(sequences(second)) >= COUNT)
        alone.inbox.wait(COUNT)
        settle([first.inbox, second.inbox])
        assert sorted(sequences(first) + sequences(second)) == list(range(1, COUNT + 1))
        assert sequences(alone) == list(range(1, COUNT + 1))


def test_a_group_goes_on_where_it_was_with_another_member():
    channel, group = unique("store"), unique("group")
    store(channel, range(200))
    with subscribe_to_store(
        channel, EventsStoreType.StartFromFirst, group=group
    ) as subscription:
        subscription.inbox.wait(200)
    store(channel, range(200, 250))
    collected = []

    def collect():
        # What was in flight to the member that left may come again; it must not come for ever.
        with subscribe_to_store(
            channel, EventsStoreType.StartFromFirst, group=group, address=PEER_ADDRESS
        ) as subscription:
            subscription.inbox.wait(1)
            settle([subscription.inbox], 0.3)
            collected.extend(sequences(subscription))
        return max(collected) == 250

    until(collect, what="the last event")
    assert set(range(201, 251)) <= set(collected)
    assert 1 not in collected, "the group began anew"


def test_a_group_goes_on_without_a_member_that_was_cancelled():
    channel, group = unique("store"), unique("group")
    firsts = itertools.count(0, 20)

    def store_more():
        numbers = range(first := next(firsts), first + 20)
        store(channel, numbers)
        return numbers

    start, token = EventsStoreType.StartFromFirst, ListenerCancellationToken()
    with (
        subscribe_to_store(channel, start, group=group, address=PEER_ADDRESS) as stays,
        subscribe_to_store(channel, start, group=group, token=token) as goes,
    ):
        until(lambda: stays.numbers() and goes.numbers(), store_more, what="two live members")
        goes.cancel_and_wait()

        def has_all():
            numbers = store_more()
            settle([stays.inbox], 0.2)
            return set(numbers) <= set(stays.numbers())

        # What the server gave to it before it knew is lost.
        until(has_all, what="the end of the cancelled one")
        had, before = goes.numbers(), len(stays.numbers())
        store(channel, range(100_000, 100_200))
        until(lambda: 100_199 in stays.numbers(), what="the last event")
        settle([stays.inbox, goes.inbox], 0.2)
        assert stays.numbers()[before:] == list(range(100_000, 100_200))
        assert goes.numbers() == had
        for one in (stays, goes):
            assert sequences(one) == sorted(set(sequences(one))), "in order, and nothing twice"
        assert set(sequences(stays)).isdisjoint(sequences(goes))


def test_what_a_killed_member_of_a_group_did_not_get_another_one_does():
    killed_member.check("old")


def test_a_second_reader_of_one_name_has_a_place_of_its_own_that_is_not_kept():
    def reader(channel, client_id, sequence, address):
        start = EventsStoreType.StartAtSequence
        return subscribe_to_store(channel, start, sequence, client_id=client_id, address=address)

    one_name.check(reader)


BEFORE_WHAT_IS_KEPT = [
    (EventsStoreType.StartFromFirst, 0),
    (EventsStoreType.StartAtSequence, 5),
    (EventsStoreType.StartAtTime, 1_500_000_000),
    (EventsStoreType.StartAtTimeDelta, 3600),
]


@pytest.mark.parametrize("start, value", BEFORE_WHAT_IS_KEPT)
def test_who_begins_before_what_is_kept_gets_the_first_that_is(start, value):
    channel = trimmed_channel()
    with subscribe_to_store(channel, start, value, address=PEER_ADDRESS) as subscription:
        subscription.inbox.wait(len(SEQUENCES_KEPT))
        settle([subscription.inbox], 0.2)
        assert sequences(subscription) == SEQUENCES_KEPT
        assert subscription.numbers() == NUMBERS_KEPT
