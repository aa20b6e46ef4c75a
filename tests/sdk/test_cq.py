"""Commands and queries through the new SDKs: contents, groups, time, the cache, equal ids."""

import threading
import time

import pytest
from cq import (
    IS_NEWEST,
    KINDS,
    TAGS,
    Serving,
    cq_client,
    go_live,
    is_answered,
    message,
    response_to,
    send,
)
from support import COUNT, PEER_ADDRESS, Inbox, at_once, body_of, number_of, unique, until

NO_RESPONSE = "Error 301: timeout for request message"


def echo(kind):
    def answer(request):
        fields = {}
        # Command responses of 3.6.0 have no contents.
        if kind == "query" or IS_NEWEST:
            fields = {"metadata": "re " + request.metadata, "body": request.body, "tags": TAGS}
        return response_to(kind, request, **fields)

    return answer


def test_ping_tells_who_answers():
    with cq_client() as client:
        assert client.ping().host


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_and_its_response_are_passed_on_as_they_are(kind):
    channel, count = unique("requests"), COUNT // 5
    with cq_client(client_id="asker") as client, Serving(kind, channel, echo(kind)) as serving:
        go_live(client, kind, channel, serving)
        for number in range(count):
            response = send(client, message(kind, channel, number, id="id-%d" % number))
            assert response.is_executed is True
            assert response.error == ""
            assert response.request_id == "id-%d" % number
            assert response.client_id.startswith("responder")
            assert abs(response.timestamp.timestamp() - time.time()) < 60
            if kind == "query" or IS_NEWEST:
                assert number_of(response.body) == number
                assert response.metadata == "re m%d" % number
                assert response.tags == TAGS
        assert serving.numbers() == list(range(count))
        for number, request in enumerate(serving.inbox.now()):
            assert request.id == "id-%d" % number
            assert request.from_client_id == "asker"
            assert request.channel == channel
            assert request.metadata == "m%d" % number
            assert request.tags == TAGS
            assert request.reply_channel


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_an_answer(kind):
    channel = unique("refused")

    def refuse(request):
        return response_to(kind, request, is_executed=False, error="not today")

    with cq_client() as client, Serving(kind, channel, refuse) as serving:
        go_live(client, kind, channel, serving)
        response = send(client, message(kind, channel))
        assert (response.is_executed, response.error) == (False, "not today")


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_answers_fails_when_its_time_is_over(kind):
    with cq_client() as client:
        began = time.monotonic()
        with pytest.raises(Exception, match=NO_RESPONSE):
            send(client, message(kind, unique("nobody"), timeout=1))
        assert 1 <= time.monotonic() - began < 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_shares_and_the_other_kind_hears_nothing(kind):
    channel = unique("shared")
    other_kind = KINDS[1 - KINDS.index(kind)]
    with (
        cq_client() as client,
        Serving(kind, channel, echo(kind), "g") as first,
        Serving(kind, channel, echo(kind), "g") as second,
        Serving(other_kind, channel, echo(other_kind)) as other,
    ):
        go_live(client, kind, channel, first, second)
        go_live(client, other_kind, channel, other)
        for number in range(60):
            assert send(client, message(kind, channel, number)).is_executed
        assert sorted(first.numbers() + second.numbers()) == list(range(60))
        assert first.inbox.now() and second.inbox.now()
        assert other.inbox.now() == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_groups_everybody_is_asked_and_the_first_answer_counts(kind):
    channel, first_has_answered = unique("everybody"), threading.Event()

    def late(request):
        assert first_has_answered.wait(30)
        return echo(kind)(request)

    def refuse(request):
        return response_to(kind, request, is_executed=False, error="I was first")

    with (
        cq_client() as client,
        Serving(kind, channel, refuse) as first,
        Serving(kind, channel, late) as second,
    ):
        go_live(client, kind, channel, first, second)
        response = send(client, message(kind, channel, 7))
        first_has_answered.set()
        assert (response.is_executed, response.error) == (False, "I was first")
        for one in (first, second):
            assert [number_of(request.body) for request in one.inbox.wait(1)] == [7]


