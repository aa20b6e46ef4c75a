"""Events through the old SDKs: contents, order, wildcards, groups."""

import time

from old import Sender, event, number_of_event, probe, subscribe_to_events
from support import ADDRESS, COUNT, PEER_ADDRESS, number_of, settle, unique, until


def go_live(sender, channel, *subscriptions):
    """Sends probes until each of the subscriptions has had one."""
    until(
        lambda: all(subscription.inbox.now() for subscription in subscriptions),
        lambda: probe(sender, channel),
        what="a live subscription",
    )
    settle([subscription.inbox for subscription in subscriptions], 0.2)


def send_stream(sender, channel, numbers):
    """Sends plain events, which are not answered."""
    results = []
    sender.stream_event((event(channel, number) for number in numbers), results.append)
    assert results == []


def test_ping_tells_who_answers():
    answer = Sender(ADDRESS).ping()
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
        until(lambda: 4 in rest.numbers(), what="the last event")
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


def test_a_cancelled_subscription_ends_for_itself_only():
    channel, sender = unique("events"), Sender(ADDRESS)
    with subscribe_to_events(channel) as stays, subscribe_to_events(channel) as goes:
        go_live(sender, channel, stays, goes)
        goes.cancel()
        send_stream(sender, channel, range(100))
        until(lambda: len(stays.numbers()) >= 100)
        assert stays.numbers() == list(range(100))
