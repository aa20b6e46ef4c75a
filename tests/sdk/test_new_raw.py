"""What only the generated stubs can ask for: error texts, what is not served, the bare streams."""

import queue
import subprocess
import sys
import threading
import time

import grpc
import pytest
from support import body_of, number_of, pb, raw_stub, status_of, unique, until

Type = pb.QueuesDownstreamRequestType
INTERNAL = grpc.StatusCode.INTERNAL


@pytest.fixture
def stub():
    return raw_stub()


class Downstream:
    """One downstream stream, with its requests and responses in the open."""

    def __init__(self, stub):
        self.requests = queue.Queue()
        self.responses = queue.Queue()
        self.call = stub.QueuesDownstream(iter(self.requests.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for response in self.call:
                self.responses.put(response)
        except grpc.RpcError as error:
            self.responses.put(error)

    def send(self, kind, request_id="r", client_id="c", **fields):
        self.requests.put(
            pb.QueuesDownstreamRequest(
                RequestID=request_id, ClientID=client_id, RequestTypeData=kind, **fields
            )
        )

    def get(self, channel, count, wait_ms=5000, **fields):
        self.send(Type.Get, Channel=channel, MaxItems=count, WaitTimeout=wait_ms, **fields)
        response = self.answer()
        assert response.RequestTypeData == Type.Get
        return response

    def answer(self, seconds=15):
        return self.responses.get(timeout=seconds)

    def assert_silent(self, seconds=0.5):
        with pytest.raises(queue.Empty):
            self.responses.get(timeout=seconds)

    def close(self):
        self.requests.put(None)

    def cancel(self):
        self.call.cancel()


@pytest.fixture
def downstream(stub):
    stream = Downstream(stub)
    yield stream
    stream.cancel()


def message(channel, number=0, **fields):
    return pb.QueueMessage(
        MessageID="id-%d" % number, ClientID="c", Channel=channel, Body=body_of(number), **fields
    )


def fill(stub, channel, count):
    batch = [message(channel, number) for number in range(count)]
    response = stub.SendQueueMessagesBatch(pb.QueueMessagesBatchRequest(Messages=batch))
    assert not response.HaveErrors


# Error texts -------------------------------------------------------------------------------------

E101 = "Error 101: invalid clientID value, cannot be empty"
E102 = "Error 102: invalid channel value, cannot be empty"
E107 = "Error 107: invalid channel value, no wildcards are allowed"
E108 = "Error 108: invalid channel value, no white spaces are allowed"
E110 = "Error 110: invalid message, cannot be empty"
E111 = "Error 111: invalid subscription type, cannot be undefined or 0"
E112 = "Error 112: invalid subscription type start at sequence value, cannot by 0 or negative"
E113 = "Error 113: invalid subscription type start at time value, cannot by 0 or negative"
E114 = "Error 114: invalid subscription type start at time delta value, cannot by 0 or negative"
E118 = "Error 118: event store parameters were set but subscribe type is not event store"
E119 = "Error 119: invalid channel value, cannot end with `.`"
E120 = (
    "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces"
    " and end with dot"
)
E122 = "Error 122: max messages should be between 1 and max message setting in kubemq config  "
E133 = (
    "Error 133: invalid expiration seconds, exceed max expiration seconds setting in kubemq config"
)
E134 = (
    "Error 134: invalid max received count, cannot be negative or exceed max receive count"
    " setting in kubemq config"
)
E135 = "Error 135: invalid delay seconds, exceed max delay seconds setting in kubemq config"
E136 = (
    "Error 136: invalid wait timeout, value cannot be negative or exceed max wait timeout seconds"
    " setting in kubemq config"
)
E206_207 = "Error 207: invalid subscribe type"

BAD_EVENTS = [
    (dict(ClientID="", Channel="", Body=b""), E101),
    (dict(ClientID="c", Channel="", Body=b"x"), E102),
    (dict(ClientID="c", Channel="a b.", Body=b"x"), E119),
    (dict(ClientID="c", Channel="a b", Body=b"x"), E108),
    (dict(ClientID="c", Channel="a *", Body=b"x"), E108),
    (dict(ClientID="c", Channel="a.*", Body=b"x"), E107),
    (dict(ClientID="c", Channel="a.>", Body=b""), E107),
    (dict(ClientID="c", Channel="a", Tags={"only": "tags"}), E110),
]


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(("fields", "text"), BAD_EVENTS)
def test_a_bad_event_is_refused_with_its_reason(stub, fields, text, store):
    event = pb.Event(EventID="bad", Store=store, **fields)
    assert status_of(lambda: stub.SendEvent(event)) == (INTERNAL, text)
    good = pb.Event(EventID="good", ClientID="c", Channel="good", Body=b"x", Store=True)
    bad_result, good_result = stub.SendEventsStream(iter([event, good]), timeout=30)
    assert (bad_result.EventID, bad_result.Sent, bad_result.Error) == ("bad", False, text)
    assert (good_result.EventID, good_result.Sent) == ("good", True), "the stream goes on"


STORE = pb.Subscribe.EventsStore
BAD_SUBSCRIPTIONS = [
    (dict(SubscribeTypeData=1, ClientID="", Channel="a"), E101),
    (dict(SubscribeTypeData=1, ClientID="c", Channel=""), E102),
    (dict(SubscribeTypeData=1, ClientID="c", Channel="a."), E119),
    (dict(SubscribeTypeData=1, ClientID="c", Channel="a b"), E108),
    (dict(SubscribeTypeData=1, ClientID="c", Channel="a", EventsStoreTypeData=2), E118),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a.*", EventsStoreTypeData=2), E107),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a.>", EventsStoreTypeData=2), E107),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a"), E111),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a", EventsStoreTypeData=4), E112),
    (
        dict(
            SubscribeTypeData=STORE,
            ClientID="c",
            Channel="a",
            EventsStoreTypeData=4,
            EventsStoreTypeValue=-1,
        ),
        E112,
    ),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a", EventsStoreTypeData=5), E113),
    (dict(SubscribeTypeData=STORE, ClientID="c", Channel="a", EventsStoreTypeData=6), E114),
    (dict(SubscribeTypeData=3, ClientID="c", Channel="a"), E206_207),
]


