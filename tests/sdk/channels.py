"""Channel management of the new SDKs (3.6.0, 4.1.5), and what fills channels, prepared for the
tests."""

from cq import IS_NEWEST, Serving, cq_client, response_to
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import EventMessage
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, unique

if IS_NEWEST:
    from new import EventStoreStartPosition as Start
    from new import Subscription as Listening
else:
    from mid import EventsStoreType as Start
    from mid import Listening

CLIENTS = {
    "events": PubSubClient,
    "events_store": PubSubClient,
    "commands": None,
    "queries": None,
    "queues": QueuesClient,
}
REQUESTS = {"commands": "command", "queries": "query"}


def open_client(kind, address=ADDRESS):
    if CLIENTS[kind] is None:
        return cq_client(address)
    return CLIENTS[kind](address=address, client_id=unique("client"))


def call(client, operation, kind, argument):
    ending = "channels" if operation == "list" else "channel"
    return getattr(client, "%s_%s_%s" % (operation, kind, ending))(argument)


def the_one(client, kind, channel):
    """The list of this channel alone."""
    (found,) = call(client, "list", kind, channel)
    assert (found.name, found.type) == (channel, kind)
    return found


def serving(kind, channel):
    one = REQUESTS[kind]
    return Serving(one, channel, lambda request: response_to(one, request))


def send_event(client, channel, metadata):
    send = client.send_event if IS_NEWEST else client.send_events_message
    send(EventMessage(channel=channel, metadata=metadata, body=b"x"))


def send_to_queue(client, channel, **policy):
    send = client.send_queue_message if IS_NEWEST else client.send_queues_message
    assert not send(QueueMessage(channel=channel, body=b"x", **policy)).is_error


def receive_from_queue(client, channel, count):
    receive = client.receive_queue_messages if IS_NEWEST else client.receive_queues_messages
    response = receive(channel=channel, max_messages=count, wait_timeout_in_seconds=10)
    assert len(response.messages) == count, response.error
    return response


def of_queue(one_way):
    return (one_way.messages, one_way.volume, one_way.waiting, one_way.expired, one_way.delayed)


__all__ = [
    "CLIENTS",
    "REQUESTS",
    "Listening",
    "Start",
    "call",
    "of_queue",
    "open_client",
    "receive_from_queue",
    "send_event",
    "send_to_queue",
    "serving",
    "the_one",
]
