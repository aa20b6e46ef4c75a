"""Tokens that a private key has signed, of which the server knows the public half (2.4.0, 3.6.0, 4.1.5)."""

import os
from pathlib import Path

import grpc
import pytest
from access import token
from support import ADDRESS, status_of, unique

try:
    from kubemq.queues import Client, QueueMessage
except ImportError:
    from kubemq.queue.message_queue import MessageQueue
    from old import queue_message

    Client = None

SIGNED = os.environ["FLOTILLA_SIGNED_TOKEN"]
PUBLIC_KEY = Path(os.environ["FLOTILLA_PUBLIC_KEY_FILE"]).read_bytes()


class Queue:
    """A queue, as a client with this token knows it."""

    def __init__(self, shown, name=None):
        self.name = name or unique("signed")
        if Client:
            self.client = Client(address=ADDRESS, client_id="client", auth_token=shown)
        else:
            self.client = MessageQueue(
                self.name, "client", ADDRESS, 1, 1, encryptionHeader=shown
            )

    def send(self):
        if Client:
            send = getattr(self.client, "send_queue_message", None)
            send = send or self.client.send_queues_message
            return send(QueueMessage(channel=self.name, body=b"1:", metadata="m"))
        return self.client.send_queue_message(queue_message(0))

    def take(self):
        if Client:
            return self.client.pull(self.name, 1, 1).messages
        return list(self.client.receive_queue_messages().messages)


def test_who_has_a_token_of_the_private_key_is_served():
    queue = Queue(SIGNED)
    assert not queue.send().is_error
    assert len(queue.take()) == 1
    assert queue.take() == []


def bent(shown):
    """With another signature."""
    text, signature = shown.rsplit(".", 1)
    other = "A" if signature[0] != "A" else "B"
    return "%s.%s%s" % (text, other, signature[1:])


@pytest.mark.parametrize(
    "shown",
    [bent(SIGNED), token(secret=PUBLIC_KEY), SIGNED.rsplit(".", 1)[0] + ".", "no token"],
    ids=["another signature", "signed with the public key", "not signed", "no token"],
)
def test_nobody_else_is(shown):
    queue = Queue(shown)
    code, _ = status_of(queue.take)
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert Queue(SIGNED, queue.name).take() == []