@pytest.mark.skipif(IS_NEWEST, reason="this SDK refuses wildcards of these subscriptions itself")
@pytest.mark.parametrize("kind", KINDS)
def test_wildcards_match_whole_tokens(kind):
    root = unique("wild")
    with (
        cq_client() as client,
        Serving(kind, root + ".*", echo(kind)) as one,
        Serving(kind, root + ".a.>", echo(kind)) as deep,
    ):
        go_live(client, kind, root + ".a", one)
        go_live(client, kind, root + ".a.b", deep)
        for number, channel in enumerate([".a", ".a.b.c", ".b", ".a.b"]):
            assert send(client, message(kind, root + channel, number)).is_executed
        for serving, expected in ((one, {".a": 0, ".b": 2}), (deep, {".a.b.c": 1, ".a.b": 3})):
            asked = {request.channel: number_of(request.body) for request in serving.inbox.now()}
            assert asked == {root + channel: number for channel, number in expected.items()}
            assert len(serving.inbox.now()) == 2
        with pytest.raises(Exception, match=NO_RESPONSE):
            send(client, message(kind, root, timeout=1))


def test_requests_with_equal_ids_get_each_its_own_answer():
    channel, responses = unique("ids"), {}
    # 3.6.0 can make clients in the main thread only.
    clients = [cq_client(client_id="same") for _ in range(20)]

    def ask(number):
        responses[number] = send(clients[number], message("query", channel, number, id="1"))

    with Serving("query", channel, echo("query")) as serving:
        go_live(clients[0], "query", channel, serving)
        at_once(ask, 20)
    for client in clients:
        client.close()
    assert len(responses) == 20
    for number, response in responses.items():
        assert response.request_id == "1"
        assert number_of(response.body) == number


def test_a_query_with_a_key_is_answered_from_the_cache_of_its_channel():
    channels = [unique("cached"), unique("cached")]
    # 3.6.0 sends milliseconds in the field of seconds: its time is too long to be waited for.
    ttl = {"cache_ttl_in_seconds": 2} if IS_NEWEST else {"cache_ttl_int_seconds": 2}

    with (
        cq_client() as client,
        Serving("query", channels[0], echo("query")) as serving,
        Serving("query", channels[1], echo("query")) as other,
    ):

        def ask(channel, number):
            return send(client, message("query", channel, number, cache_key="k", **ttl))

        go_live(client, "query", channels[0], serving)
        go_live(client, "query", channels[1], other)
        kept = ask(channels[0], 1)
        hit = ask(channels[0], 2)
        assert (hit.body, hit.metadata, hit.tags) == (kept.body, kept.metadata, kept.tags)
        assert hit.request_id != kept.request_id
        assert ask(channels[1], 3).body == body_of(3)
        assert send(client, message("query", channels[0], 4)).body == body_of(4)
        asked = [1, 4]
        if IS_NEWEST:
            assert (kept.cache_hit, hit.cache_hit) == (False, True)
            until(lambda: not ask(channels[0], 5).cache_hit, what="the end of its time")
            asked.append(5)
        assert serving.numbers() == asked


def test_a_refusal_is_not_kept_in_the_cache():
    channel = unique("cached")
    ttl = {"cache_ttl_in_seconds": 60} if IS_NEWEST else {"cache_ttl_int_seconds": 60}

    def refuse(request):
        return response_to("query", request, is_executed=False, error="not today")

    with cq_client() as client, Serving("query", channel, refuse) as serving:
        go_live(client, "query", channel, serving)
        for number in range(2):
            asked = message("query", channel, number, cache_key="k", **ttl)
            response = send(client, asked)
            assert (response.is_executed, response.error) == (False, "not today")
        assert serving.numbers() == [0, 1]


def test_a_cancelled_subscription_is_asked_no_more():
    channel = unique("cancelled")
    with cq_client() as client, Serving("query", channel, echo("query")) as serving:
        go_live(client, "query", channel, serving)
        serving.leave()
        with pytest.raises(Exception, match=NO_RESPONSE):
            while True:
                send(client, message("query", channel, timeout=1))


