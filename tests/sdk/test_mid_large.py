"""What is larger than 4 MiB, which is what gRPC takes where nobody says otherwise, through the
clients of 3.6.0; and what is larger than the server takes, or a client. Queue messages are in
test_mid_queues.py."""

import itertools

import grpc
import pytest
from cq import KINDS, Serving, cq_client, go_live, message, response_to, send
from mid import EventMessage, EventStoreMessage, Listening, pubsub, store_event
from mid import EventsStoreType as Start
from mid import go_live as events_go_live
from support import PEER_ADDRESS, body_of, number_of, unique, until

LARGE = bytes(range(256)) * (32 << 10)
# With the rest of a message this is more than the server takes.
TOO_LARGE = bytes(100 << 20)
# So that it is the server who refuses it: the SDK does so itself from 100 MiB on.
SENDS_ALL = {"max_send_size": 200 << 20}
TAKES_LITTLE = {"max_receive_size": 16 << 10}
MUCH = LARGE[: 32 << 10]


def test_a_large_event_is_passed_on():
    channel = unique("large")
    with pubsub() as client, Listening(PEER_ADDRESS).events(channel) as listening:
        events_go_live(client, channel, listening)
        client.send_events_message(EventMessage(channel=channel, metadata="m1", body=LARGE))
        until(listening.events_now, what="the event")
        assert listening.events_now()[0].body == LARGE


def test_a_large_event_is_stored_and_passed_on():
    channel = unique("large")
    large = EventStoreMessage(channel=channel, metadata="m1", body=LARGE)
    with pubsub() as client:
        result = client.send_events_store_message(large)
        assert (result.id, result.sent, result.error) == (large.id, True, "")
        with Listening(PEER_ADDRESS).store(channel, Start.StartFromFirst) as listening:
            assert listening.inbox.wait(1)[0].body == LARGE


def test_a_subscriber_that_takes_only_small_events_is_told_and_goes_on_behind_the_large_one():
    """Which may come again before, and takes along what comes on the same stream behind it."""
    channel = unique("large")
    with (
        pubsub() as client,
        Listening(**TAKES_LITTLE).store(channel, Start.StartFromFirst) as listening,
    ):
        client.send_events_store_message(store_event(channel, 1))
        listening.inbox.wait(1)
        much = EventStoreMessage(channel=channel, metadata="m2", body=MUCH)
        client.send_events_store_message(much)
        assert "larger than max" in listening.inbox.wait_error()
        numbers = itertools.count(3)
        until(
            lambda: len(listening.inbox.now()) > 1,
            lambda: client.send_events_store_message(store_event(channel, next(numbers))),
            what="an event behind it",
        )
        first, *others = listening.sequences()
        assert first == 1
        assert others == sorted(set(others)) and others[0] > 2


@pytest.mark.parametrize("kind", KINDS)
def test_large_requests_and_responses_are_passed_on(kind):
    channel = unique("large")
    # Command responses of this SDK have no contents.
    fields = {"body": LARGE[::-1]} if kind == "query" else {}

    def answer(request):
        return response_to(kind, request, **fields)

    with cq_client() as client, Serving(kind, channel, answer) as serving:
        go_live(client, kind, channel, serving)
        response = send(client, message(kind, channel, body=LARGE))
        assert response.is_executed
        assert serving.inbox.now()[0].body == LARGE
        if fields:
            assert response.body == fields["body"]


def test_a_response_that_its_client_does_not_take_fails_and_the_client_goes_on():
    channel = unique("large")

    def answer(request):
        body = MUCH if number_of(request.body) == 1 else request.body
        return response_to("query", request, body=body)

    with cq_client(**TAKES_LITTLE) as client, Serving("query", channel, answer) as serving:
        go_live(client, "query", channel, serving)
        with pytest.raises(grpc.RpcError, match="larger than max") as failure:
            send(client, message("query", channel, 1))
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert send(client, message("query", channel, 2)).body == body_of(2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_too_large_is_refused_and_the_client_goes_on(kind):
    channel = unique("large")
    with (
        cq_client(**SENDS_ALL) as client,
        Serving(kind, channel, lambda request: response_to(kind, request)) as serving,
    ):
        go_live(client, kind, channel, serving)
        with pytest.raises(grpc.RpcError) as failure:
            send(client, message(kind, channel, 1, body=TOO_LARGE))
        assert failure.value.code() == grpc.StatusCode.OUT_OF_RANGE
        assert send(client, message(kind, channel, 2)).is_executed
        assert [number_of(request.body) for request in serving.inbox.now()] == [2]


def test_an_event_that_is_too_large_goes_nowhere_and_the_client_goes_on():
    """This SDK tells nobody of it. It opens another stream, and may lose an event with the old."""
    channel = unique("large")
    with pubsub(**SENDS_ALL) as client, Listening(PEER_ADDRESS).events(channel) as listening:
        events_go_live(client, channel, listening)
        before = len(listening.inbox.now())
        client.send_events_message(EventMessage(channel=channel, metadata="m1", body=TOO_LARGE))
        probe = EventMessage(channel=channel, metadata="probe", body=b"p")

        def send_probe():
            try:
                client.send_events_message(probe)
            except Exception as error:
                assert "not connected" in str(error)

        until(lambda: len(listening.inbox.now()) > before, send_probe, what="a new stream")
        assert listening.events_now() == []


def test_a_stored_event_that_is_too_large_fails_and_another_client_goes_on():
    """This SDK fails with an error of its own: it has forgotten whom the failure concerns. A client
    whose stream broke may wait for ever for the next answer."""
    channel = unique("large")
    with pubsub(**SENDS_ALL) as client, pytest.raises(KeyError):
        client.send_events_store_message(
            EventStoreMessage(channel=channel, metadata="m1", body=TOO_LARGE)
        )
    with pubsub() as client, Listening().store(channel, Start.StartFromFirst) as listening:
        assert client.send_events_store_message(store_event(channel, 2)).sent
        listening.inbox.wait(1)
        assert listening.numbers() == [2]
