"""What the SDK tests share: the server's address, names of their own, waiting with a deadline.

The server is started by the Rust tests (tests/tests/sdk.rs), one for each file. To run a file by
hand: FLOTILLA_ADDRESS=127.0.0.1:50000 .local/venv-4.1.5/bin/python -m pytest tests/sdk/FILE
"""

import asyncio
import hashlib
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
from kubemq.grpc import kubemq_pb2 as pb
from kubemq.grpc import kubemq_pb2_grpc

ADDRESS = os.environ["FLOTILLA_ADDRESS"]
# Where those connect who answer what is asked at ADDRESS, who share a group with others there, and who
# come back later: in a cluster another node.
PEER_ADDRESS = os.environ.get("FLOTILLA_PEER_ADDRESS", ADDRESS)
# For anything that should come at once; a loaded machine may be slow.
SECONDS_MAX = 30
# How many messages make many. A cluster, where each takes longer, is given fewer.
COUNT = int(os.environ.get("FLOTILLA_TEST_COUNT", "1000"))
# How many times slower than usual the machine is, for times that are promised of usual ones.
SLOWNESS = int(os.environ.get("FLOTILLA_TEST_SLOWNESS", "1"))
# About 50 MB, which the SDKs wait for no longer on a machine that is slower.
LARGE_BODY = bytes(range(256)) * (200_000 // SLOWNESS)


def unique(prefix):
    """A channel or client name that no other test uses."""
    return "%s-%s" % (prefix, uuid.uuid4().hex[:12])


def body_of(number):
    """A body that tells its number and is not text."""
    return b"%d:" % number + bytes(range(256))[: number % 256]


def number_of(body):
    number = int(bytes(body).split(b":", 1)[0])
    assert body == body_of(number), "the body is not the one that was sent"
    return number


def numbered(kind, channel, number):
    """What the new SDKs' messages are made of."""
    return dict(
        channel=channel,
        id="%s-%d" % (kind, number),
        metadata="m%d" % number,
        body=body_of(number),
        tags={"number": str(number), "ключ": "значение"},
    )


def md5_of(body):
    return hashlib.md5(body).hexdigest()


class Inbox:
    """Collects what callbacks deliver, and waits for it."""

    def __init__(self):
        self.condition = threading.Condition()
        self.items = []
        self.errors = []

    def add(self, item):
        with self.condition:
            self.items.append(item)
            self.condition.notify_all()

    def add_error(self, error):
        with self.condition:
            self.errors.append(error)
            self.condition.notify_all()

    def wait(self, count, seconds=SECONDS_MAX):
        """The items, once there are `count`; fails after the deadline."""
        with self.condition:
            enough = self.condition.wait_for(lambda: len(self.items) >= count, seconds)
            assert enough, "%d of %d arrived; errors: %s" % (len(self.items), count, self.errors)
            return list(self.items)

    def wait_error(self, seconds=SECONDS_MAX):
        with self.condition:
            assert self.condition.wait_for(lambda: self.errors, seconds), "no error arrived"
            return self.errors[0]

    def now(self):
        with self.condition:
            return list(self.items)


def until(condition, action=None, seconds=SECONDS_MAX, what="the condition"):
    """Repeats `action` until `condition` gives something true, and gives that back."""
    deadline = time.monotonic() + seconds
    while True:
        if action is not None:
            action()
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "%s did not come true in %s s" % (what, seconds)
        time.sleep(0.02)


def resumed(subscribe):
    """A subscription of a known client that goes on where it was.

    Until the server has seen the end of the one before, another one stands beside it and begins with the first
    event: then it is tried again.
    """

    def attempt():
        subscription = subscribe()
        if subscription.inbox.wait(1)[0].sequence > 1:
            return subscription
        subscription.__exit__()
        return None

    return until(attempt, what="the end of the subscription before")


def at_once(work, count, seconds=SECONDS_MAX):
    """Does `work` for each of the numbers below `count`, all at once."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)


def run_async(coroutine):
    """In a thread of its own: a loop that is over leaves the main thread without one, and there 3.6.0 then
    makes no client."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def settle(inboxes, seconds=0.5):
    """Comes back when nothing has arrived for a while: the time in which a wrong extra delivery
    would show."""
    before, quiet_since = None, time.monotonic()
    while time.monotonic() - quiet_since < seconds:
        counts = [len(inbox.now()) for inbox in inboxes]
        if counts != before:
            before, quiet_since = counts, time.monotonic()
        time.sleep(0.02)


def raw_stub(address=ADDRESS):
    """The generated stub, without the client classes of the SDK."""
    options = [("grpc.max_receive_message_length", 100 << 20)]
    channel = grpc.insecure_channel(address, options=options)
    return kubemq_pb2_grpc.kubemqStub(channel)


def status_of(function):
    """The status code and text that a call fails with."""
    try:
        function()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")


def store_events(channel, numbers, stub=None):
    """Stores numbered events through one stream, and checks each result."""
    stub = stub or raw_stub()
    events = [
        pb.Event(
            EventID="event-%d" % number,
            ClientID="store",
            Channel=channel,
            Metadata="m%d" % number,
            Body=body_of(number),
            Store=True,
        )
        for number in numbers
    ]
    results = list(stub.SendEventsStream(iter(events), timeout=SECONDS_MAX))
    assert [(r.EventID, r.Sent, r.Error) for r in results] == [
        (event.EventID, True, "") for event in events
    ]
