"""Events through the old SDKs: contents, order, wildcards, groups."""

import itertools
import time

from old import (
    Event,
    ListenerCancellationToken,
    Sender,
    Subscriber,
    assert_own_order,
    event,
    go_live,
    number_of_event,
    own_numbers,
    subscribe_to_events,
)
from support import ADDRESS, COUNT, PEER_ADDRESS, at_once, number_of, settle, unique, until


def send_stream(sender, channel, numbers):
    """Sends plain events, which are not answered."""
    results = []
    sender.stream_event((event(channel, number) for number in numbers), results.append)
    assert results == []


def test_ping_tells_who_answers():
    for answer in (Sender(ADDRESS).ping(), Subscriber(PEER_ADDRESS).ping()):
        assert answer.Host
        assert [int(part) for part in answer.Version.split(".")[:2]]
        assert 0 < answer.ServerStartTime <= time.time() + 1
        assert answer.ServerUpTimeSeconds >= 0


def test_a_subscriber_gets_every_event_as_it_was_sent():
    channel, sender = unique("events"), Sender(ADDRESS)
    with subscribe_to_events(channel) as subscription:
        go_live(sender, channel, subscription)
        send_stream(sender, channel, range(COUNT))
        until(lambda: len(subscription.numbers()) >= COUNT, what="all events")
        assert subscription.numbers() == list(range(COUNT))
        for received in subscription.inbox.now():
            if received.metadata == "probe":
                continue
            number = number_of_event(received)
            assert received.event_id == "event-%d" % number
            assert received.channel == channel
            assert number_of(received.body) == number
            assert dict(received.tags) == {"number": str(number), "ключ": "значение"}
            assert received.timestamp == 0
            assert received.sequence == 0


def test_a_single_event_is_answered_with_its_id():
    channel, sender = unique("events"), Sender(ADDRESS)
    result = sender.send_event(event(channel, 7))
    assert (result.event_id, result.sent) == ("event-7", True)
    assert not result.error


def test_an_event_as_the_pages_of_these_sdks_write_it():
    """Without an id, which the SDK then makes, and with pairs for tags."""
    channel, sender = unique("events"), Sender(ADDRESS)
    with subscribe_to_events(channel) as subscription:
        go_live(sender, channel, subscription)
        sent = Event(
            metadata="EventMetaData", body=b"body", store=False, channel=channel, client_id="page"
        )
        sent.tags = [("key", "value"), ("key2", "value2")]
        results = [sender.send_event(sent) for _ in range(2)]
        ids = [result.event_id for result in results]
        assert all(result.sent and not result.error for result in results)
        assert len(set(ids)) == 2 and all(ids)

        def heard():
            return [one for one in subscription.inbox.now() if one.metadata != "probe"]

        until(lambda: len(heard()) == 2, what="both events")
        assert [one.event_id for one in heard()] == ids
        for one in heard():
            assert (one.metadata, one.body, one.channel) == ("EventMetaData", b"body", channel)
            assert dict(one.tags) == {"key": "value", "key2": "value2"}


def test_several_threads_may_share_a_sender():
    """Some send one by one, some in streams."""
    channel, sender, count = unique("events"), Sender(ADDRESS), COUNT // 10
    results = []

    def send(thread):
        if thread % 2:
            send_stream(sender, channel, own_numbers(thread, count))
        else:
            for number in own_numbers(thread, count):
                results.append(sender.send_event(event(channel, number)))

    with subscribe_to_events(channel, address=PEER_ADDRESS) as subscription:
        go_live(sender, channel, subscription)
        at_once(send, 4)
        until(lambda: len(subscription.numbers()) >= 4 * count, what="all events")
        settle([subscription.inbox], 0.2)
        assert_own_order(subscription.numbers(), range(4), count)
    assert [(result.sent, result.error) for result in results] == [(True, "")] * 2 * count


