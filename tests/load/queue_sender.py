"""Sends numbered messages to a queue with the old SDK's client (2.4.0), and notes which were acknowledged."""

from common import Journal, Nodes, Stop, end, note, queue_arguments
from kubemq.queue.message import Message
from kubemq.queue.message_queue import MessageQueue


def main():
    arguments = queue_arguments()
    journal, stop = Journal(arguments.journal, sync=False), Stop()
    nodes, queue, number = Nodes(arguments.address, arguments.home), None, 0
    while not stop:
        try:
            if queue is None:
                address = nodes.wait_for_one(stop)
                queue = MessageQueue(arguments.queue, "sender", address, 1, 1)
            number += 1
            name = "%d-%d" % (arguments.home, number)
            message = Message()
            message.metadata, message.body = "m", name.encode()
            result = queue.send_queue_message(message)
            if result.is_error:
                raise RuntimeError(str(result.error))
            journal.write("A %s" % name)
            stop.pause(0.005)
        except Exception as error:
            note(type(error).__name__, str(error)[:200])
            queue = None
            stop.pause(0.05)
    end()


if __name__ == "__main__":
    main()