@pytest.mark.parametrize(("fields", "text"), BAD_SUBSCRIPTIONS)
def test_a_bad_subscription_is_refused_with_its_reason(stub, fields, text):
    call = stub.SubscribeToEvents(pb.Subscribe(**fields), timeout=30)
    assert status_of(lambda: next(call)) == (INTERNAL, text)


BAD_MESSAGES = [
    (dict(ClientID="", Channel=""), E101),
    (dict(ClientID="c", Channel="", Body=b"x"), E120),
    (dict(ClientID="c", Channel="a b", Body=b"x"), E120),
    (dict(ClientID="c", Channel="a.", Body=b"x"), E120),
    (dict(ClientID="c", Channel="a.*", Body=b"x"), E120),
    (dict(ClientID="c", Channel="a>", Body=b"x"), E120),
    (dict(ClientID="c", Channel="a", Tags={"only": "tags"}), E110),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(ExpirationSeconds=43201)), E133),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(ExpirationSeconds=-1)), E133),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(MaxReceiveCount=1025)), E134),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(MaxReceiveCount=-1)), E134),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(DelaySeconds=43201)), E135),
    (dict(ClientID="c", Channel="a", Body=b"x", Policy=dict(MaxReceiveQueue="a b")), E120),
]


@pytest.mark.parametrize(("fields", "text"), BAD_MESSAGES)
def test_a_bad_queue_message_is_refused_with_its_reason(stub, fields, text):
    policy = pb.QueueMessagePolicy(**fields.pop("Policy", {})) if "Policy" in fields else None
    bad = pb.QueueMessage(MessageID="bad", Policy=policy, **fields)
    good = message(unique("queue"))
    single = stub.SendQueueMessage(bad)
    assert (single.MessageID, single.IsError, single.Error) == ("bad", True, text)
    batch = stub.SendQueueMessagesBatch(
        pb.QueueMessagesBatchRequest(BatchID="b", Messages=[bad, good])
    )
    assert (batch.BatchID, batch.HaveErrors) == ("b", True)
    assert [(r.IsError, r.Error) for r in batch.Results] == [(True, text), (False, "")]
    request = pb.QueuesUpstreamRequest(RequestID="u", Messages=[good, bad])
    [response] = stub.QueuesUpstream(iter([request]), timeout=30)
    assert response.RefRequestID == "u"
    assert [(r.IsError, r.Error) for r in response.Results] == [(False, ""), (True, text)]


