"""Events Store through the newest SDK: the six start positions, durable resume, groups."""

import time
from datetime import datetime

import killed_member
import one_name
from admin import subscribers
from new import EventStoreStartPosition as Start
from new import Subscription, pubsub, store_event
from support import (
    ADDRESS,
    COUNT,
    PEER_ADDRESS,
    number_of,
    pb,
    raw_stub,
    resumed,
    settle,
    store_events,
    unique,
    until,
)


def test_a_thousand_events_are_answered_and_come_as_they_were_stored():
    channel = unique("store")
    with pubsub() as client, Subscription().store(channel, Start.StartFromFirst) as subscription:
        for number in range(COUNT):
            result = client.send_event_store(store_event(channel, number))
            assert (result.id, result.sent) == ("event-%d" % number, True)
            assert not result.error
        received = subscription.inbox.wait(COUNT)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == list(range(1, COUNT + 1))
        for number, one in enumerate(received):
            assert one.id == "event-%d" % number
            assert one.channel == channel
            assert one.metadata == "m%d" % number
            assert number_of(one.body) == number
            assert one.tags == {"number": str(number), "ключ": "значение"}
            assert abs(one.timestamp.timestamp() - time.time()) < 120


def test_new_only_begins_with_what_comes_after():
    channel = unique("store")
    store_events(channel, range(20))
    with pubsub() as client, Subscription().store(channel, Start.StartFromNew) as subscription:
        probe = store_event(channel, 0).with_updates(metadata="probe")
        until(subscription.inbox.now, lambda: client.send_event_store(probe))
        store_events(channel, range(100, 200))
        until(lambda: 199 in subscription.numbers())
        assert subscription.numbers() == list(range(100, 200))
        got = subscription.sequences()
        assert got[0] > 20
        assert got == list(range(got[0], got[0] + len(got)))


def test_from_last_begins_with_the_last_one():
    channel = unique("store")
    store_events(channel, range(COUNT))
    with Subscription().store(channel, Start.StartFromLast) as subscription:
        subscription.inbox.wait(1)
        store_events(channel, range(COUNT, COUNT + 5))
        subscription.inbox.wait(6)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == list(range(COUNT, COUNT + 6))


def test_from_the_last_of_none_or_beyond_the_end_begins_with_what_comes():
    last, beyond = unique("store"), unique("store")
    store_events(beyond, range(5))
    with (
        Subscription().store(last, Start.StartFromLast) as from_last,
        Subscription().store(
            beyond, Start.StartAtSequence, events_store_sequence_value=100
        ) as from_beyond,
    ):
        # Whoever is there hears whatever comes from now on.
        for channel, subscription in ((last, from_last), (beyond, from_beyond)):
            until(subscription.inbox.now, lambda: store_events(channel, [0]))
            store_events(channel, range(10, 20))
            until(lambda: 19 in subscription.numbers())
            got = subscription.sequences()
            assert got == list(range(got[0], got[0] + len(got)))
            assert got[0] > (0 if channel == last else 5)


