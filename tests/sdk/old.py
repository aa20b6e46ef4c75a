"""The classes of the old SDKs (1.1.0, 2.4.0), prepared for the tests."""

import contextlib
import datetime
import threading

import grpc
from kubemq.commandquery.lowlevel.initiator import Initiator
from kubemq.commandquery.lowlevel.request import Request
from kubemq.commandquery.request_type import RequestType
from kubemq.commandquery.responder import Responder
from kubemq.commandquery.response import Response
from kubemq.events.lowlevel.event import Event
from kubemq.events.lowlevel.sender import Sender
from kubemq.events.subscriber import Subscriber
from kubemq.queue.message import Message
from kubemq.queue.message_queue import MessageQueue
from kubemq.subscription.events_store_type import EventsStoreType
from kubemq.subscription.subscribe_request import SubscribeRequest
from kubemq.subscription.subscribe_type import SubscribeType
from kubemq.tools.listener_cancellation_token import ListenerCancellationToken
from support import ADDRESS, PEER_ADDRESS, Inbox, body_of, number_of, settle, unique, until

NO_RESPONSE = (grpc.StatusCode.INTERNAL, "Error 301: timeout for request message")
KINDS = [
    (RequestType.Command, SubscribeType.Commands),
    (RequestType.Query, SubscribeType.Queries),
]


class PatientToken:
    """A cancellation token for these SDKs, which ask it in a busy loop: it answers slowly, so that
    the loop does not take a core. Their own, `ListenerCancellationToken`, is for tests of cancelling."""

    def __init__(self):
        self.cancelled = threading.Event()

    @property
    def is_cancelled(self):
        return self.cancelled.wait(0.1)

    def cancel(self):
        self.cancelled.set()


