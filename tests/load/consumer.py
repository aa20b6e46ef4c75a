"""Consumes one queue through the downstream stream, and notes which removals have taken effect.

An acknowledgement has no answer of its own, but requests of one stream take effect in order: the
answer to the next request of the same stream says that the acknowledgement before it has taken
effect. This is why it works on the stream itself and not through the SDK's client, which may put a
new stream in the place of a broken one.
"""

import argparse
import queue
import uuid

import grpc
from common import Journal, Nodes, Stop, end, note, pb, raw_stub

ITEMS_MAX = 64
WAIT_MS = 300


class Downstream:
    def __init__(self, stub):
        self.requests = queue.Queue()
        self.call = stub.QueuesDownstream(iter(self.requests.get, None))

    def ask(self, **fields):
        request = pb.QueuesDownstreamRequest(
            RequestID=str(uuid.uuid4()), ClientID="consumer", **fields
        )
        self.requests.put(request)
        return request

    def close(self):
        self.requests.put(None)
        self.call.cancel()


def consume(downstream, channel, journal, stop):
    to_confirm = False
    while not stop:
        downstream.ask(
            RequestTypeData=pb.QueuesDownstreamRequestType.Get,
            Channel=channel,
            MaxItems=ITEMS_MAX,
            WaitTimeout=WAIT_MS,
        )
        response = next(downstream.call)
        if response.IsError:
            raise RuntimeError("%s: %s" % (response.RequestTypeData, response.Error))
        if to_confirm:
            journal.write("C %s" % channel)
        to_confirm = len(response.Messages) > 0
        if to_confirm:
            journal.write(
                *(
                    journal.received(channel, message.Attributes.Sequence, message)
                    for message in response.Messages
                )
            )
            downstream.ask(
                RequestTypeData=pb.QueuesDownstreamRequestType.AckAll,
                RefTransactionId=response.TransactionId,
            )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal, stop, nodes = Journal(arguments.journal), Stop(), Nodes(arguments.address)
    while not stop:
        channel, stub = raw_stub(nodes.wait_for_one(stop))
        downstream = Downstream(stub)
        try:
            consume(downstream, arguments.queue, journal, stop)
        except (grpc.RpcError, RuntimeError, StopIteration) as error:
            note(type(error).__name__, error)
            stop.pause(0.05)
        downstream.close()
        channel.close()
    end()


if __name__ == "__main__":
    main()
