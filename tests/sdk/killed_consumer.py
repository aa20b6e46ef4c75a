"""Holds messages and waits to be killed: run by test_new_streams.py."""

import sys
import threading

from new import queues

channel, count = sys.argv[1], int(sys.argv[2])
client = queues("killed")
response = client.receive_queue_messages(
    channel=channel, max_messages=count, wait_timeout_in_seconds=10
)
print(len(response.messages), flush=True)
# A poll is under way as well when the kill comes.
threading.Thread(
    target=lambda: client.receive_queue_messages(
        channel=channel, max_messages=1, wait_timeout_in_seconds=600
    )
).start()
threading.Event().wait()
