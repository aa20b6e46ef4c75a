"""Takes messages of a queue by calls that acknowledge what they bring (of every release), and notes what came:
`G NAME`; or that a call has failed, whose answer may have brought some: `F`."""

import asyncio

from common import Journal, Nodes, Stop, end, note, queue_arguments

try:
    from kubemq.queues import Client
except ImportError:
    from kubemq.queue.message_queue import MessageQueue

    Client = None

MESSAGES_MAX = 4
WAIT_SECONDS = 1


class Pulling:
    """One client, new or old."""

    def __init__(self, address, queue):
        self.queue = queue
        if Client:
            self.client = Client(address=address, client_id="puller")
        else:
            self.client = MessageQueue(queue, "puller", address, MESSAGES_MAX, WAIT_SECONDS)

    def bodies(self):
        if Client:
            response = self.client.pull(self.queue, MESSAGES_MAX, WAIT_SECONDS)
            bodies = [message.body for message in response.messages]
        else:
            response = self.client.receive_queue_messages()
            bodies = [message.Body for message in response.messages]
        if response.is_error:
            raise RuntimeError(response.error)
        return bodies


def main():
    arguments = queue_arguments()
    # Without one 3.6.0 makes no client.
    asyncio.set_event_loop(asyncio.new_event_loop())
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, pulling = Nodes(arguments.address, arguments.home), None
    while not stop:
        try:
            if pulling is None:
                pulling = Pulling(nodes.wait_for_one(stop), arguments.queue)
            for body in pulling.bodies():
                journal.write("G %s" % bytes(body).decode())
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            journal.write("F ")
            pulling = None
            stop.pause(0.05)
    end()


if __name__ == "__main__":
    main()
