"""What is kept no longer, as the clients of the newest SDK see it."""

from datetime import datetime

import pytest
from admin import figures, set_up, subscribers
from new import EventStoreStartPosition as Start
from new import Subscription, numbers, queue_client, receive, send
from retention import (
    NUMBERS_KEPT,
    SEQUENCES_KEPT,
    STORED,
    keep_few,
    trimmed_channel,
    wait_until_few_are_kept,
)
from support import PEER_ADDRESS, settle, store_events, unique, until

BEFORE_WHAT_IS_KEPT = [
    (Start.StartFromFirst, {}),
    (Start.StartAtSequence, {"events_store_sequence_value": 5}),
    (Start.StartAtTime, {"events_store_start_time": datetime(2020, 1, 1)}),
    (Start.StartAtTimeDelta, {"events_store_time_delta_seconds": 3600}),
]


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize(("start", "value"), BEFORE_WHAT_IS_KEPT)
def test_who_begins_before_what_is_kept_gets_the_first_that_is(start, value, group):
    channel = trimmed_channel()
    with Subscription(address=PEER_ADDRESS).store(channel, start, group, **value) as subscription:
        subscription.inbox.wait(len(SEQUENCES_KEPT))
        store_events(channel, [STORED])
        subscription.inbox.wait(len(SEQUENCES_KEPT) + 1)
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == [*SEQUENCES_KEPT, STORED + 1]
        assert subscription.numbers() == [*NUMBERS_KEPT, STORED]


def test_a_known_client_goes_on_with_what_is_kept_of_what_it_missed():
    channel, client_id = unique("store"), unique("durable")
    store_events(channel, range(5))
    with Subscription(client_id).store(channel, Start.StartFromFirst) as subscription:
        subscription.inbox.wait(5)
    until(lambda: subscribers(channel) == 0, what="its end")
    keep_few(channel)
    store_events(channel, range(5, STORED))
    wait_until_few_are_kept(channel)
    with Subscription(client_id).store(channel, Start.StartFromFirst) as subscription:
        subscription.inbox.wait(len(SEQUENCES_KEPT))
        settle([subscription.inbox], 0.2)
        assert subscription.sequences() == SEQUENCES_KEPT
        assert subscription.numbers() == NUMBERS_KEPT


def test_messages_that_a_queue_has_kept_long_enough_are_dropped_unread():
    with queue_client() as (client, channel):
        set_up("queues", channel, retention_ms=1_000)
        send(client, channel, 3)
        # Its settings are those of the messages that come later.
        set_up("queues", channel, retention_ms=None)
        send(client, channel, 2)
        until(lambda: figures("queues", channel)["messages"] == 2, what="the end of three messages")
        assert figures("queues", channel)["expired_total"] == 3
        [first, second] = receive(client, channel, 2, auto_ack=True).messages
        assert numbers([first, second]) == [0, 1]
        assert [(one.sequence, one.receive_count) for one in (first, second)] == [(4, 1), (5, 1)]
