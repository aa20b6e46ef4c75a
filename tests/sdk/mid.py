"""The classes of 3.6.0, prepared for the tests."""

from kubemq.pubsub import (
    CancellationToken,
    Client,
    EventMessage,
    EventsStoreSubscription,
    EventsStoreType,
    EventsSubscription,
    EventStoreMessage,
)
from support import ADDRESS, Inbox, numbered, unique


def pubsub(address=ADDRESS, client_id=None):
    return Client(address=address, client_id=client_id or unique("client"))


class Listening:
    """A subscription with the inbox it fills, on a client of its own."""

    def __init__(self, address=ADDRESS, client_id=None):
        self.inbox = Inbox()
        self.token = CancellationToken()
        self.client = pubsub(address, client_id)
        self.callbacks = {
            "on_receive_event_callback": self.inbox.add,
            "on_error_callback": self.inbox.add_error,
        }

    def events(self, channel, group=None):
        subscription = EventsSubscription(channel=channel, group=group, **self.callbacks)
        self.client.subscribe_to_events(subscription, self.token)
        return self

    def store(self, channel, start, group=None, **value):
        """A sequence or time is set afterwards: this SDK's own check of them breaks."""
        subscription = EventsStoreSubscription(
            channel=channel, group=group, events_store_type=start, **self.callbacks
        )
        for name, what in value.items():
            setattr(subscription, name, what)
        self.client.subscribe_to_events_store(subscription, self.token)
        return self

    def numbers(self):
        """Numbers of the messages that are no probes."""
        return [int(e.metadata[1:]) for e in self.inbox.now() if e.metadata != "probe"]

    def sequences(self):
        return [e.sequence for e in self.inbox.now()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.token.cancel()
        self.client.close()


def event(channel, number):
    return EventMessage(**numbered("event", channel, number))


def store_event(channel, number):
    return EventStoreMessage(**numbered("event", channel, number))


__all__ = [
    "EventMessage",
    "EventsStoreType",
    "Listening",
    "event",
    "pubsub",
    "store_event",
]
