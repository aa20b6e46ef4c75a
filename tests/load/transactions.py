"""Takes messages of a queue through the old SDKs' transactions (1.1.0, 2.4.0), and notes how long it had each of them.

`H NAME QUEUE FROM UNTIL HOW END`, in microseconds of a clock that all processes share: from the moment when the
message was here until it was settled, or the transaction was lost; HOW it was settled is `ack`, `back` when it was
given back, or `move` when it was put into another queue; END is when that was confirmed, 0 if it was not.

Most are acknowledged, some are given back, and some are put into another queue, as they are or changed. That queue
is worked on whenever something was put there or the first one was empty.
"""

import random
import time

from common import Journal, Nodes, Stop, end, note, queue_arguments
from kubemq.queue.message_queue import MessageQueue

VISIBILITY_SECONDS = 60
WORK_SECONDS_MAX = 0.02
NOTHING = "Error 138"


def now():
    return time.monotonic_ns() // 1000


class Worker:
    """Takes messages of two queues, each through a transaction that is used again and again."""

    def __init__(self, address, channel, journal):
        self.journal, self.channel, self.other = journal, channel, channel + "-2"
        self.transactions = {
            name: MessageQueue(name, "worker", address, 1, 1).create_transaction()
            for name in (channel, self.other)
        }
        self.next = channel

    def work(self):
        """Takes one message, if there is one, and settles it."""
        channel, self.next = self.next, self.channel
        transaction = self.transactions[channel]
        while transaction.stream:
            # It is free once the end of the stream has been seen.
            time.sleep(0.001)
        response = transaction.receive(VISIBILITY_SECONDS, 1)
        if response.is_error:
            if not response.error.startswith(NOTHING):
                raise RuntimeError(response.error)
            if channel == self.channel:
                self.next = self.other
            return
        since, message = now(), response.message
        name = message.Body.decode()
        time.sleep(random.random() * WORK_SECONDS_MAX)
        how, settle = self.choose(channel, transaction, message)
        until, confirmed = now(), 0
        try:
            response = settle()
            if response.is_error:
                raise RuntimeError(response.error)
            confirmed = now()
        finally:
            self.journal.write(
                "H %s %s %d %d %s %d" % (name, channel, since, until, how, confirmed)
            )

    def choose(self, channel, transaction, message):
        """How it is to be settled, and the call that does it."""
        sequence = message.Attributes.Sequence
        ways = [
            (16, "ack", lambda: transaction.ack_message(sequence)),
            (2, "back", lambda: transaction.rejected_message(sequence)),
        ]
        # What was moved once stays there.
        if channel == self.channel:
            ways += [
                (1, "move", lambda: transaction.resend(self.other)),
                (1, "move", lambda: self.change(transaction, message)),
            ]
        [(_, how, settle)] = random.choices(ways, [weight for weight, _, _ in ways])
        if how == "move":
            self.next = self.other
        return how, settle

    def change(self, transaction, message):
        message.Channel, message.Metadata = self.other, "changed"
        return transaction.modify(message)


def main():
    arguments = queue_arguments()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, worker = Nodes(arguments.address, arguments.home), None
    while not stop:
        try:
            if worker is None:
                worker = Worker(nodes.wait_for_one(stop), arguments.queue, journal)
            worker.work()
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            worker = None
            stop.pause(0.05)
    end()


if __name__ == "__main__":
    main()
