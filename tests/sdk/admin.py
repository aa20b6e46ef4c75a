"""What the admin API tells of the server that a file of tests talks to, and is asked to do."""

import json
import os
import urllib.parse
import urllib.request

from support import until

# Where tools ask, at the same node and at the other one.
ADMIN_ADDRESS = os.environ["FLOTILLA_ADMIN_ADDRESS"]
ADMIN_PEER_ADDRESS = os.environ.get("FLOTILLA_ADMIN_PEER_ADDRESS", ADMIN_ADDRESS)


def answered(request):
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def told(path, address=ADMIN_ADDRESS):
    return answered("http://%s%s" % (address, path))


def path_of(kind, name):
    """Of a topic or queue; `kind` is `topics` or `queues`."""
    return "/api/v1/%s/%s" % (kind, urllib.parse.quote(name, safe=""))


def figures(kind, name):
    return json.loads(told(path_of(kind, name)))


def set_up(kind, name, **settings):
    """Makes it, or gives it other settings; what is not named is as the node has it by default."""
    url = "http://%s%s" % (ADMIN_ADDRESS, path_of(kind, name))
    request = urllib.request.Request(url, json.dumps(settings).encode(), method="PUT")
    request.add_header("Content-Type", "application/json")
    answered(request)


def subscribers(topic):
    return figures("topics", topic)["subscriber_count"]


def wait_until_empty(queue):
    """Until every message of a queue is settled: no SDK is told when the server has done that."""
    until(lambda: figures("queues", queue)["messages"] == 0, what="an empty queue")


def wait_until_free(queue):
    """Until nobody holds any of its messages: they come back a little after their client left."""
    until(lambda: figures("queues", queue)["leased"] == 0, what="a queue that nobody holds")
