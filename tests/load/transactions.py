"""Takes messages of a queue through the old SDK's transactions (2.4.0), and notes how long it had each of them.

`H NAME QUEUE FROM UNTIL HOW END`, in microseconds of a clock that all processes share: from the moment when the
message was here until it was settled, or the transaction was lost; HOW it was settled is `ack`, `back` when it was
given back, or `move` when it was put into another queue; END is when that was confirmed, 0 if it was not.
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


def work(transaction, channel, journal):
    """Takes one message, if there is one, and acknowledges it or, now and then, gives it back."""
    while transaction.stream:
        # It is free once the end of the stream has been seen.
        time.sleep(0.001)
    response = transaction.receive(VISIBILITY_SECONDS, 1)
    if response.is_error:
        if response.error.startswith(NOTHING):
            return
        raise RuntimeError(response.error)
    since = now()
    name = response.message.Body.decode()
    time.sleep(random.random() * WORK_SECONDS_MAX)
    how = random.choices(("ack", "back"), (9, 1))[0]
    settle = transaction.ack_message if how == "ack" else transaction.rejected_message
    until, confirmed = now(), 0
    try:
        response = settle(response.message.Attributes.Sequence)
        if response.is_error:
            raise RuntimeError(response.error)
        confirmed = now()
    finally:
        journal.write("H %s %s %d %d %s %d" % (name, channel, since, until, how, confirmed))


def main():
    arguments = queue_arguments()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, transaction = Nodes(arguments.address, arguments.home), None
    while not stop:
        try:
            if transaction is None:
                address = nodes.wait_for_one(stop)
                queue = MessageQueue(arguments.queue, "worker", address, 1, 1)
                transaction = queue.create_transaction()
            work(transaction, arguments.queue, journal)
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            transaction = None
            stop.pause(0.05)
    end()


if __name__ == "__main__":
    main()
