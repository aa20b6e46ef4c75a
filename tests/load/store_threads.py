"""Stores events with eight threads of the SDK's own client (of every release), and notes what was acknowledged.

A thread makes a new client after an error, as an application would. A thread that does not come back from a
call when all is over fails the script.
"""

import argparse
import asyncio

from common import Journal, Nodes, Stop, note, run_until

try:
    from kubemq.pubsub import Client, EventStoreMessage
except ImportError:
    from kubemq.events.lowlevel.event import Event
    from kubemq.events.lowlevel.sender import Sender

    Client = None

THREADS = 8


class Sending:
    """One client, new or old."""

    def __init__(self, address, name, channel):
        self.name, self.channel = name, channel
        if Client:
            self.client = Client(address=address, client_id=name)
        else:
            self.client = Sender(address)

    def store(self, body):
        if Client:
            # The call has another name in 3.6.0.
            send = getattr(self.client, "send_event_store", None)
            send = send or self.client.send_events_store_message
            result = send(EventStoreMessage(channel=self.channel, body=body, metadata="m"))
        else:
            result = self.client.send_event(
                Event(
                    channel=self.channel, client_id=self.name, metadata="m", body=body, store=True
                )
            )
        if result is None or not result.sent:
            raise RuntimeError("not stored: %s" % (result and result.error))


def store(thread, arguments, journal, stop):
    # Without one 3.6.0 makes no client in a thread.
    asyncio.set_event_loop(asyncio.new_event_loop())
    nodes, sending, number = Nodes(arguments.address, thread), None, 0
    while not stop:
        try:
            if sending is None:
                address = nodes.wait_for_one(stop)
                sending = Sending(address, "thread-%d" % thread, arguments.channel)
            number += 1
            name = "%d-%d" % (thread, number)
            sending.store(name.encode())
            journal.write("A %s" % name)
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            sending = None
            stop.pause(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    run_until(stop, lambda thread: store(thread, arguments, journal, stop), range(THREADS))


if __name__ == "__main__":
    main()
