"""Sends numbered messages to a queue with the SDK's client (of every release), and notes which were acknowledged."""

import threading

from common import Journal, Nodes, Stop, either, end, note, queue_arguments

try:
    from kubemq.queues import Client, QueueMessage
except ImportError:
    from kubemq.queue.message import Message
    from kubemq.queue.message_queue import MessageQueue

    Client = None


class Sending:
    """One client, new or old."""

    def __init__(self, address, queue):
        self.queue = queue
        if Client:
            self.client = Client(address=address, client_id="sender")
        else:
            self.client = MessageQueue(queue, "sender", address, 1, 1)

    def send(self, body):
        if Client:
            send = either(self.client, "send_queue_message", "send_queues_message")
            result = send(QueueMessage(channel=self.queue, body=body, metadata="m"))
        else:
            message = Message()
            message.metadata, message.body = "m", body
            result = self.client.send_queue_message(message)
        if result.is_error:
            raise RuntimeError(str(result.error))

    def leave(self):
        if Client:
            # It may wait for a server that is gone.
            threading.Thread(target=self.client.close, daemon=True).start()


def main():
    arguments = queue_arguments()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, sending, number = Nodes(arguments.address, arguments.home), None, 0
    while not stop:
        try:
            if sending is None:
                sending = Sending(nodes.wait_for_one(stop), arguments.queue)
            number += 1
            name = "%d-%d" % (arguments.home, number)
            sending.send(name.encode())
            journal.write("A %s" % name)
            stop.pause(0.02)
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            if sending is not None:
                sending.leave()
            sending = None
            stop.pause(0.05)
    end()


if __name__ == "__main__":
    main()
