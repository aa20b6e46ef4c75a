"""The classes of the new SDK (4.1.5), prepared for the tests."""

import contextlib

from kubemq.common.cancellation_token import CancellationToken
from kubemq.pubsub import (
    Client as PubSubClient,
)
from kubemq.pubsub import (
    EventMessage,
    EventsStoreSubscription,
    EventsSubscription,
    EventStoreMessage,
)
from kubemq.pubsub.events_store_subscription import EventStoreStartPosition
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, Inbox, numbered, unique


def pubsub(client_id=None, address=ADDRESS):
    return PubSubClient(address=address, client_id=client_id or unique("client"))


def queues(client_id=None, address=ADDRESS):
    return QueuesClient(address=address, client_id=client_id or unique("client"))


class Subscription:
    """A subscription with the inbox it fills, on a client of its own."""

    def __init__(self, client_id=None, address=ADDRESS):
        self.inbox = Inbox()
        self.token = CancellationToken()
        self.client = pubsub(client_id, address)

    def events(self, channel, group=None):
        self.client.subscribe_to_events(
            EventsSubscription(
                channel=channel,
                group=group,
                on_receive_event_callback=self.inbox.add,
                on_error_callback=self.inbox.add_error,
            ),
            self.token,
        )
        return self

    def store(self, channel, start, group=None, **value):
        self.client.subscribe_to_events_store(
            EventsStoreSubscription(
                channel=channel,
                group=group,
                events_store_type=start,
                on_receive_event_callback=self.inbox.add,
                on_error_callback=self.inbox.add_error,
                **value,
            ),
            self.token,
        )
        return self

    def numbers(self):
        """Numbers of the messages that are no probes."""
        return [int(e.metadata[1:]) for e in self.inbox.now() if e.metadata != "probe"]

    def sequences(self):
        return [e.sequence for e in self.inbox.now()]

    def cancel(self):
        self.token.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.token.cancel()
        self.client.close()


def event(channel, number):
    return EventMessage(**numbered("event", channel, number))


def store_event(channel, number):
    return EventStoreMessage(**numbered("event", channel, number))


def queue_message(channel, number, **policy):
    return QueueMessage(**numbered("id", channel, number), **policy)


@contextlib.contextmanager
def queue_client():
    with queues() as client:
        yield client, unique("queue")


__all__ = [
    "EventMessage",
    "EventStoreMessage",
    "EventStoreStartPosition",
    "QueueMessage",
    "Subscription",
    "event",
    "pubsub",
    "queue_client",
    "queue_message",
    "queues",
    "store_event",
]
