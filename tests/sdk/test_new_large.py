"""Messages of more than 4 MiB through the clients of the newest SDK (4.1.5). These neither send nor
receive them where nobody says more: `max_send_size` and `max_receive_size` are 4 MiB each."""

import grpc
import pytest
from admin import wait_until_free
from cq import KINDS, Serving, cq_client, message, response_to, send
from cq import go_live as ask_until_live
from kubemq import ClientConfig
from large import ALMOST, DISCONNECTED, LARGE, TAKES_ALL, large, number_shown, shown
from new import (
    EventMessage,
    EventStoreMessage,
    QueueMessage,
    Subscription,
    event,
    go_live,
    numbers,
    pubsub,
    queue_message,
    queues,
    receive,
    received,
    store_event,
)
from new import EventStoreStartPosition as Start
from new import send as fill
from support import PEER_ADDRESS, SECONDS_MAX, number_of, status_of, unique, until


def queues_that_take_all():
    # They wait two seconds for an answer where nobody says more.
    return queues(address=PEER_ADDRESS, send_timeout=SECONDS_MAX, **TAKES_ALL)


def put(client, message):
    result = client.send_queue_message(message)
    assert not result.is_error, result.error


def taken(client, channel, count):
    """As many messages, from several answers: a large one comes alone."""
    messages = []

    def more():
        wanted = count - len(messages)
        messages.extend(receive(client, channel, wanted, auto_ack=True).messages)

    until(lambda: len(messages) >= count, more)
    return messages


def is_refused(function):
    """By the client itself."""
    code, text = status_of(function)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in text


def test_clients_take_4_mib_where_nobody_says_more():
    config = ClientConfig()
    assert (config.max_send_size, config.max_receive_size) == (4 << 20, 4 << 20)
    queue, channel = unique("queue"), unique("store")
    with queues(send_timeout=SECONDS_MAX) as client, queues(address=PEER_ADDRESS) as other:
        put(client, large(QueueMessage, queue, 1, body=ALMOST))
        for peek_or_pull in (other.peek_queue_messages, other.pull):
            assert [one.body for one in peek_or_pull(queue, 1, 10).messages] == [ALMOST]
        put(client, large(QueueMessage, queue, 2, body=ALMOST))
        [one] = receive(other, queue, 1, auto_ack=True).messages
        assert (one.metadata, one.body) == ("m2", ALMOST)
    with pubsub() as client, Subscription(address=PEER_ADDRESS) as reading:
        assert client.send_event_store(large(EventStoreMessage, channel, 1, body=ALMOST)).sent
        reading.store(channel, Start.StartFromFirst)
        assert [one.body for one in reading.inbox.wait(1)] == [ALMOST]


def test_a_receive_that_is_refused_gives_back_all_that_its_client_holds():
    channel = unique("queue")
    with queues_that_take_all() as other, queues() as client:
        fill(other, channel, 2)
        put(other, large(QueueMessage, channel, 2))
        put(other, queue_message(channel, 3))
        held = receive(client, channel, 2)
        assert numbers(held.messages) == [0, 1]
        refused = client.receive_queue_messages(channel, 2, 10)
        assert (refused.is_error, refused.error) == (True, DISCONNECTED)
        assert refused.messages == []
        wait_until_free(channel)
        # Each in its old place.
        left = taken(other, channel, 4)
        assert shown(left) == [(1, 2, 0), (2, 2, 1), (3, 2, 2), (4, 1, 3)]


def test_a_message_that_is_refused_again_and_again_becomes_a_dead_letter_and_the_client_goes_on():
    channel, dead = unique("queue"), unique("dead")
    policy = {"max_receive_count": 2, "max_receive_queue": dead}
    with queues_that_take_all() as other, queues() as client:
        put(other, large(QueueMessage, channel, 1, **policy))
        put(other, queue_message(channel, 2))
        response = until(lambda: received(client, channel), what="what is behind it")
        assert shown(response.messages) == [(2, 1, 2)]
        response.ack_all()
        [letter] = receive(other, dead, 1, auto_ack=True).messages
        assert (letter.body, letter.re_route_from_queue) == (LARGE, channel)
        put(client, queue_message(channel, 3))
        assert shown(taken(client, channel, 1)) == [(3, 1, 3)]


def test_a_peek_that_is_refused_takes_nothing():
    channel = unique("queue")
    with queues_that_take_all() as other, queues() as client:
        fill(other, channel, 1)
        put(other, large(QueueMessage, channel, 1))
        put(other, queue_message(channel, 2))
        assert numbers(client.peek_queue_messages(channel, 3, 1).messages) == [0]
        assert shown(taken(client, channel, 1)) == [(1, 1, 0)]
        for _ in range(2):
            is_refused(lambda: client.peek_queue_messages(channel, 3, 1))
        assert shown(taken(other, channel, 1)) == [(2, 1, 1)]
        assert numbers(client.peek_queue_messages(channel, 3, 1).messages) == [2]
        assert shown(taken(client, channel, 1)) == [(3, 1, 2)]


def test_a_pull_that_is_refused_harms_no_other_message():
    """The large one is gone if the connection took all of it before the client refused it, which is
    rare; else it is in its old place."""
    channel = unique("queue")
    with queues_that_take_all() as other, queues() as client:
        put(other, large(QueueMessage, channel, 0))
        is_refused(lambda: client.pull(channel, 2, 1))
        wait_until_free(channel)
        left = receive(other, channel, 1, wait=1, auto_ack=True).messages
        assert shown(left) in ([(1, 2, 0)], [])
        put(other, queue_message(channel, 1))
        assert numbers(client.pull(channel, 2, 1).messages) == [1]


