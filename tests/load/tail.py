"""Follows topics while they are written, so that what was delivered can be compared with what is
there in the end."""

import argparse
import threading
import uuid

import grpc
from common import Journal, Nodes, Stop, end, note, pb, raw_stub


def follow(nodes, topic, journal, lock, stop):
    last = 0
    while not stop:
        channel, stub = raw_stub(nodes.wait_for_one(stop))
        start = (
            (pb.Subscribe.StartAtSequence, last + 1) if last else (pb.Subscribe.StartFromFirst, 0)
        )
        call = stub.SubscribeToEvents(
            pb.Subscribe(
                SubscribeTypeData=pb.Subscribe.EventsStore,
                # A new name each time: a known one goes on where the server stopped sending, which
                # can be behind what arrived here.
                ClientID="tail-%s" % uuid.uuid4(),
                Channel=topic,
                EventsStoreTypeData=start[0],
                EventsStoreTypeValue=start[1],
            )
        )
        try:
            for event in call:
                with lock:
                    journal.write(journal.received(topic, event.Sequence, event))
                last = event.Sequence
        except grpc.RpcError as error:
            note(topic, error.code(), error.details())
            stop.pause(0.05)
        channel.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("topics", nargs="+")
    arguments = parser.parse_args()
    # What it saw promises nothing, so nothing is synced.
    journal, stop, lock = Journal(arguments.journal, sync=False), Stop(), threading.Lock()
    for home, topic in enumerate(arguments.topics):
        nodes = Nodes(arguments.address, home)
        threading.Thread(
            target=follow, args=(nodes, topic, journal, lock, stop), daemon=True
        ).start()
    stop.event.wait()
    with lock:
        end()


if __name__ == "__main__":
    main()