class Cancelled:
    """Something that goes on until its token is cancelled, with the inbox it fills."""

    def __init__(self, token):
        self.inbox = Inbox()
        self.token = token or PatientToken()
        self.threads = set()

    @contextlib.contextmanager
    def starting(self):
        """Around the SDK's call, which starts threads."""
        others = set(threading.enumerate())
        yield
        started = set(threading.enumerate()) - others
        self.threads = {thread for thread in started if "subscribe" in thread.name}
        assert self.threads, "the SDK listens in a thread of this name"

    def cancel(self):
        self.token.cancel()

    def cancel_and_wait(self):
        """Comes back when the SDK has stopped listening."""
        self.cancel()
        self.wait_for_the_end()

    def wait_for_the_end(self):
        until(lambda: not any(thread.is_alive() for thread in self.threads), what="the end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()


class Subscription(Cancelled):
    """A subscription."""

    def __init__(self, request, address, token=None):
        super().__init__(token)
        with self.starting():
            Subscriber(address).subscribe_to_events(
                request, self.inbox.add, self.inbox.add_error, self.token
            )

    def numbers(self):
        """Numbers of the messages that are no probes."""
        return [number_of_event(e) for e in self.inbox.now() if e.metadata != "probe"]


def number_of_event(event):
    return int(event.metadata[1:])


def subscribe_to_events(channel, group="", client_id=None, address=ADDRESS, token=None):
    return Subscription(
        SubscribeRequest(
            subscribe_type=SubscribeType.Events,
            client_id=client_id or unique("client"),
            channel=channel,
            events_store_type=EventsStoreType.Undefined,
            events_store_type_value=0,
            group=group,
        ),
        address,
        token,
    )


def subscribe_to_store(
    channel, start, value=0, group="", client_id=None, address=ADDRESS, token=None
):
    return Subscription(
        SubscribeRequest(
            subscribe_type=SubscribeType.EventsStore,
            client_id=client_id or unique("client"),
            channel=channel,
            events_store_type=start,
            events_store_type_value=value,
            group=group,
        ),
        address,
        token,
    )


class Serving(Cancelled):
    """Somebody who answers commands or queries; the inbox is for what it was asked. Probes are answered
    and not noted."""

    def __init__(self, kind, channel, answer, group="", token=None, responder=None):
        super().__init__(token)
        self.probes = 0

        def handle(request):
            if request.metadata == "probe":
                self.probes += 1
            else:
                self.inbox.add(request)
            return answer(request)

        request = SubscribeRequest(
            subscribe_type=kind,
            client_id=unique("responder"),
            channel=channel,
            events_store_type=EventsStoreType.Undefined,
            events_store_type_value=0,
            group=group,
        )
        responder = responder or Responder(PEER_ADDRESS)
        with self.starting():
            responder.subscribe_to_requests(request, handle, self.inbox.add_error, self.token)

    def numbers(self):
        return [number_of(request.body) for request in self.inbox.now()]


def request_of(kind, channel, number=0, timeout=20_000, **fields):
    return Request(
        **{
            "request_type": kind,
            "channel": channel,
            "client_id": "initiator",
            "metadata": "m%d" % number,
            "body": body_of(number),
            "timeout": timeout,
            "cache_key": "",
            "cache_ttl": 0,
            "tags": {"number": str(number), "ключ": "значение"},
            **fields,
        }
    )


def response_to(request, body=b"OK", executed=True, error="None"):
    """As the pages of these SDKs show it: all fields are to be set."""
    response = Response(request)
    response.client_id = "responder"
    response.metadata = "re " + request.metadata
    response.body = body
    response.cache_hit = False
    response.timestamp = datetime.datetime.now()
    response.executed = executed
    response.error = error
    response.tags = request.tags
    return response


def echo(request):
    return response_to(request, request.body)


def await_serving(initiator, kind, channel, *serving):
    """Asks until each of them was asked."""

    def probe():
        request = request_of(kind, channel, timeout=300, metadata="probe")
        try:
            initiator.send_request(request)
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == NO_RESPONSE

    until(lambda: all(one.probes for one in serving), probe, what="a live responder")


def event(channel, number, store=False):
    return Event(
        channel=channel,
        client_id="sender",
        event_id="event-%d" % number,
        metadata="m%d" % number,
        body=body_of(number),
        store=store,
        tags={"number": str(number), "ключ": "значение"},
    )


def probe(sender, channel, store=False):
    """Sends an event that only shows whether a subscription is live."""
    sender.send_event(
        Event(channel=channel, client_id="probe", metadata="probe", body=b"probe", store=store)
    )


def go_live(sender, channel, *subscriptions):
    """Sends probes until each of the subscriptions has had one."""
    until(
        lambda: all(subscription.inbox.now() for subscription in subscriptions),
        lambda: probe(sender, channel),
        what="a live subscription",
    )
    settle([subscription.inbox for subscription in subscriptions], 0.2)


def queue(name=None, client_id="client-1", max_messages=1024, wait_seconds=1, address=ADDRESS):
    return MessageQueue(name or unique("queue"), client_id, address, max_messages, wait_seconds)


def queue_message(number, policy=None):
    message = Message()
    message.metadata = "m%d" % number
    message.body = body_of(number)
    message.tags = {"number": str(number)}
    message.policy = policy
    return message


def fill(q, numbers, policy=None):
    """Sends messages with these numbers, or as many."""
    for number in range(numbers) if isinstance(numbers, int) else numbers:
        assert not q.send_queue_message(queue_message(number, policy)).is_error


def numbers_of(response):
    """Those of the messages of a unary answer."""
    assert not response.is_error, response.error
    return [number_of(message.Body) for message in response.messages]


def held(transaction, visibility=60, wait=10):
    """The message that the transaction receives."""
    response = transaction.receive(visibility, wait)
    assert not response.is_error, response.error
    assert response.stream_request_type == 1
    return response.message


def well(response, kind):
    assert not response.is_error, response.error
    assert response.stream_request_type == kind


def is_free(transaction):
    """Waits until the stream has ended: only then can the transaction receive again."""
    until(lambda: not transaction.stream, seconds=10, what="the end of the stream")


def own_numbers(thread, count):
    """What one of several threads sends."""
    return range(thread * 10_000, thread * 10_000 + count)


def assert_own_order(numbers, threads, count):
    """All that these threads sent is there once, and in the order of each of them."""
    for thread in threads:
        of_thread = [number for number in numbers if number // 10_000 == thread]
        assert of_thread == list(own_numbers(thread, count))
    assert len(numbers) == len(threads) * count


__all__ = [
    "KINDS",
    "NO_RESPONSE",
    "Event",
    "EventsStoreType",
    "Initiator",
    "ListenerCancellationToken",
    "Message",
    "MessageQueue",
    "Request",
    "RequestType",
    "Responder",
    "Response",
    "Sender",
    "Serving",
    "SubscribeRequest",
    "SubscribeType",
    "Subscriber",
    "assert_own_order",
    "await_serving",
    "echo",
    "event",
    "fill",
    "go_live",
    "held",
    "is_free",
    "number_of_event",
    "numbers_of",
    "own_numbers",
    "probe",
    "queue",
    "queue_message",
    "request_of",
    "response_to",
    "subscribe_to_events",
    "subscribe_to_store",
    "well",
]
