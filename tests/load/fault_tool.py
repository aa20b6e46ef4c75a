"""Small jobs of the fault tests, one per run; the answer is one JSON object on standard output.

fill     sends numbered events or queue messages of a fixed size, until the first refusal
read     reads a topic from its first event and tells what came
peek     looks at the messages of a queue and tells what is there
drain    takes everything out of a queue and tells what came
purge    removes everything available from a queue
"""

import argparse
import json
import random

import grpc
from common import describe, make_metadata, pb, raw_stub

PRODUCER = 1
WINDOW = 64


def body_of(number, size):
    head = b"%d %d " % (PRODUCER, number)
    return head + random.Random(number).randbytes(max(0, size - len(head)))


def fill(stub, arguments):
    """Sends windows of messages; a window with a refusal is the last."""
    acknowledged, errors = [], []
    first, end = arguments.first, arguments.first + arguments.count
    while first < end and not errors:
        numbers = range(first, min(first + WINDOW, end))
        first = numbers.stop
        fields = [(number, body_of(number, arguments.size)) for number in numbers]
        try:
            if arguments.topic:
                outcomes = send_events(stub, arguments.topic, fields)
            else:
                outcomes = send_messages(stub, arguments.queue, fields)
        except grpc.RpcError as error:
            errors.append("%s: %s" % (error.code().name, error.details()))
            break
        for number, error in outcomes:
            if error:
                errors.append(error)
            else:
                acknowledged.append(number)
    return {"acknowledged": acknowledged, "errors": errors}


def send_events(stub, topic, fields):
    events = [
        pb.Event(
            EventID=str(number),
            ClientID="fill",
            Channel=topic,
            Metadata=make_metadata(body),
            Body=body,
            Store=True,
        )
        for number, body in fields
    ]
    results = stub.SendEventsStream(iter(events), timeout=60)
    return [(int(r.EventID), "" if r.Sent else r.Error or "not sent") for r in results]


def send_messages(stub, queue, fields):
    messages = [
        pb.QueueMessage(
            MessageID=str(number),
            ClientID="fill",
            Channel=queue,
            Metadata=make_metadata(body),
            Body=body,
        )
        for number, body in fields
    ]
    response = stub.SendQueueMessagesBatch(
        pb.QueueMessagesBatchRequest(BatchID="b", Messages=messages), timeout=60
    )
    return [(int(r.MessageID), r.Error if r.IsError else "") for r in response.Results]


def read(stub, arguments):
    """Ends with the event of the last number, which must be readable."""
    call = stub.SubscribeToEvents(
        pb.Subscribe(
            SubscribeTypeData=pb.Subscribe.EventsStore,
            ClientID="read-%d" % random.randrange(10**12),
            Channel=arguments.topic,
            EventsStoreTypeData=pb.Subscribe.StartFromFirst,
        ),
        timeout=60,
    )
    seen = []
    for event in call:
        _, number, intact = describe(event)
        seen.append({"sequence": event.Sequence, "number": number, "intact": bool(intact)})
        if number == arguments.last:
            break
    call.cancel()
    return {"seen": seen}


def receive(stub, arguments, peek):
    response = stub.ReceiveQueueMessages(
        pb.ReceiveQueueMessagesRequest(
            RequestID="r",
            ClientID="receive",
            Channel=arguments.queue,
            MaxNumberOfMessages=1024,
            WaitTimeSeconds=1,
            IsPeak=peek,
        ),
        timeout=60,
    )
    if response.IsError:
        raise RuntimeError(response.Error)
    seen = []
    for message in response.Messages:
        _, number, intact = describe(message)
        sequence = message.Attributes.Sequence
        seen.append({"sequence": sequence, "number": number, "intact": bool(intact)})
    return seen


def peek(stub, arguments):
    return {"seen": receive(stub, arguments, peek=True)}


def drain(stub, arguments):
    seen = []
    while more := receive(stub, arguments, peek=False):
        seen += more
    return {"seen": seen}


def purge(stub, arguments):
    response = stub.AckAllQueueMessages(
        pb.AckAllQueueMessagesRequest(
            RequestID="r", ClientID="purge", Channel=arguments.queue, WaitTimeSeconds=1
        ),
        timeout=60,
    )
    return {"removed": response.AffectedMessages, "error": response.Error}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["fill", "read", "peek", "drain", "purge"])
    parser.add_argument("--address", required=True)
    parser.add_argument("--topic")
    parser.add_argument("--queue")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--last", type=int)
    arguments = parser.parse_args()
    _, stub = raw_stub(arguments.address)
    print(json.dumps(globals()[arguments.job](stub, arguments)))


if __name__ == "__main__":
    main()