@pytest.mark.parametrize("kind", KINDS)
def test_another_of_its_group_takes_over_from_a_responder_that_leaves(kind):
    channel = unique("shared")
    with (
        cq_client() as client,
        Serving(kind, channel, echo(kind), "g") as leaving,
        Serving(kind, channel, echo(kind), "g") as staying,
    ):
        go_live(client, kind, channel, leaving, staying)
        leaving.leave()
        answered = []

        def probe():
            request = message(kind, channel, metadata="probe", timeout=1)
            answered.append(is_answered(client, request))

        # They take turns: it is gone when the other one was asked several times in a row.
        until(lambda: answered[-3:] == [True] * 3, probe, what="the end of the one that leaves")
        for number in range(20):
            assert send(client, message(kind, channel, number)).is_executed
        assert staying.numbers() == list(range(20))
        assert leaving.inbox.now() == []


def test_one_client_answers_commands_and_queries_at_once():
    channel, counts = unique("both"), {"command": 20, "query": 40}
    with cq_client() as client, cq_client(PEER_ADDRESS, "responder") as responder:
        serving = {kind: Serving(kind, channel, echo(kind), client=responder) for kind in KINDS}
        responses = {kind: [] for kind in KINDS}
        for kind in KINDS:
            go_live(client, kind, channel, serving[kind])

        def ask(thread):
            kind = KINDS[thread]
            for number in range(counts[kind]):
                responses[kind].append(send(client, message(kind, channel, number)))

        at_once(ask, len(KINDS))
        for kind, count in counts.items():
            assert serving[kind].numbers() == list(range(count))
            assert [response.is_executed for response in responses[kind]] == [True] * count
            assert {response.client_id for response in responses[kind]} == {"responder"}
            assert type(serving[kind].inbox.now()[0]).__name__.lower().startswith(kind)
            serving[kind].token.cancel()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_comes_too_late_is_dropped(kind):
    channel, over = unique("late"), threading.Event()

    def late(request):
        over.wait(30)
        return echo(kind)(request)

    with cq_client() as client, Serving(kind, channel, late) as serving:
        go_live(client, kind, channel, serving)
        with pytest.raises(Exception, match=NO_RESPONSE):
            send(client, message(kind, channel, 1, timeout=1))
        over.set()
        response = send(client, message(kind, channel, 2, id="second"))
        assert (response.request_id, response.is_executed) == ("second", True)
        assert serving.numbers() == [1, 2]
        assert serving.inbox.errors == []


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_made_where_none_are_given(kind):
    channel = unique("ids")
    with cq_client() as client, Serving(kind, channel, echo(kind)) as serving:
        go_live(client, kind, channel, serving)
        requests = [message(kind, channel, number) for number in range(3)]
        ids = [request.id for request in requests]
        assert all(ids) and len(set(ids)) == 3
        assert [send(client, request).request_id for request in requests] == ids
        assert [request.id for request in serving.inbox.now()] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_share_a_client_get_each_its_own_answers(kind):
    channel, threads, each = unique("threads"), 4, COUNT // 40
    answers = Inbox()

    def answer(request):
        # Where a response has no contents, this is what tells whose it is.
        return response_to(kind, request, error="of %s" % request.metadata)

    with cq_client() as client, Serving(kind, channel, answer) as serving:
        go_live(client, kind, channel, serving)

        def ask(thread):
            for number in range(thread * each, (thread + 1) * each):
                response = send(client, message(kind, channel, number))
                answers.add((number, response.is_executed, response.error))

        at_once(ask, threads)
        told = sorted(answers.wait(threads * each))
        assert told == [(number, True, "of m%d" % number) for number in range(threads * each)]
        assert sorted(serving.numbers()) == list(range(threads * each))
        for thread in range(threads):
            own = [number for number in serving.numbers() if number // each == thread]
            assert own == sorted(own)
