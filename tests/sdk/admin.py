"""What the admin API tells of the server that a file of tests talks to."""

import json
import os
import urllib.parse
import urllib.request

from support import until

# Where tools ask, at the same node and at the other one.
ADMIN_ADDRESS = os.environ["FLOTILLA_ADMIN_ADDRESS"]
ADMIN_PEER_ADDRESS = os.environ.get("FLOTILLA_ADMIN_PEER_ADDRESS", ADMIN_ADDRESS)


def told(path, address=ADMIN_ADDRESS):
    with urllib.request.urlopen("http://%s%s" % (address, path), timeout=30) as answer:
        return answer.read().decode()


def figures(kind, name):
    """Of a topic or queue; `kind` is `topics` or `queues`."""
    return json.loads(told("/api/v1/%s/%s" % (kind, urllib.parse.quote(name, safe=""))))


def subscribers(topic):
    return figures("topics", topic)["subscriber_count"]


def wait_until_empty(queue):
    """Until every message of a queue is settled: no SDK is told when the server has done that."""
    until(lambda: figures("queues", queue)["messages"] == 0, what="an empty queue")
