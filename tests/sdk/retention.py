"""A stored channel that keeps less than it was given."""

from admin import figures, set_up
from support import store_events, unique, until

STORED, KEPT = 30, 10
# Sequences count from 1.
SEQUENCES_KEPT = list(range(STORED - KEPT + 1, STORED + 1))
NUMBERS_KEPT = list(range(STORED - KEPT, STORED))


def keep_few(channel):
    set_up("topics", channel, retention_messages=KEPT)


def wait_until_few_are_kept(channel):
    until(lambda: figures("topics", channel)["first_offset"] == SEQUENCES_KEPT[0], what="retention")
    assert figures("topics", channel)["messages"] == KEPT


def trimmed_channel():
    channel = unique("store")
    keep_few(channel)
    store_events(channel, range(STORED))
    wait_until_few_are_kept(channel)
    return channel
