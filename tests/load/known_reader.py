"""Stores some events and reads as a known client until it has the last of them, with the SDKs' own clients (of
every release); prints the sequences of what it read."""

import argparse
import threading

from common import end

try:
    from kubemq.pubsub import Client, EventsStoreSubscription, EventStoreMessage
except ImportError:
    from kubemq.events.lowlevel.event import Event
    from kubemq.events.lowlevel.sender import Sender
    from kubemq.events.subscriber import Subscriber
    from kubemq.subscription.events_store_type import EventsStoreType
    from kubemq.subscription.subscribe_request import SubscribeRequest
    from kubemq.subscription.subscribe_type import SubscribeType
    from kubemq.tools.listener_cancellation_token import ListenerCancellationToken

    Client = None
else:
    try:
        from kubemq.pubsub import EventsStoreType
    except ImportError:
        from kubemq.pubsub.events_store_subscription import (
            EventStoreStartPosition as EventsStoreType,
        )

NAME = "known"
SECONDS_MAX = 30


def store(arguments, bodies):
    """With a client of its own, which stays open."""
    if Client:
        client = Client(address=arguments.address, client_id="storing")
        send = getattr(client, "send_event_store", None) or client.send_events_store_message
        messages = [EventStoreMessage(channel=arguments.channel, body=body) for body in bodies]
    else:
        send = Sender(arguments.address).send_event
        fields = dict(channel=arguments.channel, client_id="storing", metadata="m", store=True)
        messages = [Event(body=body, **fields) for body in bodies]
    for message in messages:
        result = send(message)
        assert result.sent, result.error


def read(arguments, hear, fail):
    if Client:
        subscription = EventsStoreSubscription(
            channel=arguments.channel,
            events_store_type=EventsStoreType.StartFromFirst,
            on_receive_event_callback=hear,
            on_error_callback=fail,
        )
        client = Client(address=arguments.address, client_id=NAME)
        client.subscribe_to_events_store(subscription)
        return
    request = SubscribeRequest(
        subscribe_type=SubscribeType.EventsStore,
        client_id=NAME,
        channel=arguments.channel,
        events_store_type=EventsStoreType.StartFromFirst,
        events_store_type_value=0,
        group="",
    )
    Subscriber(arguments.address).subscribe_to_events(
        request, hear, fail, ListenerCancellationToken()
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--channel", required=True)
    parser.add_argument("--round", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    bodies = [b"%d-%d" % (arguments.round, number) for number in range(arguments.count)]
    store(arguments, bodies)
    sequences, ended, errors = [], threading.Event(), []

    def hear(event):
        sequences.append(event.sequence)
        if bytes(event.body) == bodies[-1]:
            ended.set()

    def fail(error):
        errors.append(error)
        ended.set()

    read(arguments, hear, fail)
    if not ended.wait(SECONDS_MAX) or errors:
        raise SystemExit("the last event has not come: %s %s" % (sequences, errors))
    print(*sequences)
    end()


if __name__ == "__main__":
    main()
