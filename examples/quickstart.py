"""A queue and a durable topic on one Flotilla node, through the KubeMQ SDK 4.1.5."""

import os
import threading

from kubemq.pubsub import CancellationToken, EventsStoreSubscription, EventStoreMessage
from kubemq.pubsub import Client as PubSubClient
from kubemq.pubsub import EventStoreStartPosition
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage

ADDRESS = os.environ.get("KUBEMQ_ADDRESS", "localhost:50000")

# A queue: the message is on disk when send returns, and gone after its ack.
with QueuesClient(address=ADDRESS, client_id="quickstart") as queues:
    sent = queues.send_queue_message(QueueMessage(channel="jobs", body=b"resize image 1"))
    print("sent", sent.id)
    assert not sent.is_error, sent.error
    received = queues.receive_queue_messages(
        channel="jobs", max_messages=1, wait_timeout_in_seconds=2, auto_ack=False
    )
    for message in received.messages:
        print("received", message.body.decode(), "sequence", message.sequence)
        message.ack()
    # The SDK sends acks in the background: what follows on the same client comes after them.
    left = queues.receive_queue_messages(channel="jobs", wait_timeout_in_seconds=1)
    print("left", len(left.messages))

# A durable topic: three events, then a subscriber that reads them from the first.
with PubSubClient(address=ADDRESS, client_id="quickstart") as pubsub:
    for number in range(3):
        pubsub.send_event_store(EventStoreMessage(channel="orders", body=f"order {number}".encode()))

    seen = threading.Semaphore(0)

    def on_event(event):
        print("event", event.sequence, event.body.decode())
        seen.release()

    cancel = CancellationToken()
    pubsub.subscribe_to_events_store(
        EventsStoreSubscription(
            channel="orders",
            on_receive_event_callback=on_event,
            events_store_type=EventStoreStartPosition.StartFromFirst,
        ),
        cancel,
    )
    for _ in range(3):
        assert seen.acquire(timeout=10), "an event is missing"
    cancel.cancel()
