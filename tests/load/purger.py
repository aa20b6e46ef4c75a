"""Fills a queue of its own and purges it again and again, and notes which purges were confirmed."""

import argparse
import random

import grpc
from common import Journal, Nodes, Stop, end, make_body, make_metadata, note, pb, raw_stub

BATCH = 20
CALL_SECONDS_MAX = 10


def fill(stub, arguments, journal, first):
    numbers = range(first, first + BATCH)
    journal.write("I %s %d %d" % (arguments.queue, first, BATCH))
    messages = []
    for number in numbers:
        body = make_body(arguments.producer, number)
        messages.append(
            pb.QueueMessage(
                # The old SDKs number their messages in each process, so ids collide.
                MessageID=str(number % 7),
                ClientID="purger",
                Channel=arguments.queue,
                Metadata=make_metadata(body),
                Body=body,
            )
        )
    request = pb.QueueMessagesBatchRequest(BatchID="1", Messages=messages)
    response = stub.SendQueueMessagesBatch(request, timeout=CALL_SECONDS_MAX)
    good = [n for n, result in zip(numbers, response.Results, strict=True) if not result.IsError]
    if good:
        journal.write(*("A %s %d" % (arguments.queue, number) for number in good))
    return good


def purge(stub, arguments, journal, newest, acknowledged):
    journal.write("P %s %d" % (arguments.queue, newest))
    request = pb.AckAllQueueMessagesRequest(
        RequestID="1", ClientID="purger", Channel=arguments.queue, WaitTimeSeconds=1
    )
    response = stub.AckAllQueueMessages(request, timeout=CALL_SECONDS_MAX)
    if response.IsError:
        raise RuntimeError(response.Error)
    if acknowledged:
        journal.write(*("G %s %d" % (arguments.queue, number) for number in acknowledged))
        acknowledged.clear()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--producer", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--journal", required=True)
    arguments = parser.parse_args()
    journal, stop, chance = Journal(arguments.journal), Stop(), random.Random(arguments.seed)
    first, acknowledged, nodes = 1, [], Nodes(arguments.address)
    while not stop:
        channel, stub = raw_stub(nodes.wait_for_one(stop))
        try:
            while not stop:
                first += BATCH
                acknowledged += fill(stub, arguments, journal, first - BATCH)
                if chance.random() < 0.7:
                    purge(stub, arguments, journal, first - 1, acknowledged)
        except (grpc.RpcError, RuntimeError) as error:
            note(type(error).__name__, error)
            stop.pause(0.05)
        channel.close()
    end()


if __name__ == "__main__":
    main()
