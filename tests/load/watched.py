"""The queues client of 3.6.0 and 4.1.5 for `queue_worker.py`, which sees what the client keeps to itself."""

import kubemq.queues.client
from common import either
from kubemq.queues import Client as QueuesClient
from kubemq.queues.downstream_receiver import DownstreamReceiver


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


class Client:
    """The calls and what they make have other names in each release."""

    def __init__(self, address):
        self.client = QueuesClient(address=address, client_id="worker")

    def watch(self):
        """The receiver of this client, or before it has one what is true of all."""
        names = ("downstream_receiver", "_downstream_receiver")
        found = (getattr(self.client, name, None) for name in names)
        return next((receiver for receiver in found if receiver is not None), Watched)

    def receive(self, channel, count, wait):
        receive = either(self.client, "receive_queue_messages", "receive_queues_messages")
        return receive(channel=channel, max_messages=count, wait_timeout_in_seconds=wait)

    def ack(self, message):
        message.ack()

    def give_back(self, message):
        either(message, "nack", "reject")()

    def move(self, message, channel):
        message.re_queue(channel)

    def close(self):
        self.client.close()
