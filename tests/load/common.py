"""What the load scripts share: messages that can be checked, the journal, raw connections.

A message names its producer and number in the body and carries a checksum of the body as metadata,
so that whoever reads it can tell whether it is the one that was sent. The journal's format is
described in tests/src/journal.rs.
"""

import argparse
import os
import queue
import random
import socket
import sys
import threading
import time
import zlib

import grpc
from kubemq.grpc import kubemq_pb2 as pb
from kubemq.grpc import kubemq_pb2_grpc

MESSAGE_BYTES_MAX = 3000
# For a call that was under way when the test ended.
BACK_WITHIN_SECONDS = 20
# A broken connection is tried again soon: the server is killed every second or two.
RAW_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # This is how long an attempt may take, which is no short time on a busy machine.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 100 << 20),
    # A node that does not even answer pings is left.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
]


def make_body(producer, number):
    noise = random.Random(producer * 1_000_003 + number)
    return b"%d %d " % (producer, number) + noise.randbytes(noise.randrange(MESSAGE_BYTES_MAX))


def make_metadata(body):
    return "%08x" % zlib.crc32(body)


def describe(message):
    """Producer, number and whether the message is intact, of anything with Body and Metadata."""
    head = message.Body.split(b" ", 2)
    try:
        producer, number = int(head[0]), int(head[1])
    except (ValueError, IndexError):
        return 0, 0, 0
    intact = message.Metadata == make_metadata(message.Body)
    return producer, number, int(intact)


def queue_arguments(**more):
    """Of a client of one queue that has a node as its home; more options by name and kind."""
    parser = argparse.ArgumentParser()
    options = {"address": str, "home": int, "queue": str, "journal": str, **more}
    for option, kind in options.items():
        parser.add_argument("--" + option, type=kind, required=True)
    return parser.parse_args()


class Journal:
    """Lines on disk; with `sync`, what `write` returned from survives the machine as well."""

    def __init__(self, path, sync=True):
        self.sync = sync
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *lines):
        data = "".join(line + "\n" for line in lines).encode()
        while data:
            data = data[os.write(self.file, data):]
        if self.sync:
            os.fdatasync(self.file)

    def received(self, channel, sequence, message):
        return "M %s %d %d %d %d" % (channel, sequence, *describe(message))


class Stop:
    """Set when standard input closes: the test is over or gone."""

    def __init__(self):
        self.event = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while os.read(0, 4096):
            pass
        self.event.set()

    def __bool__(self):
        return self.event.is_set()

    def pause(self, seconds):
        self.event.wait(seconds)


class Nodes:
    """The addresses of all nodes, separated by commas, with one of them as the home of the client."""

    def __init__(self, addresses, home=0):
        self.addresses = addresses.split(",")
        self.next = home

    def wait_for_one(self, stop):
        """The address of a node that listens: another one each time, if there are several."""
        while not stop:
            address = self.addresses[self.next % len(self.addresses)]
            self.next += 1
            host, port = address.rsplit(":", 1)
            try:
                socket.create_connection((host, int(port)), 1).close()
            except OSError:
                stop.pause(0.02)
            else:
                return address
        return self.addresses[0]


def raw_stub(address):
    channel = grpc.insecure_channel(address, options=RAW_OPTIONS)
    return channel, kubemq_pb2_grpc.kubemqStub(channel)


def call_within(seconds, function):
    """Runs a call of the SDK that may never come back; raises TimeoutError then.

    The sync SDK waits without a limit for results that a broken stream has lost.
    """
    box = queue.Queue()

    def run():
        try:
            box.put((function(), None))
        except BaseException as error:  # the caller is told, whatever it is
            box.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError("no answer after %s s" % seconds) from None
    if error is not None:
        raise error
    return value


def either(of, *names):
    """What has another name in each release of the SDK."""
    return next(getattr(of, name) for name in names if hasattr(of, name))


def run_until(stop, work, arguments):
    """Runs a thread for each of these arguments until the test is over; fails if one hangs in a call then."""
    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in arguments]
    for thread in threads:
        thread.start()
    stop.event.wait()
    for thread in threads:
        thread.join(BACK_WITHIN_SECONDS)
        if thread.is_alive():
            raise SystemExit("a call has not come back after %d s" % BACK_WITHIN_SECONDS)
    end()


def note(*words):
    """For the script's log, which a failing test shows."""
    print("%.3f" % time.time(), *words, file=sys.stderr, flush=True)


def end():
    """Ends at once: the SDK's threads may still wait for a server that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
