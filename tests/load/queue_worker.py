"""Takes messages of a queue with the new SDKs' own clients (3.6.0, 4.1.5), and notes how long it had each of them,
as `transactions.py` does.

An acknowledgement has no answer. It is confirmed when the client's next receive is answered and nothing was
refused or broken in between: requests of one stream take effect in their order. The client keeps refusals and
breaks to itself, so its receiver is watched. A client whose stream broke is left, with all it may hold; one whose
receive was not answered in time is kept, as applications do.
"""

import random
import time
from contextlib import suppress

import kubemq.queues.client
from common import Journal, Nodes, Stop, end, note, queue_arguments
from kubemq.queues import Client
from kubemq.queues.downstream_receiver import DownstreamReceiver

WORK_SECONDS_MAX = 0.02


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
    """One client, and the message whose acknowledgement it asked for last."""

    def __init__(self, address, channel, journal, wait):
        self.client = Client(address=address, client_id="worker")
        self.channel, self.journal, self.wait, self.asked = channel, journal, wait, None
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
        """Takes and acknowledges one message, if there is one."""
        response = self.receive(
            channel=self.channel, max_messages=1, wait_timeout_in_seconds=self.wait
        )
        here = now()
        self.settled(not response.is_error)
        if response.is_error:
            note("receive", response.error)
            return
        for message in response.messages:
            time.sleep(random.random() * WORK_SECONDS_MAX)
            name, refusals, until = message.body.decode(), self.watched().refusals, now()
            self.asked = (name, here, until, refusals)
            try:
                message.ack()
            except Exception:
                self.settled(False)
                raise

    def settled(self, is_answered):
        """Notes what became of the last acknowledgement."""
        if self.asked is None:
            return
        name, since, until, refusals = self.asked
        is_confirmed = is_answered and not self.is_broken() and self.watched().refusals == refusals
        self.journal.write("H %s %d %d %d" % (name, since, until, now() if is_confirmed else 0))
        self.asked = None

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
