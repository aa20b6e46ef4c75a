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
    message,
    response_to,
    send,
)
from support import COUNT, at_once, body_of, number_of, unique, until

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
        requests = serving.inbox.now()
        assert [number_of(request.body) for request in requests] == list(range(count))
        for number, request in enumerate(requests):
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
        shared = [number_of(r.body) for one in (first, second) for r in one.inbox.now()]
        assert sorted(shared) == list(range(60))
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
def test_wildcards_match_whole_tokens():
    root = unique("wild")
    with (
        cq_client() as client,
        Serving("query", root + ".*", echo("query")) as one,
        Serving("query", root + ".a.>", echo("query")) as deep,
    ):
        go_live(client, "query", root + ".a", one)
        go_live(client, "query", root + ".a.b", deep)
        send(client, message("query", root + ".a", 1))
        send(client, message("query", root + ".a.b.c", 2))
        assert [request.channel for request in one.inbox.now()] == [root + ".a"]
        assert [request.channel for request in deep.inbox.now()] == [root + ".a.b.c"]


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
        assert [number_of(request.body) for request in serving.inbox.now()] == asked


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
        assert [number_of(request.body) for request in serving.inbox.now()] == [0, 1]


def test_a_cancelled_subscription_is_asked_no_more():
    channel = unique("cancelled")
    with cq_client() as client, Serving("query", channel, echo("query")) as serving:
        go_live(client, "query", channel, serving)
        serving.token.cancel()
        serving.client.close()
        with pytest.raises(Exception, match=NO_RESPONSE):
            while True:
                send(client, message("query", channel, timeout=1))
