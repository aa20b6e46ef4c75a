"""The figures with which channels are listed, through the new SDKs, compared with what was sent and
received."""

import time

import pytest
from admin import figures
from channels import (
    CLIENTS,
    REQUESTS,
    Listening,
    Start,
    call,
    of_queue,
    open_client,
    receive_from_queue,
    send_event,
    send_to_queue,
    serving,
    the_one,
)
from cq import cq_client, go_live, message, send
from support import PEER_ADDRESS, body_of, settle, store_events, unique, until


def test_a_queue_is_listed_with_its_figures():
    channel = unique("figures")
    with open_client("queues") as client:
        for _ in range(3):
            send_to_queue(client, channel)
        (found,) = client.list_queues_channels(channel)
        assert found.incoming.messages == 3
        assert found.incoming.waiting == 3
        assert found.is_active
        send_to_queue(client, channel, expiration_in_seconds=1)
        expired = until(
            lambda: [c for c in client.list_queues_channels(channel) if c.incoming.expired],
            what="the expiry",
        )
        assert [(c.incoming.expired, c.incoming.waiting) for c in expired] == [(1, 3)]


def test_a_queue_is_listed_with_what_is_held_delayed_and_was_delivered():
    channel = unique("figures")
    with open_client("queues") as client, open_client("queues", PEER_ADDRESS) as other:
        for _ in range(4):
            send_to_queue(client, channel)
        send_to_queue(client, channel, delay_in_seconds=600)
        response = receive_from_queue(other, channel, 3)
        volume = figures("queues", channel)["bytes"]
        assert volume >= 5
        found = the_one(client, "queues", channel)
        assert of_queue(found.incoming) == (5, volume, 1, 0, 1)
        # What goes out has no volume; what waits is told both ways.
        assert of_queue(found.outgoing) == (3, 0, 1, 0, 1)
        assert (found.is_active, found.last_activity) == (True, 0)
        response.messages[0].ack()
        (getattr(response.messages[1], "nack", None) or response.messages[1].reject)()
        until(lambda: the_one(client, "queues", channel).incoming.waiting == 2, what="a rejection")
        until(lambda: figures("queues", channel)["messages"] == 4, what="an acknowledgement")
        found = the_one(client, "queues", channel)
        assert 0 < found.incoming.volume < volume
        assert found.incoming.volume == figures("queues", channel)["bytes"]
        assert (found.incoming.messages, found.outgoing.messages) == (5, 3)


def test_a_channel_of_stored_events_is_listed_with_what_was_stored():
    channel = unique("figures")
    with open_client("events_store") as client:
        store_events(channel, range(5))
        with Listening(address=PEER_ADDRESS).store(channel, Start.StartFromFirst) as listening:
            last = listening.inbox.wait(5)[-1]
        found = the_one(client, "events_store", channel)
        assert found.incoming.messages == 5
        assert found.incoming.volume == figures("topics", channel)["bytes"]
        assert found.incoming.volume >= sum(len(body_of(number)) for number in range(5))
        # Deliveries of stored events are not counted for each name.
        assert (found.outgoing.messages, found.outgoing.volume) == (0, 0)
        assert found.is_active
        assert abs(found.last_activity - last.timestamp.timestamp() * 1000) <= 1


def assert_went_through(before, after, sent, delivered, began):
    """That so much more was counted since; `began` is when it was sent."""
    assert after.incoming.messages - before.incoming.messages == sent
    assert after.outgoing.messages - before.outgoing.messages == delivered
    # Nothing is stored.
    assert (after.incoming.volume, after.outgoing.volume) == (0, 0)
    assert after.is_active
    assert began * 1000 - 1 <= after.last_activity <= time.time() * 1000 + 1


def test_a_channel_of_events_is_listed_with_what_was_sent_and_delivered():
    channel = unique("figures")
    with (
        open_client("events") as client,
        open_client("events", PEER_ADDRESS) as asking,
        Listening().events(channel) as first,
        Listening(address=PEER_ADDRESS).events(channel) as second,
    ):
        inboxes = [first.inbox, second.inbox]
        until(
            lambda: all(inbox.now() for inbox in inboxes),
            lambda: send_event(client, channel, "probe"),
            what="live subscriptions",
        )
        settle(inboxes, 0.2)
        before, began = the_one(asking, "events", channel), time.time()
        for number in range(1, 6):
            send_event(client, channel, "m%d" % number)
        until(lambda: len(first.numbers()) == len(second.numbers()) == 5, what="all events")
        after = the_one(asking, "events", channel)
        assert_went_through(before, after, 5, 10, began)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_channel_of_requests_is_listed_with_what_was_asked_and_delivered(kind):
    channel, one = unique("figures"), REQUESTS[kind]
    with (
        cq_client() as client,
        cq_client(PEER_ADDRESS) as asking,
        serving(kind, channel) as first,
        serving(kind, channel) as second,
    ):
        go_live(client, one, channel, first, second)
        before, began = the_one(asking, kind, channel), time.time()
        for number in range(5):
            assert send(client, message(one, channel, number)).is_executed
        for inbox in (first.inbox, second.inbox):
            inbox.wait(5)
        after = the_one(asking, kind, channel)
        assert_went_through(before, after, 5, 10, began)
        # These are not counted for each name.
        assert (after.incoming.responses, after.outgoing.responses) == (0, 0)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_channel_that_was_only_made_has_no_activity(kind):
    channel = unique("unused")
    with open_client(kind) as client:
        assert call(client, "create", kind, channel) is True
        found = the_one(client, kind, channel)
        assert found.last_activity == 0
        assert not found.is_active
