"""A graceful end of the server: every stream ends with UNAVAILABLE, so that clients come back."""

import os
import queue
import signal
import threading

import grpc
from support import SECONDS_MAX, pb, raw_stub, unique


def test_every_stream_ends_with_unavailable():
    stub = raw_stub()
    endings = queue.Queue()
    never = queue.Queue()

    def watch(name, call):
        try:
            for _ in call:
                pass
            endings.put((name, "ended with OK"))
        except grpc.RpcError as error:
            endings.put((name, error.code()))

    def requests():
        return iter(never.get, None)

    channel = unique("shutdown")
    subscribe = dict(ClientID=unique("c"), Channel=channel)
    calls = {
        "events": stub.SubscribeToEvents(pb.Subscribe(SubscribeTypeData=1, **subscribe)),
        "store": stub.SubscribeToEvents(
            pb.Subscribe(SubscribeTypeData=2, EventsStoreTypeData=2, **subscribe)
        ),
        "commands": stub.SubscribeToRequests(pb.Subscribe(SubscribeTypeData=3, **subscribe)),
        "queries": stub.SubscribeToRequests(pb.Subscribe(SubscribeTypeData=4, **subscribe)),
        "send": stub.SendEventsStream(requests()),
        "upstream": stub.QueuesUpstream(requests()),
        "downstream": stub.QueuesDownstream(requests()),
        "transaction": stub.StreamQueueMessage(requests()),
    }
    for name in ("events", "store", "commands", "queries"):
        calls[name].initial_metadata()
    # The server has seen the streams once it has answered a later request of the same connection.
    stub.Ping(pb.Empty())
    for name, call in calls.items():
        threading.Thread(target=watch, args=(name, call), daemon=True).start()

    os.kill(int(os.environ["FLOTILLA_SERVER_PID"]), signal.SIGTERM)
    seen = dict(endings.get(timeout=SECONDS_MAX) for _ in calls)
    assert seen == dict.fromkeys(calls, grpc.StatusCode.UNAVAILABLE)
