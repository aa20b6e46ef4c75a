"""The queue streams as the wire has them: order, silence, waiting, who gets what back."""

import subprocess
import sys
import time

import pytest
from killed_consumer import kill_one_that_holds
from raw import Downstream, Type, fill, message
from support import LARGE_BODY, PEER_ADDRESS, SLOWNESS, body_of, number_of, pb, raw_stub, unique


@pytest.fixture
def stub():
    return raw_stub()


@pytest.fixture
def downstream(stub):
    stream = Downstream(stub)
    yield stream
    stream.cancel()


def test_upstream_answers_each_request_once_in_message_order(stub):
    channel = unique("queue")
    requests = [
        pb.QueuesUpstreamRequest(
            RequestID="u%d" % n, Messages=[message(channel, n * 10 + i) for i in range(10)]
        )
        for n in range(100)
    ]
    responses = {r.RefRequestID: r for r in stub.QueuesUpstream(iter(requests), timeout=60)}
    assert len(responses) == 100
    for n in range(100):
        response = responses["u%d" % n]
        assert not response.IsError
        assert [r.MessageID for r in response.Results] == [
            "id-%d" % (n * 10 + i) for i in range(10)
        ]
    request = pb.ReceiveQueueMessagesRequest(
        ClientID="c", Channel=channel, MaxNumberOfMessages=1000, WaitTimeSeconds=10
    )
    received = stub.ReceiveQueueMessages(request).Messages
    assert [number_of(m.Body) for m in received] == list(range(1000)), "one stream keeps its order"


@pytest.mark.parametrize("wanted", [0, -1, -(1 << 31), 1025, (1 << 31) - 1])
def test_a_get_of_no_proper_number_of_messages_gets_1024(stub, downstream, wanted):
    channel = unique("queue")
    fill(stub, channel, 1030)
    got = downstream.get(channel, wanted)
    assert (got.IsError, got.Error) == (False, "")
    assert [number_of(m.Body) for m in got.Messages] == list(range(1024))
    rest = downstream.get(channel, 10, wait_ms=500)
    assert [number_of(m.Body) for m in rest.Messages] == list(range(1024, 1030))


def test_settlement_is_silent_and_takes_effect_in_order(stub, downstream):
    channel = unique("queue")
    fill(stub, channel, 10)
    got = downstream.get(channel, 10)
    assert not got.IsError and not got.TransactionComplete and list(got.ActiveOffsets) == []
    assert got.TransactionId and got.RefRequestId == "r"
    sequences = [m.Attributes.Sequence for m in got.Messages]
    assert sequences == list(range(1, 11))
    # A list of sequences, not a range from one to the other.
    downstream.send(Type.AckRange, RefTransactionId=got.TransactionId, SequenceRange=[1, 4, 7])
    downstream.assert_silent()
    downstream.send(Type.ActiveOffsets, RefTransactionId=got.TransactionId)
    offsets = downstream.answer()
    assert offsets.RequestTypeData == Type.ActiveOffsets
    assert sorted(offsets.ActiveOffsets) == [2, 3, 5, 6, 8, 9, 10]
    downstream.send(Type.NAckRange, RefTransactionId=got.TransactionId, SequenceRange=[2])
    downstream.send(Type.TransactionStatus, RefTransactionId=got.TransactionId)
    assert downstream.answer().TransactionComplete is False
    downstream.send(Type.AckAll, RefTransactionId=got.TransactionId)
    back = downstream.get(channel, 1)
    assert [number_of(m.Body) for m in back.Messages] == [1]
    assert back.Messages[0].Attributes.ReceiveCount == 2


def test_auto_ack_leaves_nothing_to_settle(stub, downstream):
    channel = unique("queue")
    fill(stub, channel, 5)
    got = downstream.get(channel, 5, AutoAck=True)
    assert len(got.Messages) == 5
    downstream.send(Type.AckAll, RefTransactionId=got.TransactionId)
    assert downstream.answer().IsError
    downstream.cancel()
    other = Downstream(stub)
    assert len(other.get(channel, 1, wait_ms=500).Messages) == 0
    other.cancel()


def test_an_empty_get_is_answered_at_its_time(downstream):
    for wait_ms in (0, 50, 700):
        began = time.monotonic()
        got = downstream.get(unique("queue"), 10, wait_ms=wait_ms)
        took_ms = (time.monotonic() - began) * 1000
        assert not got.IsError and len(got.Messages) == 0
        assert wait_ms - 10 <= took_ms <= wait_ms + 250 * SLOWNESS


def test_several_gets_wait_on_one_stream(stub, downstream):
    first, second = unique("queue"), unique("queue")
    for channel in (first, second):
        downstream.send(
            Type.Get, request_id=channel, Channel=channel, MaxItems=1, WaitTimeout=20_000
        )
    stub.SendQueueMessage(message(second, 2))
    assert downstream.answer().RefRequestId == second
    stub.SendQueueMessage(message(first, 1))
    assert downstream.answer().RefRequestId == first


def test_half_close_ends_the_stream_and_gives_messages_back(stub, downstream):
    channel = unique("queue")
    fill(stub, channel, 3)
    assert len(downstream.get(channel, 3).Messages) == 3
    downstream.close()
    other = Downstream(raw_stub(PEER_ADDRESS))
    got = other.get(channel, 3)
    assert [m.Attributes.Sequence for m in got.Messages] == [1, 2, 3]
    other.cancel()


