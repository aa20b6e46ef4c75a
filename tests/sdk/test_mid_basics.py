"""Events and Events Store through the clients of 3.6.0."""

import time
from datetime import datetime

import killed_member
import one_name
import pytest
from admin import subscribers
from cq import cq_client
from mid import (
    EventMessage,
    EventStoreMessage,
    Listening,
    event,
    go_live,
    pubsub,
    queues,
    store_event,
)
from mid import EventsStoreType as Start
from support import COUNT, PEER_ADDRESS, number_of, resumed, settle, store_events, unique, until


def assert_as_sent(received, channel, client_id):
    """This SDK adds a tag of its own, by which it tells who sent it."""
    for one in received:
        if one.metadata == "probe":
            continue
        number = int(one.metadata[1:])
        assert (one.id, one.channel) == ("event-%d" % number, channel)
        assert number_of(one.body) == number
        own = {"x-kubemq-client-id": client_id}
        assert one.tags == {"number": str(number), "ключ": "значение", **own}
        assert one.from_client_id == client_id


@pytest.mark.parametrize("make", [pubsub, queues, cq_client])
def test_a_closed_client_may_be_connected_again(make):
    client = make()
    began = client.ping()
    assert began.host
    assert [int(part) for part in began.version.split(".")] == [2, 6, 0]
    assert abs(began.server_start_time + began.server_up_time_seconds - time.time()) < 60
    client.close()
    with pytest.raises(Exception, match="closed channel"):
        client.ping()
    client.connect()
    again = client.ping()
    assert (again.host, again.server_start_time) == (began.host, began.server_start_time)
    assert again.server_up_time_seconds >= began.server_up_time_seconds
    client.close()


def test_events_come_as_they_were_sent():
    channel, client_id = unique("events"), unique("sender")
    with pubsub(client_id=client_id) as client, Listening().events(channel) as listening:
        go_live(client, channel, listening)
        for number in range(COUNT):
            client.send_events_message(event(channel, number))
        until(lambda: len(listening.numbers()) >= COUNT, what="all events")
        assert listening.numbers() == list(range(COUNT))
        assert_as_sent(listening.inbox.now(), channel, client_id)


def test_ids_are_made_where_none_are_given():
    channel, begin = unique("ids"), Start.StartFromFirst
    with pubsub() as client, Listening().events(channel) as live:
        go_live(client, channel, live)
        events = [EventMessage(channel=channel, metadata="m%d" % n) for n in range(3)]
        stored = [EventStoreMessage(channel=channel, metadata="m%d" % n) for n in range(3)]
        for one in events:
            client.send_events_message(one)
        results = [client.send_events_store_message(one) for one in stored]
        ids = [one.id for one in events + stored]
        assert all(ids) and len(set(ids)) == 6
        assert [result.id for result in results] == ids[3:]
        until(lambda: len(live.events_now()) >= 3)
        assert [one.id for one in live.events_now()] == ids[:3]
        with Listening(PEER_ADDRESS).store(channel, begin) as reading:
            assert [one.id for one in reading.inbox.wait(3)] == ids[3:]


def test_wildcards_match_whole_tokens():
    root = unique("wild")
    with (
        pubsub() as client,
        Listening().events(root + ".*") as one,
        Listening(PEER_ADDRESS).events(root + ".>") as rest,
    ):
        go_live(client, root + ".a", one, rest)
        channels = [root, root + ".a", root + ".b", root + ".a.c"]
        for number, channel in enumerate(channels):
            client.send_events_message(event(channel, number))
        until(lambda: 3 in rest.numbers() and 2 in one.numbers())
        settle([one.inbox, rest.inbox])
        assert one.numbers() == [1, 2]
        assert rest.numbers() == [1, 2, 3]


def test_a_group_shares_events_and_others_get_them_all():
    channel = unique("events")
    with (
        pubsub() as client,
        Listening().events(channel, "g") as first,
        Listening(PEER_ADDRESS).events(channel, "g") as second,
        Listening().events(channel) as alone,
    ):
        members = [first, second, alone]
        go_live(client, channel, *members)
        for number in range(COUNT):
            client.send_events_message(event(channel, number))
        until(lambda: len(alone.numbers()) >= COUNT, what="all events")
        until(lambda: len(first.numbers()) + len(second.numbers()) >= COUNT, what="the group's")
        settle([member.inbox for member in members])
        assert alone.numbers() == list(range(COUNT))
        assert sorted(first.numbers() + second.numbers()) == list(range(COUNT))
        for member in (first, second):
            assert member.numbers() == sorted(member.numbers())
            assert len(member.numbers()) > COUNT // 10


def test_a_cancelled_subscription_gets_nothing_more_and_others_do():
    channel = unique("events")
    with (
        pubsub() as client,
        Listening().events(channel) as cancelled,
        Listening(PEER_ADDRESS).events(channel) as other,
    ):
        go_live(client, channel, cancelled, other)
        client.send_events_message(event(channel, 0))
        until(lambda: cancelled.numbers() == other.numbers() == [0])
        # This SDK leaves the stream with the next event, which it drops.
        cancelled.token.cancel()
        for number in range(1, 21):
            client.send_events_message(event(channel, number))
        until(lambda: len(other.numbers()) > 20, what="all events")
        settle([cancelled.inbox, other.inbox])
        assert other.numbers() == list(range(21))
        assert cancelled.numbers() == [0]
        assert cancelled.inbox.errors == []


