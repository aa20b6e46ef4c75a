"""The asynchronous queues client of 4.1.5 for `queue_worker.py`, in a loop of its own, which sees what the client keeps
to itself."""

import asyncio
import threading

import kubemq.queues.async_client
from kubemq import AsyncQueuesClient
from kubemq.queues.async_downstream_receiver import AsyncDownstreamReceiver

# A call that does not come back fails by then.
CALL_SECONDS_MAX = 30


class Watched(AsyncDownstreamReceiver):
    """Counts what the client does not tell."""

    refusals = 0
    breaks = 0

    async def _run_bidi_stream(self):
        try:
            await super()._run_bidi_stream()
        finally:
            self.breaks += 1

    async def _receive_responses(self, call):
        await super()._receive_responses(self._noted(call))

    async def _noted(self, call):
        async for response in call:
            if response.IsError:
                self.refusals += 1
            yield response


kubemq.queues.async_client.AsyncDownstreamReceiver = Watched


class Client:
    def __init__(self, address):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.client = self.within(self.connected(address))

    async def connected(self, address):
        client = AsyncQueuesClient(address=address, client_id="worker")
        await client.connect()
        return client

    def within(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(CALL_SECONDS_MAX)

    def watch(self):
        """The receiver of this client, or before it has one what is true of all."""
        return self.client._downstream_receiver or Watched

    def receive(self, channel, count, wait):
        return self.within(self.client.receive_queue_messages(channel, count, wait))

    def ack(self, message):
        self.within(message.async_ack())

    def give_back(self, message):
        self.within(message.async_nack())

    def move(self, message, channel):
        self.within(message.async_re_queue(channel))

    def close(self):
        self.within(self.client.close())