def test_a_large_event_breaks_a_subscription_that_comes_back():
    channel = unique("events")
    taking_all = Subscription(client=pubsub(address=PEER_ADDRESS, **TAKES_ALL))
    with pubsub(**TAKES_ALL) as client, Subscription() as small, taking_all as other:
        small.events(channel)
        other.events(channel)
        go_live(client, channel, small, other)
        client.send_event(event(channel, 1))
        client.send_event(large(EventMessage, channel, 2))
        assert "larger than max" in small.inbox.wait_error()
        assert small.numbers() == [1]
        client.send_event(event(channel, 3))
        until(lambda: len(other.numbers()) >= 3, what="all events")
        got = [one for one in other.inbox.now() if one.metadata != "probe"]
        assert [number_shown(one) for one in got] == [1, 2, 3]
        small.inbox.items.clear()
        go_live(client, channel, small)
        client.send_event(event(channel, 4))
        until(lambda: 4 in small.numbers(), what="the next event")
        assert 2 not in small.numbers()


def test_a_large_stored_event_breaks_a_subscription_and_others_read_on():
    """Who reads on under the same name does so at the large one, or behind it and behind what was
    on its way then."""
    channel, name = unique("store"), unique("reader")
    with pubsub(**TAKES_ALL) as client:
        for sent in (
            store_event(channel, 1),
            large(EventStoreMessage, channel, 2),
            store_event(channel, 3),
        ):
            assert client.send_event_store(sent).sent
        with Subscription(name).store(channel, Start.StartFromFirst) as small:
            assert "larger than max" in small.inbox.wait_error()
            assert small.numbers() == [1]
        with Subscription() as behind:
            behind.store(channel, Start.StartAtSequence, events_store_sequence_value=3)
            assert [number_shown(one) for one in behind.inbox.wait(1)] == [3]
        reads_all = Subscription(client=pubsub(address=PEER_ADDRESS, **TAKES_ALL))
        with reads_all.store(channel, Start.StartFromFirst) as other:
            assert [number_shown(one) for one in other.inbox.wait(3)] == [1, 2, 3]
        with Subscription(client=pubsub(name, **TAKES_ALL)) as again:
            again.store(channel, Start.StartFromFirst)
            assert client.send_event_store(store_event(channel, 4)).sent
            until(lambda: 4 in again.numbers(), what="the last event")
            assert again.sequences() in ([2, 3, 4], [3, 4], [4])


def test_a_response_that_its_client_refuses_fails_and_the_client_goes_on():
    channel = unique("query")

    def answer(request):
        body = LARGE if number_of(request.body) == 1 else request.body
        return response_to("query", request, body=body)

    responder = cq_client(PEER_ADDRESS, **TAKES_ALL)
    with cq_client() as client, Serving("query", channel, answer, client=responder) as serving:
        ask_until_live(client, "query", channel, serving)
        is_refused(lambda: send(client, message("query", channel, 1)))
        assert number_of(send(client, message("query", channel, 2)).body) == 2
        assert serving.numbers() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_request_breaks_a_responder_that_comes_back(kind):
    channel = unique(kind)

    def answer(request):
        return response_to(kind, request, body=request.body)

    with cq_client(**TAKES_ALL) as client, Serving(kind, channel, answer) as serving:
        ask_until_live(client, kind, channel, serving)
        code, text = status_of(
            lambda: send(client, message(kind, channel, 1, body=LARGE, timeout=1))
        )
        assert (code, text) == (grpc.StatusCode.INTERNAL, "Error 301: timeout for request message")
        assert "larger than max" in serving.inbox.wait_error()
        serving.probes = 0
        ask_until_live(client, kind, channel, serving)
        assert number_of(send(client, message(kind, channel, 2)).body) == 2
        assert serving.numbers() == [2]


def test_clients_that_take_more_pass_large_messages():
    queue = unique("queue")
    batch = [large(QueueMessage, queue, number) for number in (3, 4)]
    with queues_that_take_all() as other, queues(**TAKES_ALL) as client:
        put(other, large(QueueMessage, queue, 1))
        assert not other.send_queue_message_simple(large(QueueMessage, queue, 2)).is_error
        assert not other.send_queue_messages_batch(batch).have_errors
        for _ in range(2):
            [peeked] = client.peek_queue_messages(queue, 4, 1).messages
            assert number_shown(peeked) == 1
        assert [number_shown(one) for one in client.pull(queue, 4, 1).messages] == [1]
        assert shown(taken(client, queue, 3)) == [(2, 1, 2), (3, 1, 3), (4, 1, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_clients_that_take_more_pass_large_requests_and_responses(kind):
    channel = unique(kind)

    def answer(request):
        return response_to(kind, request, body=request.body[::-1])

    responder = cq_client(PEER_ADDRESS, **TAKES_ALL)
    with (
        cq_client(**TAKES_ALL) as client,
        Serving(kind, channel, answer, client=responder) as serving,
    ):
        ask_until_live(client, kind, channel, serving)
        response = send(client, message(kind, channel, 1, body=LARGE))
        assert (response.is_executed, response.body) == (True, LARGE[::-1])
        assert [request.body for request in serving.inbox.now()] == [LARGE]
