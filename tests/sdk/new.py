"""The classes of the new SDK (4.1.5), prepared for the tests."""

import contextlib

from kubemq import KubeMQConnectionError
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
from support import ADDRESS, Inbox, number_of, numbered, settle, unique, until


def pubsub(client_id=None, address=ADDRESS, **options):
    return PubSubClient(address=address, client_id=client_id or unique("client"), **options)


def queues(client_id=None, address=ADDRESS, **options):
    return QueuesClient(address=address, client_id=client_id or unique("client"), **options)


class Subscription:
    """A subscription with the inbox it fills, on a client of its own."""

    def __init__(self, client_id=None, address=ADDRESS, client=None):
        self.inbox = Inbox()
        self.token = CancellationToken()
        self.client = client or pubsub(client_id, address)

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


def go_live(client, channel, *subscriptions):
    """Sends probes until each of the subscriptions has had one."""
    until(
        lambda: all(subscription.inbox.now() for subscription in subscriptions),
        lambda: client.send_event(EventMessage(channel=channel, metadata="probe", body=b"probe")),
        what="a live subscription",
    )
    settle([subscription.inbox for subscription in subscriptions], 0.2)


@contextlib.contextmanager
def queue_client():
    with queues() as client:
        yield client, unique("queue")


def send(client, channel, count, **policy):
    batch = [queue_message(channel, number, **policy) for number in range(count)]
    answer = client.send_queue_messages_batch(batch)
    assert not answer.have_errors
    assert [result.id for result in answer.results] == ["id-%d" % n for n in range(count)]


def receive(client, channel, count, wait=10, **options):
    """Receives up to `count` messages in one request."""
    response = client.receive_queue_messages(
        channel=channel, max_messages=count, wait_timeout_in_seconds=wait, **options
    )
    assert not response.is_error, response.error
    return response


def received(client, channel):
    """What a client gets that may be unconnected, if it gets anything."""
    with contextlib.suppress(KubeMQConnectionError):
        response = client.receive_queue_messages(channel, 1, 1)
        return response if response.messages else None
    return None


def numbers(messages):
    return [number_of(message.body) for message in messages]


__all__ = [
    "EventMessage",
    "EventStoreMessage",
    "EventStoreStartPosition",
    "QueueMessage",
    "Subscription",
    "event",
    "go_live",
    "numbers",
    "pubsub",
    "queue_client",
    "queue_message",
    "queues",
    "receive",
    "received",
    "send",
    "store_event",
]
