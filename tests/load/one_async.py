"""The asynchronous clients of 4.1.5 for `one_client.py`, in a loop of their own."""

import asyncio
import threading

from common import note
from kubemq import AsyncCQClient, AsyncPubSubClient, AsyncQueuesClient
from kubemq.cq import (
    CommandMessage,
    CommandResponse,
    CommandsSubscription,
    QueriesSubscription,
    QueryMessage,
    QueryResponse,
)
from kubemq.pubsub import EventMessage, EventsSubscription, EventStoreMessage
from kubemq.queues import QueueMessage

TIMEOUT_SECONDS = 2
# A call that does not come back fails by then.
CALL_SECONDS_MAX = 15


class Everything:
    def __init__(self, address, channel, write):
        self.address, self.channel, self.write = address, channel, write
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.within(self.make())

    def within(self, coroutine):
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(CALL_SECONDS_MAX)

    async def make(self):
        self.queues, self.pubsub, self.asker, self.responder = (
            of_kind(address=self.address, client_id=name)
            for of_kind, name in (
                (AsyncQueuesClient, "queues"),
                (AsyncPubSubClient, "pubsub"),
                (AsyncCQClient, "asker"),
                (AsyncCQClient, "responder"),
            )
        )
        for client in (self.queues, self.pubsub, self.asker, self.responder):
            await client.connect()

    def listen(self):
        for listening in (self.hear, self.obey, self.tell):
            asyncio.run_coroutine_threadsafe(self.noted(listening), self.loop)

    async def noted(self, listening):
        """None of them is to end."""
        try:
            await listening()
            note(listening.__name__, "has ended")
        except Exception as error:
            note(listening.__name__, type(error).__name__, str(error)[:200])

    def wanted(self, of_kind, callback):
        return of_kind(channel=self.channel, **{callback: lambda _: None})

    async def hear(self):
        wanted = self.wanted(EventsSubscription, "on_receive_event_callback")
        async for event in self.pubsub.subscribe_to_events(wanted):
            self.write("E %s" % bytes(event.body).decode())

    async def obey(self):
        """Of the calls to subscribe, these are the ones that subscribe again after a break."""
        wanted = self.wanted(CommandsSubscription, "on_receive_command_callback")
        async for request in self.responder.subscribe_to_commands_fast(wanted):
            await self.respond(CommandResponse(command_received=request, is_executed=True))

    async def tell(self):
        wanted = self.wanted(QueriesSubscription, "on_receive_query_callback")
        async for request in self.responder.subscribe_to_queries_fast(wanted):
            response = QueryResponse(query_received=request, is_executed=True, body=request.body)
            await self.respond(response)

    async def respond(self, response):
        try:
            await self.responder.send_response(response)
        except Exception:
            # Whoever asked is told by the end of its time.
            return

    def send(self, number):
        self.within(self.sending(number))

    async def sending(self, number):
        message = QueueMessage(channel=self.channel, body=b"%d" % number)
        result = await self.queues.send_queue_message(message)
        if result.is_error:
            raise RuntimeError(result.error)
        self.write("A %d" % number)

    def receive(self, _):
        self.within(self.receiving())

    async def receiving(self):
        response = await self.queues.receive_queue_messages(self.channel, 10, 1)
        if response.is_error:
            raise RuntimeError(response.error)
        for message in response.messages:
            await message.async_ack()
            self.write("G %s" % bytes(message.body).decode())

    def send_event(self, number):
        event = EventMessage(channel=self.channel, body=b"%d" % number)
        self.within(self.pubsub.send_event(event))

    def store(self, number):
        self.within(self.storing(number))

    async def storing(self, number):
        event = EventStoreMessage(channel=self.channel, body=b"%d" % number)
        result = await self.pubsub.send_event_store(event)
        if not result.sent:
            raise RuntimeError(result.error)
        self.write("S %d" % number)

    def command(self, number):
        self.within(self.asking(self.asker.send_command, CommandMessage, "C", number))

    def query(self, number):
        self.within(self.asking(self.asker.send_query, QueryMessage, "Q", number))

    async def asking(self, send, of_kind, kind, number):
        message = of_kind(
            channel=self.channel, body=b"%d" % number, timeout_in_seconds=TIMEOUT_SECONDS
        )
        response = await send(message)
        if not response.is_executed:
            raise RuntimeError(response.error)
        if kind == "Q" and response.body != message.body:
            raise RuntimeError("the answer to %d is %r" % (number, response.body))
        self.write("%s %d" % (kind, number))
