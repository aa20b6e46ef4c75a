"""Two readers of a stored channel that have one client id at the same time, whatever their SDK."""

import contextlib

from admin import subscribers
from support import ADDRESS, PEER_ADDRESS, settle, store_events, unique, until


def sequences(reader):
    return [event.sequence for event in reader.inbox.now()]


def check(read):
    """Only the one that came first has a place that is kept. A reader that asks to begin at a
    sequence is `read(channel, client_id, sequence, address)`."""
    channel, client_id = unique("store"), unique("same")
    store_events(channel, range(20))
    with contextlib.ExitStack() as readers:

        def begin(sequence, address, count):
            one = readers.enter_context(read(channel, client_id, sequence, address))
            one.inbox.wait(count)
            return one

        def end(one, left):
            one.__exit__(None, None, None)
            until(lambda: subscribers(channel) == left, what="the end of a reader")

        first = begin(1, ADDRESS, 20)
        second = begin(11, PEER_ADDRESS, 10)
        store_events(channel, range(20, 25))
        first.inbox.wait(25)
        second.inbox.wait(15)
        end(first, left=1)
        store_events(channel, range(25, 30))
        second.inbox.wait(20)
        # It goes on where the first one was, whatever it asks for and the second one has read.
        third = begin(1, PEER_ADDRESS, 5)
        end(second, left=1)
        again = begin(28, ADDRESS, 3)
        settle([third.inbox, again.inbox], 0.2)
        assert sequences(first) == list(range(1, 26))
        assert sequences(second) == list(range(11, 31))
        assert sequences(third) == list(range(26, 31))
        assert sequences(again) == [28, 29, 30]
