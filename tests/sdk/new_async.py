"""The asynchronous clients of the newest SDK (4.1.5), prepared for the tests."""

import asyncio

from cq import TAGS, message, response_to
from cq import subscription as subscription_to
from kubemq import AsyncCQClient, AsyncPubSubClient, AsyncQueuesClient, QueryMessage
from kubemq.pubsub import EventsStoreSubscription, EventsSubscription
from support import ADDRESS, PEER_ADDRESS, SECONDS_MAX, unique


def pubsub(address=ADDRESS, **options):
    return AsyncPubSubClient(address=address, client_id=unique("async"), **options)


def queues(address=ADDRESS, **options):
    return AsyncQueuesClient(address=address, client_id=unique("async"), **options)


def asking(**options):
    return AsyncCQClient(address=ADDRESS, client_id="asker", **options)


def answering(address=PEER_ADDRESS, **options):
    return AsyncCQClient(address=address, client_id="responder", **options)


def to_events(channel, group=None):
    return EventsSubscription(
        channel=channel, group=group, on_receive_event_callback=lambda _: None
    )


def to_stored(channel, start, group=None, **value):
    return EventsStoreSubscription(
        channel=channel,
        group=group,
        events_store_type=start,
        on_receive_event_callback=lambda _: None,
        **value,
    )


async def collect(events, into):
    async for one in events:
        into.append(one)


async def reached(condition):
    async def wait():
        while not condition():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(wait(), SECONDS_MAX)


async def stopped(*tasks):
    """Comes back when all of them have ended. A cancellation that meets the end of a call is lost:
    such a task is cancelled again."""
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.1)
    await asyncio.gather(*tasks, return_exceptions=True)


async def cancelled(token, *tasks):
    """The same, with what they go on by."""
    token.cancel()
    await stopped(*tasks)


def subscription(kind, channel, group=None):
    return subscription_to(kind, channel, lambda _: None, group=group)


def answer_to(kind, request):
    return response_to(
        kind, request, metadata="re " + request.metadata, body=request.body, tags=TAGS
    )


def requests_to(client, kind, channel, group=None):
    wanted = subscription(kind, channel, group)
    if kind == "command":
        return client.subscribe_to_commands(wanted)
    return client.subscribe_to_queries(wanted)


async def serve(client, kind, channel, heard, group=None, answer=answer_to):
    """Answers until it is cancelled."""
    async for request in requests_to(client, kind, channel, group):
        heard.append(request)
        await client.send_response(answer(kind, request))


def ask(client, request):
    is_query = isinstance(request, QueryMessage)
    return (client.send_query if is_query else client.send_command)(request)


async def go_live(client, kind, channel, *heard):
    """Asks until each of them was asked."""
    while not all(heard):
        try:
            await ask(client, message(kind, channel, metadata="probe", timeout=1))
        except Exception as error:
            assert "time" in str(error).lower(), error
    for requests in heard:
        requests.clear()
