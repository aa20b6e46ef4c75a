"""The clients of the new SDKs (3.6.0, 4.1.5) for servers that ask who calls: with certificates and
tokens."""

import contextlib
from pathlib import Path

from access import CA_FILE, CERT_FILE, KEY_FILE, token
from cq import Serving, go_live, message, response_to, send
from kubemq.common.cancellation_token import CancellationToken
from kubemq.cq import Client as CQClient
from kubemq.cq import CommandsSubscription, QueriesSubscription
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import (
    EventMessage,
    EventsStoreSubscription,
    EventsSubscription,
    EventStoreMessage,
)
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, Inbox, unique

try:
    from kubemq.pubsub.events_store_subscription import EventStoreStartPosition

    FIRST = EventStoreStartPosition.StartFromFirst
except ImportError:
    from kubemq.pubsub import EventsStoreType

    FIRST = EventsStoreType.StartFromFirst

TLS = {
    "tls": True,
    "tls_ca_file": CA_FILE,
    "tls_cert_file": CERT_FILE,
    "tls_key_file": KEY_FILE,
}


def connected(of, who, **options):
    options = {"auth_token": token(), **TLS, **options}
    return of(address=ADDRESS, client_id=who, **options)


def opened(of, who, **options):
    """An asynchronous client, which has other names for the same files."""
    from kubemq.core.config import TLSConfig

    files = {"ca_file": CA_FILE, "cert_file": CERT_FILE, "key_file": KEY_FILE}
    tls = TLSConfig(enabled=True, **{name: Path(file) for name, file in files.items()})
    options = {"auth_token": token(), "tls": tls, **options}
    return of(address=ADDRESS, client_id=who, **options)


def call(client, *names):
    """A method that has another name in each release."""
    return next(getattr(client, name) for name in names if hasattr(client, name))


def send_event(client, channel):
    event = EventMessage(channel=channel, metadata="m", body=b"b")
    return call(client, "send_event", "send_events_message")(event)


def send_store_event(client, channel):
    event = EventStoreMessage(channel=channel, metadata="m", body=b"b")
    return call(client, "send_event_store", "send_events_store_message")(event)


def send_message(client, queue):
    sent = QueueMessage(channel=queue, body=b"b", metadata="m")
    return call(client, "send_queue_message", "send_queues_message")(sent)


def receive(client, queue, count=1):
    return call(client, "receive_queue_messages", "receive_queues_messages")(
        channel=queue, max_messages=count, wait_timeout_in_seconds=5
    )


def peek(client, queue):
    return call(client, "peek_queue_messages", "waiting")(queue, 10, 1)


def subscribe(client, kind, channel, inbox, cancel):
    callbacks = {"channel": channel, "on_error_callback": inbox.add_error}
    if kind == "events":
        wanted = EventsSubscription(on_receive_event_callback=inbox.add, **callbacks)
        client.subscribe_to_events(wanted, cancel)
    elif kind == "events_store":
        wanted = EventsStoreSubscription(
            on_receive_event_callback=inbox.add, events_store_type=FIRST, **callbacks
        )
        client.subscribe_to_events_store(wanted, cancel)
    elif kind == "command":
        wanted = CommandsSubscription(on_receive_command_callback=inbox.add, **callbacks)
        client.subscribe_to_commands(wanted, cancel)
    else:
        wanted = QueriesSubscription(on_receive_query_callback=inbox.add, **callbacks)
        client.subscribe_to_queries(wanted, cancel)


@contextlib.contextmanager
def following(of, who, kind, channel, **options):
    inbox, cancel = Inbox(), CancellationToken()
    with connected(of, who, **options) as client:
        subscribe(client, kind, channel, inbox, cancel)
        yield client, inbox
        cancel.cancel()


def assert_served(**shown):
    """That messages and stored events of those who may pass, when clients show this of themselves."""
    queue, channel = unique("open.queue"), unique("open.store")
    with (
        connected(QueuesClient, "writer", **shown) as writer,
        connected(QueuesClient, "reader", **shown) as reader,
    ):
        assert writer.ping().host
        assert not send_message(writer, queue).is_error
        assert [bytes(one.body) for one in receive(reader, queue).messages] == [b"b"]
    with connected(PubSubClient, "writer", **shown) as writer:
        assert send_store_event(writer, channel).sent
    with following(PubSubClient, "reader", "events_store", channel, **shown) as (_, inbox):
        assert bytes(inbox.wait(1)[0].body) == b"b"
        assert inbox.errors == []


def assert_requests_served(kind, **shown):
    channel, reader = unique("open"), connected(CQClient, "reader", **shown)

    def answer(request):
        return response_to(kind, request, error="of " + request.metadata)

    with (
        connected(CQClient, "writer", **shown) as writer,
        Serving(kind, channel, answer, client=reader) as serving,
    ):
        go_live(writer, kind, channel, serving)
        response = send(writer, message(kind, channel, 7))
        assert (response.is_executed, response.error) == (True, "of m7")
        assert serving.numbers() == [7]
