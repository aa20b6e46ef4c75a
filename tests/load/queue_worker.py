"""Takes messages of a queue with the new SDKs' own clients (3.6.0, 4.1.5), and notes how long it had each of them,
as `transactions.py` does.

Most are acknowledged, some are given back, and some are put into another queue, from which they are taken
whenever something was put there or the first one was empty.

None of that has an answer. It is confirmed when the client's next receive is answered and nothing was refused or
broken in between: requests of one stream take effect in their order. The client keeps refusals and breaks to
itself, so its receiver is watched. A client whose stream broke is left, with all it may hold; one whose receive
was not answered in time is kept, as applications do.
"""

import random
import time
from contextlib import suppress

import kubemq.queues.client
from common import Journal, Nodes, Stop, end, note, queue_arguments
from kubemq.queues import Client
from kubemq.queues.downstream_receiver import DownstreamReceiver

WORK_SECONDS_MAX = 0.02
# At a time.
MESSAGES_MAX = 2


class Watched(DownstreamReceiver):
    """Counts what the client does not tell."""

    refusals = 0
    breaks = 0

    def _process_responses(self, responses):
        try:
            super()._process_responses(self._noted(responses))
        finally:
            self.breaks += 1

    def _noted(self, responses):
        for response in responses:
            if response.IsError:
                self.refusals += 1
            yield response


kubemq.queues.client.DownstreamReceiver = Watched


def now():
    return time.monotonic_ns() // 1000


class Worker:
    """One client, and the messages that it settled since its last receive."""

    def __init__(self, address, channel, journal, wait):
        self.client = Client(address=address, client_id="worker")
        self.channel, self.journal, self.wait = channel, journal, wait
        self.other = channel + "-2"
        self.next, self.asked = channel, []
        # The calls and what they make have other names in each release.
        names = ("receive_queue_messages", "receive_queues_messages")
        self.receive = next(getattr(self.client, name) for name in names if hasattr(self.client, name))

    def watched(self):
        names = ("downstream_receiver", "_downstream_receiver")
        found = (getattr(self.client, name, None) for name in names)
        return next((receiver for receiver in found if receiver is not None), None)

    def is_broken(self):
        receiver = self.watched()
        return receiver is not None and receiver.breaks > 0

    def work(self):
        """Takes and settles some messages, if there are any."""
        channel, self.next = self.next, self.channel
        response = self.receive(
            channel=channel, max_messages=MESSAGES_MAX, wait_timeout_in_seconds=self.wait
        )
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
            self.asked.append((message.body.decode(), channel, here, now(), how, self.watched().refusals))
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
            message.ack()
        elif how == "move":
            message.re_queue(self.other)
            self.next = self.other
        else:
            (message.nack if hasattr(message, "nack") else message.reject)()

    def settled(self, is_answered):
        """Notes what became of the last settlements."""
        for name, channel, since, until, how, refusals in self.asked:
            is_confirmed = (
                is_answered and not self.is_broken() and self.watched().refusals == refusals
            )
            end = now() if is_confirmed else 0
            self.journal.write("H %s %s %d %d %s %d" % (name, channel, since, until, how, end))
        self.asked = []

    def leave(self):
        self.settled(False)
        with suppress(Exception):
            self.client.close()


def main():
    arguments = queue_arguments(wait=int)
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, worker = Nodes(arguments.address, arguments.home), None
    while not stop:
        try:
            if worker is None:
                address = nodes.wait_for_one(stop)
                worker = Worker(address, arguments.queue, journal, arguments.wait)
            worker.work()
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            stop.pause(0.05)
        if worker is not None and worker.is_broken():
            note("its stream broke")
            worker.leave()
            worker = None
    if worker is not None:
        worker.settled(False)
    end()


if __name__ == "__main__":
    main()
