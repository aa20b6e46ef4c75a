"""Takes messages of a queue with the new SDKs' own clients (3.6.0, 4.1.5, and the asynchronous one of that), and notes
how long it had each of them, as `transactions.py` does.

Most are acknowledged, some are given back, and some are put into another queue, from which they are taken
whenever something was put there or the first one was empty.

None of that has an answer. It is confirmed when the client's next receive is answered and nothing was refused or
broken in between: requests of one stream take effect in their order. The client keeps refusals and breaks to
itself, so its receiver is watched (`watched.py`). A client whose stream broke is left, with all it may hold; one
whose receive was not answered in time is kept, as applications do.
"""

import random
import time
from contextlib import suppress

from common import Journal, Nodes, Stop, end, note, queue_arguments

WORK_SECONDS_MAX = 0.02
# At a time.
MESSAGES_MAX = 2


def now():
    return time.monotonic_ns() // 1000


class Worker:
    """One client, and the messages that it settled since its last receive."""

    def __init__(self, client, channel, journal, wait):
        self.client, self.channel, self.journal, self.wait = client, channel, journal, wait
        self.other = channel + "-2"
        self.next, self.asked = channel, []

    def work(self):
        """Takes and settles some messages, if there are any."""
        channel, self.next = self.next, self.channel
        response = self.client.receive(channel, MESSAGES_MAX, self.wait)
        here = now()
        self.settled(not response.is_error)
        if response.is_error:
            note("receive", response.error)
            return
        if not response.messages and channel == self.channel:
            self.next = self.other
        for message in response.messages:
            time.sleep(random.random() * WORK_SECONDS_MAX)
            how = self.choose(channel)
            refusals = self.client.watch().refusals
            self.asked.append((message.body.decode(), channel, here, now(), how, refusals))
            try:
                self.settle(message, how)
            except Exception:
                self.settled(False)
                raise

    def choose(self, channel):
        hows, weights = ("ack", "back", "move"), (8, 1, 1)
        # What was moved once stays there.
        count = 3 if channel == self.channel else 2
        return random.choices(hows[:count], weights[:count])[0]

    def settle(self, message, how):
        if how == "ack":
            self.client.ack(message)
        elif how == "move":
            self.client.move(message, self.other)
            self.next = self.other
        else:
            self.client.give_back(message)

    def settled(self, is_answered):
        """Notes what became of the last settlements."""
        watch = self.client.watch()
        for name, channel, since, until, how, refusals in self.asked:
            is_confirmed = is_answered and watch.breaks == 0 and watch.refusals == refusals
            end = now() if is_confirmed else 0
            self.journal.write("H %s %s %d %d %s %d" % (name, channel, since, until, how, end))
        self.asked = []

    def leave(self):
        self.settled(False)
        with suppress(Exception):
            self.client.close()


def main():
    arguments = queue_arguments(wait=int, client=str)
    if arguments.client == "asynchronous":
        from watched_async import Client
    else:
        from watched import Client
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, worker = Nodes(arguments.address, arguments.home), None
    while not stop:
        try:
            if worker is None:
                address = nodes.wait_for_one(stop)
                worker = Worker(Client(address), arguments.queue, journal, arguments.wait)
            worker.work()
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            stop.pause(0.05)
        if worker is not None and worker.client.watch().breaks > 0:
            note("its stream broke")
            worker.leave()
            worker = None
    if worker is not None:
        worker.settled(False)
    end()


if __name__ == "__main__":
    main()