BAD_RECEIVES = [
    (dict(ClientID="", Channel="a", MaxNumberOfMessages=1), E101),
    (dict(ClientID="c", Channel="", MaxNumberOfMessages=1), E120),
    (dict(ClientID="c", Channel="a.*", MaxNumberOfMessages=1), E120),
    (dict(ClientID="c", Channel="a", MaxNumberOfMessages=0), E122),
    (dict(ClientID="c", Channel="a", MaxNumberOfMessages=1025), E122),
    (dict(ClientID="c", Channel="a", MaxNumberOfMessages=1, WaitTimeSeconds=-1), E136),
    (dict(ClientID="c", Channel="a", MaxNumberOfMessages=1, WaitTimeSeconds=3601), E136),
]


@pytest.mark.parametrize("peek", [False, True])
@pytest.mark.parametrize(("fields", "text"), BAD_RECEIVES)
def test_a_bad_receive_is_refused_with_its_reason(stub, fields, text, peek):
    request = pb.ReceiveQueueMessagesRequest(RequestID="r", IsPeak=peek, **fields)
    response = stub.ReceiveQueueMessages(request)
    assert (response.RequestID, response.IsError, response.Error) == ("r", True, text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (dict(ClientID="", Channel="a"), E101),
        (dict(ClientID="c", Channel="a b"), E120),
        (dict(ClientID="c", Channel="a", WaitTimeSeconds=3601), E136),
    ],
)
def test_a_bad_ack_all_is_refused_with_its_reason(stub, fields, text):
    response = stub.AckAllQueueMessages(pb.AckAllQueueMessagesRequest(RequestID="r", **fields))
    assert (response.RequestID, response.IsError, response.Error) == ("r", True, text)


def test_an_empty_upstream_request_is_refused(stub):
    request = pb.QueuesUpstreamRequest(RequestID="u")
    [response] = stub.QueuesUpstream(iter([request]), timeout=30)
    assert (response.RefRequestID, response.IsError) == ("u", True)
    assert response.Error == "no messages to send"


# What is not served yet --------------------------------------------------------------------------


def test_what_is_not_served_says_so(stub):
    def transaction():
        request = pb.StreamQueueMessagesRequest(
            RequestID="r", ClientID="c", Channel="a", StreamRequestTypeData=1, WaitTimeSeconds=1
        )
        return next(stub.StreamQueueMessage(iter([request])))

    request = pb.Request(
        RequestID="r", RequestTypeData=2, ClientID="c", Channel="a", Body=b"x", Timeout=1000
    )
    subscribe = pb.Subscribe(SubscribeTypeData=3, ClientID="c", Channel="a")
    reply = pb.Response(ClientID="c", RequestID="r", ReplyChannel="a")
    for call in (
        transaction,
        lambda: stub.SendRequest(request, timeout=10),
        lambda: next(stub.SubscribeToRequests(subscribe, timeout=10)),
        lambda: stub.SendResponse(reply, timeout=10),
    ):
        code, text = status_of(call)
        assert code == grpc.StatusCode.UNIMPLEMENTED
        assert text, "it says what is not served"


