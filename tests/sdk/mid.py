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
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, Inbox, number_of, numbered, settle, unique, until


def pubsub(address=ADDRESS, client_id=None, **options):
    return Client(address=address, client_id=client_id or unique("client"), **options)


class Listening:
    """A subscription with the inbox it fills, on a client of its own."""

    def __init__(self, address=ADDRESS, client_id=None, **options):
        self.inbox = Inbox()
        self.token = CancellationToken()
        self.client = pubsub(address, client_id, **options)
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

    def events_now(self):
        """Those that are no probes."""
        return [e for e in self.inbox.now() if e.metadata != "probe"]

    def numbers(self):
        """Numbers of the messages that are no probes."""
        return [int(e.metadata[1:]) for e in self.events_now()]

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


def go_live(client, channel, *listening):
    """Sends probes until each of them has had one."""
    probe = EventMessage(channel=channel, metadata="probe", body=b"p")
    until(
        lambda: all(one.inbox.now() for one in listening),
        lambda: client.send_events_message(probe),
        what="a live subscription",
    )
    settle([one.inbox for one in listening], 0.2)


def queues(address=ADDRESS, **options):
    return QueuesClient(address=address, client_id=unique("client"), **options)


def message_of(channel, number, **policy):
    return QueueMessage(**numbered("id", channel, number), **policy)


def put(client, message):
    """What the send is answered with."""
    result = client.send_queues_message(message)
    assert not result.is_error, result.error
    return result


def send(client, channel, count, **policy):
    return [put(client, message_of(channel, number, **policy)) for number in range(count)]


def receive(client, channel, count, wait=10, **options):
    response = client.receive_queues_messages(
        channel=channel, max_messages=count, wait_timeout_in_seconds=wait, **options
    )
    assert not response.is_error, response.error
    return response


def numbers(response):
    return [number_of(message.body) for message in response.messages]


def assert_empty(client, channel):
    """By a peek: a receive of this SDK gives up half a second after its wait, with an error."""
    assert client.waiting(channel, 1, 1).messages == [], "the queue should be empty"


__all__ = [
    "EventMessage",
    "EventStoreMessage",
    "EventsStoreType",
    "Listening",
    "QueueMessage",
    "assert_empty",
    "event",
    "go_live",
    "message_of",
    "numbers",
    "pubsub",
    "put",
    "queues",
    "receive",
    "send",
    "store_event",
]
