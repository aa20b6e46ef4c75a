"""Events through the newest SDK: contents, order, wildcards, groups."""

import re
import threading

from admin import told
from new import EventMessage, Subscription, event, go_live, pubsub
from support import (
    COUNT,
    PEER_ADDRESS,
    SECONDS_MAX,
    Inbox,
    number_of,
    raw_stub,
    settle,
    unique,
    until,
)


def test_ping_tells_who_answers():
    with pubsub() as client:
        info = client.ping()
        assert info.host
        assert [int(part) for part in info.version.split(".")[:3]] >= [2, 4, 0]
        assert info.server_start_time > 0
        assert info.server_up_time_seconds >= 0


def test_a_subscriber_gets_every_event_as_it_was_sent():
    channel = unique("events")
    with pubsub() as client, Subscription().events(channel) as subscription:
        go_live(client, channel, subscription)
        for number in range(COUNT):
            client.publish_event(event(channel, number))
        until(lambda: len(subscription.numbers()) >= COUNT, what="all events")
        settle([subscription.inbox], 0.2)
        assert subscription.numbers() == list(range(COUNT))
        for received in subscription.inbox.now():
            if received.metadata == "probe":
                continue
            number = int(received.metadata[1:])
            assert received.id == "event-%d" % number
            assert received.channel == channel
            assert number_of(received.body) == number
            assert received.tags == {"number": str(number), "ключ": "значение"}


def test_the_unary_send_delivers_too():
    channel = unique("events")
    with pubsub() as client, Subscription().events(channel) as subscription:
        go_live(client, channel, subscription)
        for number in range(50):
            client.send_event(event(channel, number))
        until(lambda: len(subscription.numbers()) >= 50)
        assert subscription.numbers() == list(range(50))


def test_an_empty_body_and_empty_metadata_are_legal_alone():
    channel = unique("events")
    with pubsub() as client, Subscription().events(channel) as subscription:
        go_live(client, channel, subscription)
        subscription.inbox.items.clear()
        client.send_event(EventMessage(channel=channel, metadata="only"))
        client.send_event(EventMessage(channel=channel, body=b"\x00\xff"))
        metadata, body = subscription.inbox.wait(2)
        assert (metadata.metadata, metadata.body, metadata.tags) == ("only", b"", {})
        assert (body.metadata, body.body, body.tags) == ("", b"\x00\xff", {})


def test_wildcards_match_whole_tokens():
    root = unique("wild")
    with (
        pubsub() as client,
        Subscription().events(root + ".*") as one,
        Subscription(address=PEER_ADDRESS).events(root + ".>") as rest,
        Subscription().events(root + ".*.c") as middle,
    ):
        go_live(client, root + ".a", one, rest)
        go_live(client, root + ".z.c", middle)
        channels = [root, root + ".a", root + ".b", root + ".a.c", root + ".a.b.c"]
        for number, channel in enumerate(channels):
            client.send_event(event(channel, number))
        until(lambda: 4 in rest.numbers() and 2 in one.numbers() and 3 in middle.numbers())
        settle([one.inbox, rest.inbox, middle.inbox])
        assert one.numbers() == [1, 2]
        assert rest.numbers() == [1, 2, 3, 4]
        assert middle.numbers() == [3]


def test_a_group_shares_events_and_others_get_them_all():
    channel = unique("events")
    with (
        pubsub() as client,
        Subscription().events(channel, "g") as first,
        Subscription(address=PEER_ADDRESS).events(channel, "g") as second,
        Subscription(address=PEER_ADDRESS).events(channel, "other") as other,
        Subscription().events(channel) as alone,
    ):
        members = [first, second, other, alone]
        go_live(client, channel, *members)
        for number in range(COUNT):
            client.publish_event(event(channel, number))
        until(lambda: len(alone.numbers()) >= COUNT and len(other.numbers()) >= COUNT)
        until(lambda: len(first.numbers()) + len(second.numbers()) >= COUNT)
        settle([member.inbox for member in members])
        assert alone.numbers() == other.numbers() == list(range(COUNT))
        assert sorted(first.numbers() + second.numbers()) == list(range(COUNT))
        for member in (first, second):
            assert member.numbers() == sorted(member.numbers())
            assert len(member.numbers()) > COUNT // 10


class Stuck(Inbox):
    """One whose callback does not come back from what is no probe, until it is let go."""

    def __init__(self):
        super().__init__()
        self.let_go = threading.Event()

    def add(self, item):
        super().add(item)
        if item.metadata != "probe":
            self.let_go.wait(2 * SECONDS_MAX)


def dropped():
    """What listeners of the node have lost."""
    return int(re.search(r"^flotilla_signals_dropped_total (\d+)$", told("/metrics"), re.M)[1])


def test_a_slow_subscriber_loses_its_surplus_and_holds_up_nobody():
    """What the connection took, and a hundred more, it gets when it goes on."""
    channel, count = unique("events"), 2 * COUNT
    # Several times of what a connection takes, which is 4 MiB.
    body = bytes((32 << 20) // count)
    slow = Subscription()
    slow.inbox = Stuck()
    with pubsub() as client, slow, Subscription(address=PEER_ADDRESS).events(channel) as other:
        slow.events(channel)
        go_live(client, channel, slow, other)
        before = dropped()
        for number in range(count):
            client.publish_event(event(channel, number).with_updates(body=body))
        until(lambda: len(other.numbers()) >= count, what="all events")
        settle([other.inbox], 0.2)
        assert other.numbers() == list(range(count))
        assert slow.numbers() == [0]
        slow.inbox.let_go.set()
        until(lambda: len(slow.numbers()) + dropped() - before >= count, what="all it gets")
        client.send_event(event(channel, count))
        until(lambda: count in slow.numbers(), what="an event after it")
        got, lost = slow.numbers(), dropped() - before
        assert len(got) == count - lost + 1
        assert got[:100] == list(range(100))
        assert got == sorted(set(got)), "in order, and nothing twice"
        assert lost > count // 4


def test_many_subscriptions_of_one_client():
    channels = [unique("events") for _ in range(20)]
    with pubsub() as client, Subscription() as many:
        for channel in channels:
            many.events(channel)
        for index, channel in enumerate(channels):
            until(
                lambda number=index: number in many.numbers(),
                lambda name=channel, number=index: client.send_event(event(name, number)),
            )
        assert {e.channel for e in many.inbox.now()} == set(channels)


def test_response_headers_tell_that_a_subscription_is_live():
    """A caller may wait for them instead of guessing: what is sent after that is delivered."""
    from support import pb

    stub = raw_stub()
    for _ in range(20):
        channel = unique("events")
        call = stub.SubscribeToEvents(
            pb.Subscribe(
                SubscribeTypeData=pb.Subscribe.Events, ClientID="headers", Channel=channel
            ),
            timeout=30,
        )
        call.initial_metadata()
        stub.SendEvent(pb.Event(ClientID="sender", Channel=channel, Body=b"first"))
        assert next(call).Body == b"first"
        call.cancel()