def test_at_sequence():
    channel = unique("store")
    store_events(channel, range(COUNT))
    with Subscription().store(
        channel, Start.StartAtSequence, events_store_sequence_value=COUNT // 2 + 1
    ) as subscription:
        subscription.inbox.wait(COUNT - COUNT // 2)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == list(range(COUNT // 2 + 1, COUNT + 1))


def test_at_time_and_at_time_delta():
    channel = unique("store")
    store_events(channel, range(COUNT))
    older = time.time()
    until(lambda: time.time() > older + 6, what="time")
    # The SDK sends whole seconds.
    second = int(time.time())
    store_events(channel, range(COUNT, COUNT + 10))
    young = list(range(COUNT + 1, COUNT + 11))
    with Subscription().store(
        channel, Start.StartAtTime, events_store_start_time=datetime.fromtimestamp(second)
    ) as subscription:
        subscription.inbox.wait(10)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == young
    # Back to a moment between the two.
    delta = int(time.time() - older) - 2
    with Subscription().store(
        channel, Start.StartAtTimeDelta, events_store_time_delta_seconds=delta
    ) as subscription:
        subscription.inbox.wait(10)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == young


def test_a_known_client_goes_on_where_it_was():
    channel, client_id = unique("store"), unique("durable")
    store_events(channel, range(300))
    with Subscription(client_id).store(channel, Start.StartFromFirst) as subscription:
        subscription.inbox.wait(300)
    store_events(channel, range(300, 400))

    def again():
        # At another node, if there is one.
        return Subscription(client_id, PEER_ADDRESS).store(channel, Start.StartFromFirst)

    with resumed(again) as subscription:
        subscription.inbox.wait(100)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == list(range(301, 401))


def test_a_group_shares_one_place_and_each_event_goes_to_one_member():
    channel = unique("store")
    store_events(channel, range(COUNT))
    start = Start.StartFromFirst
    with (
        Subscription().store(channel, start, "g") as first,
        Subscription(address=PEER_ADDRESS).store(channel, start, "g") as second,
        Subscription(address=PEER_ADDRESS).store(channel, start, "other") as other,
        Subscription().store(channel, start) as alone,
    ):
        store_events(channel, range(COUNT, COUNT + 200))
        everything = list(range(1, COUNT + 201))
        until(lambda: len(first.sequences()) + len(second.sequences()) >= len(everything))
        other.inbox.wait(len(everything))
        alone.inbox.wait(len(everything))
        settle([first.inbox, second.inbox])
        assert sorted(first.sequences() + second.sequences()) == everything
        assert other.sequences() == alone.sequences() == everything


def test_what_a_killed_member_of_a_group_did_not_get_another_one_does():
    killed_member.check("new")


def reader(channel, client_id, sequence, address=ADDRESS):
    start = {"start": Start.StartAtSequence, "events_store_sequence_value": sequence}
    return Subscription(client_id, address).store(channel, **start)


def test_a_second_reader_of_one_name_has_a_place_of_its_own_that_is_not_kept():
    one_name.check(reader)


def test_two_subscriptions_of_one_client_to_one_channel_get_everything_each():
    channel = unique("store")
    store_events(channel, range(20))
    with reader(channel, None, 1) as first, Subscription(client=first.client) as second:
        first.inbox.wait(20)
        second.store(channel, Start.StartFromNew)
        until(lambda: subscribers(channel) == 2, what="two subscriptions")
        store_events(channel, range(20, 30))
        first.inbox.wait(30)
        second.inbox.wait(10)
        settle([first.inbox, second.inbox], 0.2)
        assert first.sequences() == list(range(1, 31))
        assert second.sequences() == list(range(21, 31))


def test_a_slow_subscriber_loses_nothing():
    """A reader that does not read is paced, not dropped, while others go on."""
    channel = unique("store")
    stub = raw_stub()
    call = stub.SubscribeToEvents(
        pb.Subscribe(
            SubscribeTypeData=pb.Subscribe.EventsStore,
            ClientID=unique("slow"),
            Channel=channel,
            EventsStoreTypeData=pb.Subscribe.StartFromFirst,
        ),
        timeout=60,
    )
    body = b"x" * 10_000
    count = 5 * COUNT
    events = (
        pb.Event(EventID=str(n), ClientID="s", Channel=channel, Body=body, Store=True)
        for n in range(count)
    )
    assert sum(result.Sent for result in raw_stub().SendEventsStream(events)) == count
    assert [next(call).Sequence for _ in range(count)] == list(range(1, count + 1))
    call.cancel()


def test_store_and_plain_events_mix_on_one_stream():
    """Only stored events are answered; the stream ends with OK once the client has half-closed."""
    channel = unique("store")
    events = [
        pb.Event(
            EventID="e%d" % n, ClientID="mix", Channel=channel, Body=b"x", Store=n % 3 == 0
        )
        for n in range(300)
    ]
    results = list(raw_stub().SendEventsStream(iter(events), timeout=30))
    assert [result.EventID for result in results] == ["e%d" % n for n in range(0, 300, 3)]
    assert all(result.Sent for result in results)


def test_an_id_is_made_where_none_was_given():
    channel = unique("store")
    request = pb.Event(ClientID="c", Channel=channel, Body=b"x", Store=True)
    ids = {raw_stub().SendEvent(request).EventID for _ in range(10)}
    assert len(ids) == 10 and "" not in ids
