"""Holds messages with the client of 3.6.0 or 4.1.5 and waits to be killed: run by test_mid_queues.py and
test_new_streams.py."""

import sys
import threading

from kubemq.queues import Client
from support import ADDRESS

channel, count = sys.argv[1], int(sys.argv[2])
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