def test_stored_events_come_as_they_were_stored():
    channel, client_id, count = unique("store"), unique("sender"), COUNT // 5
    began = time.time()
    with pubsub(client_id=client_id) as client:
        for number in range(count):
            result = client.send_events_store_message(store_event(channel, number))
            assert (result.id, result.sent, result.error) == ("event-%d" % number, True, "")
        with Listening().store(channel, Start.StartFromFirst) as listening:
            received = listening.inbox.wait(count)
            assert listening.sequences() == list(range(1, count + 1))
            assert listening.numbers() == list(range(count))
            assert_as_sent(received, channel, client_id)
            for one in received:
                assert began - 1 < one.timestamp.timestamp() < time.time() + 1


def test_the_start_positions():
    channel = unique("store")
    store_events(channel, range(20))
    older = time.time()
    until(lambda: time.time() > older + 1.1, what="time")
    second = int(time.time())
    store_events(channel, range(20, 30))
    starts = [
        (Start.StartFromLast, {}, [30]),
        (Start.StartAtSequence, {"events_store_sequence_value": 11}, list(range(11, 31))),
        (
            Start.StartAtTime,
            {"events_store_start_time": datetime.fromtimestamp(second)},
            list(range(21, 31)),
        ),
    ]
    for start, value, expected in starts:
        with Listening().store(channel, start, **value) as listening:
            listening.inbox.wait(len(expected))
            settle([listening.inbox], 0.2)
            assert listening.sequences() == expected, start


def test_new_only_begins_with_what_comes_after():
    channel = unique("store")
    store_events(channel, range(20))
    with pubsub() as client, Listening().store(channel, Start.StartNewOnly) as listening:
        probe = store_event(channel, 0)
        probe.metadata = "probe"
        until(listening.inbox.now, lambda: client.send_events_store_message(probe))
        store_events(channel, range(100, 110))
        until(lambda: 109 in listening.numbers())
        assert listening.numbers() == list(range(100, 110))
        assert listening.sequences()[0] > 20


def test_a_time_delta_of_this_sdk_is_always_nothing_and_refused():
    with Listening().store(unique("store"), Start.StartAtTimeDelta) as listening:
        # Which error it is (114) it keeps to itself.
        assert "Internal Error" in listening.inbox.wait_error()


def test_a_known_client_goes_on_where_it_was():
    channel, client_id, first = unique("store"), unique("durable"), Start.StartFromFirst
    store_events(channel, range(50))
    with Listening(client_id=client_id).store(channel, first) as listening:
        listening.inbox.wait(50)
    store_events(channel, range(50, 80))

    def again():
        # At another node, if there is one.
        return Listening(PEER_ADDRESS, client_id).store(channel, first)

    with resumed(again) as listening:
        listening.inbox.wait(30)
        settle([listening.inbox], 0.2)
        assert listening.sequences() == list(range(51, 81))


def test_a_group_shares_one_place_and_each_stored_event_goes_to_one_member():
    channel = unique("store")
    store_events(channel, range(COUNT))
    start = Start.StartFromFirst
    with (
        Listening().store(channel, start, "g") as first,
        Listening(PEER_ADDRESS).store(channel, start, "g") as second,
    ):
        everything = list(range(1, COUNT + 1))
        until(lambda: len(first.sequences()) + len(second.sequences()) >= COUNT)
        settle([first.inbox, second.inbox])
        assert sorted(first.sequences() + second.sequences()) == everything


def test_a_cancelled_subscription_of_stored_events_gets_nothing_more_and_is_counted_no_more():
    channel, begin = unique("store"), Start.StartFromFirst
    store_events(channel, range(5))
    with (
        Listening().store(channel, begin) as cancelled,
        Listening(PEER_ADDRESS).store(channel, begin) as other,
    ):
        for listening in (cancelled, other):
            listening.inbox.wait(5)
        assert subscribers(channel) == 2
        # The stream is left with the next event here too.
        cancelled.token.cancel()
        store_events(channel, range(5, 20))
        other.inbox.wait(20)
        until(lambda: subscribers(channel) == 1, what="the end of the subscription")
        settle([cancelled.inbox, other.inbox])
        assert cancelled.numbers() == list(range(5))
        assert other.numbers() == list(range(20))
        assert cancelled.inbox.errors == []


def test_what_comes_after_a_member_of_a_group_left_goes_to_the_other_in_order():
    channel, begin, half = unique("store"), Start.StartFromFirst, COUNT // 5
    store_events(channel, range(1))
    with Listening().store(channel, begin, "g") as staying:
        with Listening(PEER_ADDRESS).store(channel, begin, "g") as leaving:
            until(lambda: subscribers(channel) == 2, what="two members")
            store_events(channel, range(1, half))
            until(lambda: len(staying.sequences()) + len(leaving.sequences()) >= half)
            assert staying.sequences() and leaving.sequences()
        until(lambda: subscribers(channel) == 1, what="the end of the member")
        before = leaving.sequences()
        store_events(channel, range(half, 2 * half))
        until(lambda: len(staying.sequences()) + len(before) >= 2 * half)
        settle([staying.inbox, leaving.inbox])
        assert staying.sequences()[half - len(before) :] == list(range(half + 1, 2 * half + 1))
        assert sorted(staying.sequences() + before) == list(range(1, 2 * half + 1))
        assert leaving.sequences() == before


def test_what_a_killed_member_of_a_group_did_not_get_another_one_does():
    killed_member.check("mid")


def test_a_second_reader_of_one_name_has_a_place_of_its_own_that_is_not_kept():
    def reader(channel, client_id, sequence, address):
        return Listening(address, client_id).store(
            channel, Start.StartAtSequence, events_store_sequence_value=sequence
        )

    one_name.check(reader)
