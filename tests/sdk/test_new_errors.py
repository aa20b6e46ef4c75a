"""Refusals: the text of each, and that what comes after goes on."""

import grpc
import pytest
from error_texts import (
    E101,
    E102,
    E107,
    E108,
    E110,
    E111,
    E112,
    E113,
    E114,
    E118,
    E119,
    E120,
    E122,
    E124,
    E125,
    E126,
    E127,
    E128,
    E131,
    E132,
    E133,
    E134,
    E135,
    E136,
    E137,
    E138,
    E207,
)
from raw import Downstream, Transaction, Type, fill, message
from support import pb, raw_stub, status_of, unique

INTERNAL = grpc.StatusCode.INTERNAL


@pytest.fixture
def stub():
    return raw_stub()


@pytest.fixture
def downstream(stub):
    stream = Downstream(stub)
    yield stream
    stream.cancel()


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
    (dict(SubscribeTypeData=3, ClientID="c", Channel="a"), E207),
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


@pytest.mark.parametrize("part", ["All", "Range"])
@pytest.mark.parametrize(
    ("verb", "name"), [("Ack", "ack"), ("NAck", "nack"), ("ReQueue", "requeue")]
)
def test_what_was_acknowledged_by_being_received_cannot_be_settled(
    stub, downstream, verb, name, part
):
    channel = unique("queue")
    fill(stub, channel, 1)
    got = downstream.get(channel, 1, AutoAck=True)
    kind = getattr(Type, verb + part)
    fields = {"SequenceRange": [1]} if part == "Range" else {}
    if verb == "ReQueue":
        fields["ReQueueChannel"] = unique("queue")
    downstream.send(kind, RefTransactionId=got.TransactionId, **fields)
    response = downstream.answer()
    assert (response.RequestTypeData, response.IsError) == (kind, True)
    assert response.Error == "cannot %s messages with closed response " % name


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


@pytest.fixture
def transaction(stub):
    stream = Transaction(stub)
    yield stream
    stream.cancel()


def bad_replacements(channel):
    """Messages that may not take another one's place, as they may not be sent."""
    yield pb.QueueMessage(ClientID="c", Channel=channel, Tags={"only": "tags"}), E110
    for policy, text in (
        (dict(ExpirationSeconds=43_201), E133),
        (dict(ExpirationSeconds=-1), E133),
        (dict(MaxReceiveCount=1_025), E134),
        (dict(MaxReceiveCount=-1), E134),
        (dict(DelaySeconds=43_201), E135),
        (dict(MaxReceiveQueue="a b"), E120),
    ):
        yield message(channel, Policy=pb.QueueMessagePolicy(**policy)), text


def test_a_refused_request_of_a_transaction_leaves_its_stream_open(stub, transaction):
    queue = unique("queue")
    fill(stub, queue, 1)
    receive = dict(Channel=queue, VisibilitySeconds=60, WaitTimeSeconds=10)
    kinds = Transaction
    nothing_held = [
        (kinds.RECEIVE, dict(receive, client_id=""), E101),
        (kinds.RECEIVE, dict(receive, Channel="a.*"), E120),
        (kinds.RECEIVE, dict(receive, VisibilitySeconds=-1), E127),
        (kinds.RECEIVE, dict(receive, VisibilitySeconds=43_201), E127),
        (kinds.RECEIVE, dict(receive, WaitTimeSeconds=-1), E136),
        (kinds.RECEIVE, dict(receive, WaitTimeSeconds=3_601), E136),
        (kinds.ACK, dict(RefSequence=1), E124),
        (kinds.REJECT, dict(RefSequence=1), E137),
        (kinds.RESEND, dict(Channel="other"), E126),
        (kinds.REPLACE, dict(), E131),
        (kinds.REPLACE, dict(ModifiedMessage=message(queue)), E124),
        (0, dict(), E132),
        (7, dict(), E132),
    ]
    for kind, fields, text in nothing_held:
        assert transaction.ask(kind, **fields) == text, fields
    assert transaction.ask(kinds.RECEIVE, **receive) == ""
    one_held = [
        (kinds.RECEIVE, receive, E128),
        (kinds.ACK, dict(RefSequence=0), E125),
        (kinds.ACK, dict(RefSequence=2), E125),
        (kinds.REJECT, dict(RefSequence=2), E125),
        (kinds.EXTEND, dict(VisibilitySeconds=-1), E127),
        (kinds.EXTEND, dict(VisibilitySeconds=43_201), E127),
        (kinds.RESEND, dict(Channel="a b"), E120),
        (kinds.REPLACE, dict(), E131),
        (kinds.REPLACE, dict(ModifiedMessage=message("a b")), E120),
    ]
    one_held += [
        (kinds.REPLACE, dict(ModifiedMessage=bad), text) for bad, text in bad_replacements(queue)
    ]
    for kind, fields, text in one_held:
        assert transaction.ask(kind, **fields) == text, fields
    assert transaction.ask(kinds.ACK, RefSequence=1) == ""
    assert transaction.answer() is None, "the stream has ended with its last answer"


def test_a_transaction_without_a_message_in_time_ends(transaction):
    ask = dict(Channel=unique("queue"), VisibilitySeconds=60, WaitTimeSeconds=1)
    assert transaction.ask(Transaction.RECEIVE, **ask) == E138
    assert transaction.answer() is None, "the stream has ended with its last answer"
