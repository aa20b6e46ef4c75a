"""Reads everything back after the load: every topic from its first event and from other places,
every queue until it is empty.

A marker is sent first, as a message of producer 0: what was stored before it has been read when it
arrives.
"""

import argparse
import random
import uuid

from common import Journal, Nodes, Stop, make_body, make_metadata, pb, raw_stub

TOPIC_SECONDS_MAX = 120
START_COUNT = 5


def subscribe(stub, topic, kind, value):
    return stub.SubscribeToEvents(
        pb.Subscribe(
            SubscribeTypeData=pb.Subscribe.EventsStore,
            ClientID="readback-%s" % uuid.uuid4(),
            Channel=topic,
            EventsStoreTypeData=kind,
            EventsStoreTypeValue=value,
        ),
        timeout=TOPIC_SECONDS_MAX,
    )


def marker(channel, number, journal):
    journal.write("I %s %d 1" % (channel, number))
    body = make_body(0, number)
    return {"ClientID": "readback", "Channel": channel, "Body": body, "Metadata": make_metadata(body)}


def is_marker(message, number):
    return message.Body.startswith(b"0 %d " % number)


def read_topic(stub, topic, number, journal):
    result = stub.SendEvent(pb.Event(Store=True, **marker(topic, number, journal)))
    if not result.Sent:
        raise RuntimeError(result.Error)
    journal.write("A %s %d" % (topic, number))
    events, lines = [], []
    call = subscribe(stub, topic, pb.Subscribe.StartFromFirst, 0)
    for event in call:
        events.append((event.Sequence, event.Timestamp))
        lines.append(journal.received(topic, event.Sequence, event))
        if is_marker(event, number):
            break
    call.cancel()
    journal.write(*lines)
    return events


def try_starts(stub, topic, events, journal, chance):
    last = events[-1][0]

    def try_start(name, shown, kind, value, count):
        call = subscribe(stub, topic, kind, value)
        sequences = [next(call).Sequence for _ in range(count)]
        call.cancel()
        shown = " ".join(str(part) for part in (shown, *sequences))
        journal.write("S %s %s %s" % (topic, name, shown))

    try_start("first", 0, pb.Subscribe.StartFromFirst, 0, min(START_COUNT, len(events)))
    try_start("last", 0, pb.Subscribe.StartFromLast, 0, 1)
    for _ in range(5):
        sequence, timestamp = chance.choice(events)
        count = min(START_COUNT, last - sequence + 1)
        try_start("sequence", sequence, pb.Subscribe.StartAtSequence, sequence, count)
        # Events of one batch may share their time: the first of them is where it begins.
        first = next(number for number, time in events if time >= timestamp)
        count = min(START_COUNT, last - first + 1)
        try_start("time", first, pb.Subscribe.StartAtTime, timestamp, count)


def drain_queue(stub, channel, number, journal):
    message = pb.QueueMessage(**marker(channel, number, journal))
    result = stub.SendQueueMessage(message)
    if result.IsError:
        raise RuntimeError(result.Error)
    journal.write("A %s %d" % (channel, number))
    found = False
    while True:
        request = pb.ReceiveQueueMessagesRequest(
            RequestID="1",
            ClientID="readback",
            Channel=channel,
            MaxNumberOfMessages=1024,
            WaitTimeSeconds=1,
        )
        response = stub.ReceiveQueueMessages(request)
        if response.IsError:
            raise RuntimeError(response.Error)
        if response.Messages:
            journal.write(
                *(journal.received(channel, m.Attributes.Sequence, m) for m in response.Messages)
            )
            found = found or any(is_marker(m, number) for m in response.Messages)
        elif found:
            return
        else:
            raise RuntimeError("the queue %s ended before its marker" % channel)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--marker", type=int, required=True, help="number of this run's markers")
    parser.add_argument("--topic", action="append", default=[])
    parser.add_argument("--queue", action="append", default=[])
    arguments = parser.parse_args()
    journal, chance = Journal(arguments.journal), random.Random(arguments.seed)
    _, stub = raw_stub(Nodes(arguments.address).wait_for_one(Stop()))
    for topic in arguments.topic:
        events = read_topic(stub, topic, arguments.marker, journal)
        try_starts(stub, topic, events, journal, chance)
    for channel in arguments.queue:
        drain_queue(stub, channel, arguments.marker, journal)


if __name__ == "__main__":
    main()