def test_requeue_is_refused_and_keeps_the_messages(stub, downstream):
    channel = unique("queue")
    fill(stub, channel, 2)
    got = downstream.get(channel, 2)
    for kind in (Type.ReQueueAll, Type.ReQueueRange):
        downstream.send(
            kind,
            RefTransactionId=got.TransactionId,
            ReQueueChannel=unique("target"),
            SequenceRange=[1, 2],
        )
        response = downstream.answer()
        assert response.RequestTypeData == kind
        assert response.IsError and response.Error
    downstream.cancel()
    other = Downstream(stub)
    assert len(other.get(channel, 2).Messages) == 2
    other.cancel()


# The bare streams --------------------------------------------------------------------------------


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


def test_settlement_errors_are_answered(stub, downstream):
    channel = unique("queue")
    fill(stub, channel, 3)
    got = downstream.get(channel, 3)

    def refused(kind, **fields):
        downstream.send(kind, request_id="bad", **fields)
        response = downstream.answer()
        assert response.IsError
        assert (response.RequestTypeData, response.RefRequestId) == (kind, "bad")
        return response.Error

    known = got.TransactionId
    unknown = "transaction is completed or transaction id not found"
    assert refused(Type.AckAll, RefTransactionId="nothing") == unknown
    for kind, text in ((Type.AckRange, "ack"), (Type.NAckRange, "nack")):
        assert refused(kind, RefTransactionId=known, SequenceRange=[77]) == (
            "invalid %s sequence id 77" % text
        )
        assert refused(kind, RefTransactionId=known) == (
            "cannot %s empty list of of offsets" % text
        )
    downstream.send(99, request_id="bad", RefTransactionId=known)
    response = downstream.answer()
    assert response.IsError and response.Error == "request unknown"
    # A range with a bad sequence stops there; what came before stays settled.
    assert refused(Type.AckRange, RefTransactionId=known, SequenceRange=[1, 77, 2]) == (
        "invalid ack sequence id 77"
    )
    downstream.send(Type.ActiveOffsets, RefTransactionId=known)
    assert sorted(downstream.answer().ActiveOffsets) == [2, 3]
    downstream.send(Type.AckAll, RefTransactionId=known)
    assert refused(Type.AckAll, RefTransactionId=known) in (
        unknown,
        "cannot ack messages with closed response ",
    )


def test_a_get_without_client_or_channel_is_refused(downstream):
    for fields, text in (
        (dict(client_id="", Channel="a"), E101),
        (dict(Channel=""), E120),
        (dict(Channel="a.*"), E120),
    ):
        downstream.send(Type.Get, MaxItems=1, WaitTimeout=100, **fields)
        response = downstream.answer()
        assert response.RequestTypeData == Type.Get
        assert (response.IsError, response.Error) == (True, text)


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
        assert wait_ms - 10 <= took_ms <= wait_ms + 250


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
    other = Downstream(stub)
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
    stream = Downstream(stub)
    got = stream.get(channel, 3)
    assert sorted(number_of(m.Body) for m in got.Messages) == [0, 1, 2]
    stream.cancel()


def test_messages_of_a_killed_consumer_come_back_soon(stub):
    channel = unique("queue")
    fill(stub, channel, 1000)
    consumer = subprocess.Popen(
        [sys.executable, "killed_consumer.py", channel, "1000"], stdout=subprocess.PIPE, text=True
    )
    assert consumer.stdout.readline() == "1000\n"
    consumer.kill()
    consumer.wait()
    killed = time.monotonic()
    stream = Downstream(stub)
    got = stream.get(channel, 1000, wait_ms=10_000)
    assert [number_of(m.Body) for m in got.Messages] == list(range(1000))
    assert time.monotonic() - killed < 5
    assert {m.Attributes.ReceiveCount for m in got.Messages} == {2}
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
        got = stream.get(channel, 100, wait_ms=500, AutoAck=True)
        assert 0 < len(got.Messages) <= 3
        assert got.ByteSize() < 4 << 20
        count += len(got.Messages)
    assert count == 6
    stream.cancel()


def test_a_message_of_many_megabytes_goes_through(stub):
    channel = unique("queue")
    body = bytes(range(256)) * (200_000)
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
            SubscribeTypeData=STORE,
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
