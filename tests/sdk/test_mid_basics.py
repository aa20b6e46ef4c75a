"""The clients of 3.6.0: events, Events Store and queues, each once through."""

from kubemq.pubsub import (
    CancellationToken,
    EventMessage,
    EventsStoreSubscription,
    EventsStoreType,
    EventsSubscription,
    EventStoreMessage,
)
from kubemq.pubsub import Client as PubSubClient
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, COUNT, Inbox, body_of, number_of, settle, unique, until


def pubsub():
    return PubSubClient(address=ADDRESS, client_id=unique("client"))


def queues():
    return QueuesClient(address=ADDRESS, client_id=unique("client"))


def test_ping():
    with pubsub() as client:
        assert client.ping().host


def test_events():
    channel, inbox, token = unique("events"), Inbox(), CancellationToken()
    with pubsub() as client:
        client.subscribe_to_events(
            EventsSubscription(
                channel=channel,
                on_receive_event_callback=inbox.add,
                on_error_callback=inbox.add_error,
            ),
            token,
        )
        probe = EventMessage(channel=channel, metadata="probe", body=b"p")
        until(inbox.now, lambda: client.send_events_message(probe))
        settle([inbox], 0.2)
        for number in range(COUNT):
            client.send_events_message(
                EventMessage(channel=channel, metadata="m", body=body_of(number), tags={"a": "b"})
            )
        until(lambda: sum(e.metadata == "m" for e in inbox.now()) >= COUNT)
        events = [e for e in inbox.now() if e.metadata == "m"]
        assert [number_of(e.body) for e in events] == list(range(COUNT))
        assert all(e.tags["a"] == "b" and e.channel == channel for e in events)
        token.cancel()


def test_events_store():
    """From the first event only: a start sequence or time breaks this SDK's own validation."""
    channel, inbox, token = unique("store"), Inbox(), CancellationToken()
    with pubsub() as client, pubsub() as reader:
        for number in range(COUNT):
            result = client.send_events_store_message(
                EventStoreMessage(channel=channel, metadata="m", body=body_of(number))
            )
            assert result.sent, result.error
        reader.subscribe_to_events_store(
            EventsStoreSubscription(
                channel=channel,
                events_store_type=EventsStoreType.StartFromFirst,
                on_receive_event_callback=inbox.add,
                on_error_callback=inbox.add_error,
            ),
            token,
        )
        events = inbox.wait(COUNT)
        assert [e.sequence for e in events] == list(range(1, COUNT + 1))
        assert [number_of(e.body) for e in events] == list(range(COUNT))
        token.cancel()


def test_queues():
    channel = unique("queue")
    with queues() as client:
        for number in range(COUNT):
            result = client.send_queues_message(
                QueueMessage(channel=channel, metadata="m", body=body_of(number), tags={"a": "b"})
            )
            assert not result.is_error, result.error
        waiting = client.waiting(channel, 10, 1)
        assert [number_of(m.body) for m in waiting.messages] == list(range(10))
        response = client.receive_queues_messages(
            channel=channel, max_messages=COUNT // 2, wait_timeout_in_seconds=10
        )
        assert not response.is_error
        assert [number_of(m.body) for m in response.messages] == list(range(COUNT // 2))
        assert all(m.receive_count == 1 and m.tags["a"] == "b" for m in response.messages)
        response.messages[0].reject()
        for message in response.messages[1:]:
            message.ack()
        pulled = client.pull(channel, COUNT // 2 + 1, 10)
        assert [number_of(m.body) for m in pulled.messages] == [*range(COUNT // 2, COUNT), 0]
