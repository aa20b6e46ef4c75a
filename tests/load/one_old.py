"""The objects of 1.1.0 and 2.4.0 for `one_client.py`. What these SDKs leave to the application is done here: a
subscription that ended is asked for again, of the same object, and the stream of a transaction that failed is closed.
"""

import datetime
import threading
import time

from common import note
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

TIMEOUT_MS = 2_000
VISIBILITY_SECONDS = 60
NOTHING = "Error 138"


class UntilToldOtherwise:
    """A token that these SDKs ask in a busy loop: it answers slowly, so that the loop takes no core."""

    def __init__(self):
        self.is_over = False

    @property
    def is_cancelled(self):
        time.sleep(0.1)
        return self.is_over


class Everything:
    def __init__(self, address, channel, write):
        self.channel, self.write = channel, write
        self.queue = MessageQueue(channel, "queue", address, 10, 1)
        self.transaction = self.queue.create_transaction()
        self.sender, self.subscriber = Sender(address), Subscriber(address)
        self.initiator, self.responder = Initiator(address), Responder(address)

    def listen(self):
        def heard(event):
            self.write("E %s" % event.body.decode())

        subscribe_to_requests = self.responder.subscribe_to_requests
        for subscribe, kind, handle in (
            (self.subscriber.subscribe_to_events, SubscribeType.Events, heard),
            (subscribe_to_requests, SubscribeType.Commands, self.answer),
            (subscribe_to_requests, SubscribeType.Queries, self.answer),
        ):
            arguments = (subscribe, kind, handle)
            threading.Thread(target=self.subscribe, args=arguments, daemon=True).start()

    def subscribe(self, subscribe, kind, handle):
        request = SubscribeRequest(
            subscribe_type=kind,
            client_id="listener",
            channel=self.channel,
            events_store_type=EventsStoreType.Undefined,
            events_store_type_value=0,
            group="",
        )
        while True:
            token, over = UntilToldOtherwise(), threading.Event()

            def failed(error, over=over):
                note("told", kind, str(error)[:200])
                over.set()

            listening = subscribe(request, handle, failed, token)
            # A responder of 1.1.0 is told nothing: its thread ends. Its subscriber gives no thread, and is told.
            if listening is None:
                over.wait()
            else:
                listening.join()
            token.is_over = True
            time.sleep(0.2)

    def answer(self, request):
        response = Response(request)
        response.client_id, response.metadata, response.body = "listener", "re", request.body
        response.cache_hit, response.executed, response.error = False, True, "None"
        response.timestamp, response.tags = datetime.datetime.now(), request.tags
        return response

    def send(self, number):
        message = Message()
        message.metadata, message.body = "m", b"%d" % number
        result = self.queue.send_queue_message(message)
        if result.is_error:
            raise RuntimeError(result.error)
        self.write("A %d" % number)

    def receive(self, _):
        while self.transaction.stream:
            # It is free once the end of the stream has been seen.
            time.sleep(0.001)
        try:
            self.take_one()
        except Exception:
            # Of one that failed at once the end may never be seen.
            if self.transaction.stream:
                self.transaction.close_stream()
            raise

    def take_one(self):
        response = self.transaction.receive(VISIBILITY_SECONDS, 1)
        if response.is_error:
            if response.error.startswith(NOTHING):
                return
            raise RuntimeError(response.error)
        # Before it is acknowledged: the answer to that may be lost with the server.
        self.write("G %s" % response.message.Body.decode())
        response = self.transaction.ack_message(response.message.Attributes.Sequence)
        if response.is_error:
            raise RuntimeError(response.error)

    def send_event(self, number):
        self.sender.send_event(self.event(number, store=False))

    def store(self, number):
        result = self.sender.send_event(self.event(number, store=True))
        if not result.sent:
            raise RuntimeError(result.error)
        self.write("S %d" % number)

    def event(self, number, store):
        return Event(
            channel=self.channel, client_id="sender", metadata="m", body=b"%d" % number, store=store
        )

    def command(self, number):
        self.ask(RequestType.Command, number)
        self.write("C %d" % number)

    def query(self, number):
        response = self.ask(RequestType.Query, number)
        if response.body != b"%d" % number:
            raise RuntimeError("the answer to %d is %r" % (number, response.body))
        self.write("Q %d" % number)

    def ask(self, kind, number):
        request = Request(
            request_type=kind,
            channel=self.channel,
            client_id="asker",
            metadata="m",
            body=b"%d" % number,
            timeout=TIMEOUT_MS,
            cache_key="",
            cache_ttl=0,
        )
        response = self.initiator.send_request(request)
        if not response.executed:
            raise RuntimeError(response.error)
        return response