def test_a_cancelled_poll_keeps_nothing(stub):
    channel = unique("queue")
    request = pb.ReceiveQueueMessagesRequest(
        ClientID="c", Channel=channel, MaxNumberOfMessages=10, WaitTimeSeconds=60
    )
    fill(stub, channel, 3)
    call = stub.ReceiveQueueMessages.future(request)
    # It collects what is there, and waits for more, while it is cancelled.
    time.sleep(0.5)
    call.cancel()
    stream = Downstream(raw_stub(PEER_ADDRESS))
    got = stream.get(channel, 3)
    assert sorted(number_of(m.Body) for m in got.Messages) == [0, 1, 2]
    stream.cancel()


def test_messages_of_a_killed_consumer_come_back_soon(stub):
    """To a consumer at another node, if there is one."""
    channel = unique("queue")
    fill(stub, channel, 1000)
    kill_one_that_holds(channel, 1000)
    killed = time.monotonic()
    stream = Downstream(raw_stub(PEER_ADDRESS))
    got = stream.get(channel, 1000, wait_ms=10_000)
    assert [number_of(m.Body) for m in got.Messages] == list(range(1000))
    assert time.monotonic() - killed < 5
    assert {m.Attributes.ReceiveCount for m in got.Messages} == {2}
    stream.cancel()


def test_polls_of_a_killed_client_keep_nothing(stub):
    """Two of them wait for more messages than there are, the third for its first."""
    unary, downstream, transaction = (unique("queue") for _ in range(3))
    for channel in (unary, downstream):
        fill(stub, channel, 2)
    command = [sys.executable, "killed_polls.py", unary, downstream, transaction]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "polling\n"
    client.kill()
    client.wait()
    killed = time.monotonic()
    assert not stub.SendQueueMessage(message(transaction, 7)).IsError
    stream = Downstream(raw_stub(PEER_ADDRESS))
    for channel, expected in ((unary, [0, 1]), (downstream, [0, 1]), (transaction, [7])):
        got = stream.get(channel, len(expected), wait_ms=20_000)
        assert [number_of(m.Body) for m in got.Messages] == expected
        assert [m.Attributes.Sequence for m in got.Messages] == [n + 1 for n in range(len(expected))]
    assert time.monotonic() - killed < 10
    stream.cancel()


def test_many_long_polls_starve_nobody(stub):
    calls = [
        stub.ReceiveQueueMessages.future(
            pb.ReceiveQueueMessagesRequest(
                ClientID="c", Channel=unique("empty"), MaxNumberOfMessages=1, WaitTimeSeconds=30
            )
        )
        for _ in range(200)
    ]
    began = time.monotonic()
    for number in range(20):
        assert not stub.SendQueueMessage(message("busy", number)).IsError
        stub.Ping(pb.Empty())
    assert time.monotonic() - began < 10
    for call in calls:
        call.cancel()


def test_a_large_answer_is_split_below_what_new_clients_take(stub):
    """4.x clients refuse responses above 4 MiB, so a Get returns fewer messages instead."""
    channel = unique("queue")
    body = b"x" * 1_000_000
    for _ in range(6):
        assert not stub.SendQueueMessage(
            pb.QueueMessage(ClientID="c", Channel=channel, Body=body)
        ).IsError
    stream = Downstream(stub)
    count = 0
    while count < 6:
        got = stream.get(channel, 6 - count, wait_ms=10_000, AutoAck=True)
        assert 0 < len(got.Messages) <= 3
        assert got.ByteSize() < 4 << 20
        count += len(got.Messages)
    assert count == 6
    stream.cancel()


def test_a_message_of_many_megabytes_goes_through(stub):
    channel = unique("queue")
    body = LARGE_BODY
    assert not stub.SendQueueMessage(
        pb.QueueMessage(ClientID="c", Channel=channel, Body=body)
    ).IsError
    stream = Downstream(stub)
    assert stream.get(channel, 1).Messages[0].Body == body
    stream.cancel()


def test_names_of_the_patterns_are_apart(stub):
    """A queue, a stored and a plain channel of one name know nothing of each other."""
    channel = unique("same")
    stub.SendQueueMessage(message(channel, 1))
    stub.SendEvent(pb.Event(ClientID="c", Channel=channel, Body=body_of(2), Store=True))
    call = stub.SubscribeToEvents(
        pb.Subscribe(
            SubscribeTypeData=pb.Subscribe.Events, ClientID="c", Channel=channel
        ),
        timeout=30,
    )
    call.initial_metadata()
    stub.SendEvent(pb.Event(ClientID="c", Channel=channel, Body=body_of(3)))
    assert number_of(next(call).Body) == 3
    call.cancel()
    stored = stub.SubscribeToEvents(
        pb.Subscribe(
            SubscribeTypeData=pb.Subscribe.EventsStore,
            ClientID=unique("c"),
            Channel=channel,
            EventsStoreTypeData=pb.Subscribe.StartFromFirst,
        ),
        timeout=30,
    )
    event = next(stored)
    assert (number_of(event.Body), event.Sequence) == (2, 1)
    stored.cancel()
    stream = Downstream(stub)
    assert [number_of(m.Body) for m in stream.get(channel, 1).Messages] == [1]
    stream.cancel()