def test_wildcards_match_whole_tokens():
    root, sender = unique("wild"), Sender(ADDRESS)
    patterns = {
        "exact": root + ".a",
        "one": root + ".*",
        "rest": root + ".>",
        "middle": root + ".*.c",
    }
    with (
        subscribe_to_events(patterns["exact"]) as exact,
        subscribe_to_events(patterns["one"], address=PEER_ADDRESS) as one,
        subscribe_to_events(patterns["rest"]) as rest,
        subscribe_to_events(patterns["middle"]) as middle,
    ):
        go_live(sender, root + ".a", exact, one, rest)
        go_live(sender, root + ".z.c", middle)
        channels = [root, root + ".a", root + ".b", root + ".a.c", root + ".a.b.c"]
        for number, channel in enumerate(channels):
            sender.send_event(event(channel, number))
        until(lambda: 1 in exact.numbers() and 2 in one.numbers())
        until(lambda: 4 in rest.numbers() and 3 in middle.numbers())
        settle([exact.inbox, one.inbox, rest.inbox, middle.inbox])
        assert exact.numbers() == [1]
        assert one.numbers() == [1, 2]
        assert rest.numbers() == [1, 2, 3, 4]
        assert middle.numbers() == [3]
        by_number = {number_of_event(e): e for e in rest.inbox.now() if e.metadata != "probe"}
        assert by_number[3].channel == root + ".a.c", "the published channel, not the pattern"


def test_a_group_shares_events_and_others_get_them_all():
    channel, sender = unique("events"), Sender(ADDRESS)
    with (
        subscribe_to_events(channel, "g") as first,
        subscribe_to_events(channel, "g", address=PEER_ADDRESS) as second,
        subscribe_to_events(channel, "other", address=PEER_ADDRESS) as other,
        subscribe_to_events(channel) as alone,
    ):
        go_live(sender, channel, first, second, other, alone)
        send_stream(sender, channel, range(COUNT))
        subscriptions = [first, second, other, alone]
        until(lambda: len(alone.numbers()) >= COUNT, what="all events")
        until(
            lambda: len(first.numbers()) + len(second.numbers()) >= COUNT, what="the group's events"
        )
        until(lambda: len(other.numbers()) >= COUNT, what="the other group's events")
        settle([subscription.inbox for subscription in subscriptions])
        assert alone.numbers() == list(range(COUNT))
        assert other.numbers() == list(range(COUNT))
        assert sorted(first.numbers() + second.numbers()) == list(range(COUNT))
        # Each member keeps the order, and the work is really spread.
        for member in (first, second):
            assert member.numbers() == sorted(member.numbers())
            assert len(member.numbers()) > COUNT // 10


def test_one_group_name_on_two_patterns_is_two_groups():
    root, sender = unique("wild"), Sender(ADDRESS)
    channel = root + ".a"
    with (
        subscribe_to_events(channel, "g") as exact,
        subscribe_to_events(root + ".*", "g", address=PEER_ADDRESS) as pattern,
    ):
        go_live(sender, channel, exact, pattern)
        send_stream(sender, channel, range(50))
        until(lambda: len(exact.numbers()) >= 50 and len(pattern.numbers()) >= 50)
        settle([exact.inbox, pattern.inbox])
        assert exact.numbers() == pattern.numbers() == list(range(50))


def test_nothing_is_kept_for_those_who_come_later():
    channel, sender = unique("events"), Sender(ADDRESS)
    send_stream(sender, channel, range(10))
    with subscribe_to_events(channel) as subscription:
        go_live(sender, channel, subscription)
        assert subscription.numbers() == []


def test_a_cancelled_subscription_gets_nothing_more_and_its_group_goes_on_without_it():
    channel, sender = unique("events"), Sender(ADDRESS)
    firsts = itertools.count(0, 20)
    with (
        subscribe_to_events(channel, "g") as stays,
        subscribe_to_events(channel, "g", token=ListenerCancellationToken()) as goes,
    ):
        go_live(sender, channel, stays, goes)
        goes.cancel_and_wait()

        def has_all():
            numbers = range(first := next(firsts), first + 20)
            send_stream(sender, channel, numbers)
            settle([stays.inbox], 0.2)
            return set(numbers) <= set(stays.numbers())

        # What the server gave to it before it knew is lost.
        until(has_all, what="the end of the cancelled one")
        had = goes.numbers()
        send_stream(sender, channel, range(1000, 1100))
        until(lambda: 1099 in stays.numbers(), what="the last event")
        assert stays.numbers()[-100:] == list(range(1000, 1100))
        assert goes.numbers() == had and max(had, default=0) < 1000
