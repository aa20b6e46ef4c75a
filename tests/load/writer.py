"""Sends to one topic and one queue with the SDK's own clients, and notes every outcome.

Nothing is sent again after an error: such a message may have been stored or not. A producer's next
message is sent only after the outcome of the one before is known, so its order is fixed.
"""

import argparse
import random
import threading

from common import Journal, Nodes, Stop, call_within, end, make_body, make_metadata, note
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import EventStoreMessage
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage

ANSWER_SECONDS_MAX = 10
BATCH_MAX = 16


class Clients:
    def __init__(self, address, name):
        self.pubsub = PubSubClient(address=address, client_id=name)
        self.queues = QueuesClient(address=address, client_id=name)

    def close(self):
        # Closing can wait for streams of a server that is gone.
        for client in (self.pubsub, self.queues):
            threading.Thread(target=client.close, daemon=True).start()


class Writer:
    def __init__(self, arguments):
        self.producer = arguments.producer
        self.journal = Journal(arguments.journal)
        self.random = random.Random(arguments.seed * 1000 + arguments.producer)
        self.next_number = {arguments.topic: 1, arguments.queue: 1}
        self.topic = arguments.topic
        self.queue = arguments.queue

    def prepare(self, channel, count):
        first = self.next_number[channel]
        self.next_number[channel] += count
        self.journal.write("I %s %d %d" % (channel, first, count))
        return range(first, first + count)

    def acknowledge(self, channel, numbers):
        if numbers:
            self.journal.write(*("A %s %d" % (channel, number) for number in numbers))

    def queue_message(self, number):
        body = make_body(self.producer, number)
        return QueueMessage(
            channel=self.queue, body=body, metadata=make_metadata(body), tags={"n": str(number)}
        )

    def send_event(self, clients):
        [number] = self.prepare(self.topic, 1)
        body = make_body(self.producer, number)
        message = EventStoreMessage(channel=self.topic, body=body, metadata=make_metadata(body))
        result = clients.pubsub.send_event_store(message)
        if not result.sent:
            raise RuntimeError("event %d: %s" % (number, result.error))
        self.acknowledge(self.topic, [number])

    def send_to_queue(self, clients):
        [number] = self.prepare(self.queue, 1)
        message = self.queue_message(number)
        if self.random.random() < 0.5:
            result = clients.queues.send_queue_message(message)
        else:
            result = clients.queues.send_queue_message_simple(message)
        if result.is_error:
            raise RuntimeError("queue message %d: %s" % (number, result.error))
        self.acknowledge(self.queue, [number])

    def send_batch(self, clients):
        numbers = self.prepare(self.queue, self.random.randint(2, BATCH_MAX))
        batch = clients.queues.send_queue_messages_batch([self.queue_message(n) for n in numbers])
        good = [n for n, result in zip(numbers, batch.results, strict=True) if not result.is_error]
        self.acknowledge(self.queue, good)
        if len(good) < len(numbers):
            errors = [result.error for result in batch.results if result.is_error]
            raise RuntimeError("batch from %d: %s" % (numbers[0], errors[0]))

    def run(self, nodes, stop):
        actions = [self.send_event] * 3 + [self.send_to_queue, self.send_batch]
        clients = None
        while not stop:
            if clients is None:
                clients = Clients(nodes.wait_for_one(stop), "writer-%d" % self.producer)
            action = self.random.choice(actions)
            try:
                call_within(ANSWER_SECONDS_MAX, lambda: action(clients))
            except Exception as error:
                note(type(error).__name__, error)
                # Fresh clients: after a break the old ones can lose a message between two streams.
                clients.close()
                clients = None
                stop.pause(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--producer", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    Writer(arguments).run(Nodes(arguments.address, arguments.producer), Stop())
    end()


if __name__ == "__main__":
    main()
