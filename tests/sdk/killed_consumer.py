"""Holds messages and waits to be killed: `python killed_consumer.py CHANNEL COUNT` with the client
of 3.6.0 or 4.1.5, and with `async` behind it with the asynchronous one of 4.1.5."""

import asyncio
import subprocess
import sys
import threading

from support import ADDRESS


def kill_one_that_holds(channel, count, *how):
    """Comes back when there was a client with that many messages, and is no more."""
    command = [sys.executable, "killed_consumer.py", channel, str(count), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        try:
            assert consumer.stdout.readline() == "%d\n" % count
        finally:
            consumer.kill()


def hold(channel, count):
    from kubemq.queues import Client

    client = Client(address=ADDRESS, client_id="killed")
    # 3.6.0 has another name for it.
    names = ("receive_queue_messages", "receive_queues_messages")
    receive = next(getattr(client, name) for name in names if hasattr(client, name))
    response = receive(channel=channel, max_messages=count, wait_timeout_in_seconds=10)
    print(len(response.messages), flush=True)
    # A poll is under way as well when the kill comes.
    threading.Thread(
        target=lambda: receive(channel=channel, max_messages=1, wait_timeout_in_seconds=600)
    ).start()
    threading.Event().wait()


async def hold_asynchronously(channel, count):
    from kubemq import AsyncQueuesClient

    async with AsyncQueuesClient(address=ADDRESS, client_id="killed") as client:
        response = await client.receive_queue_messages(channel, count, 10)
        print(len(response.messages), flush=True)
        await client.receive_queue_messages(channel, 1, 600)


if __name__ == "__main__":
    channel, count = sys.argv[1], int(sys.argv[2])
    if "async" in sys.argv:
        asyncio.run(hold_asynchronously(channel, count))
    hold(channel, count)
