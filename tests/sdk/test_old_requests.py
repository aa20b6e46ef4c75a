"""Commands and queries through the old SDKs: contents, groups, wildcards, time, the cache, equal ids."""

import threading
import time

import grpc
import pytest
from old import (
    KINDS,
    NO_RESPONSE,
    Initiator,
    ListenerCancellationToken,
    RequestType,
    Responder,
    Serving,
    SubscribeType,
    assert_own_order,
    await_serving,
    echo,
    own_numbers,
    request_of,
    response_to,
)
from support import (
    ADDRESS,
    COUNT,
    PEER_ADDRESS,
    SECONDS_MAX,
    at_once,
    body_of,
    number_of,
    pb,
    raw_stub,
    settle,
    status_of,
    unique,
    until,
)


def test_ping_tells_who_answers():
    for answer in (Initiator(ADDRESS).ping(), Responder(PEER_ADDRESS).ping()):
        assert answer.Host
        assert answer.Version


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_request_and_its_response_are_passed_on_as_they_are(kind, subscribe):
    channel, initiator = unique("requests"), Initiator(ADDRESS)
    with Serving(subscribe, channel, echo) as serving:
        await_serving(initiator, kind, channel, serving)
        count = COUNT // 5
        for number in range(count):
            response = initiator.send_request(request_of(kind, channel, number))
            assert number_of(response.body) == number
            assert response.metadata == "re m%d" % number
            assert response.client_id == "responder"
            assert response.executed is True
            assert response.error == "None"
            assert response.cache_hit is False
            assert not response.reply_channel
            # As told by the responder; 2.4.0 says when it came.
            assert abs(response.timestamp.timestamp() - time.time()) < 60
            # Neither of these SDKs' responders sends any.
            assert dict(response.tags) == {}
        requests = serving.inbox.now()
        assert [number_of(request.body) for request in requests] == list(range(count))
        for number, request in enumerate(requests):
            assert request.request_id
            assert request.request_type == kind.value
            assert request.client_id == "initiator"
            assert request.channel == channel
            assert request.metadata == "m%d" % number
            assert request.reply_channel
            assert request.timeout == 20_000
            assert dict(request.tags) == {"number": str(number), "ключ": "значение"}


def test_tags_and_time_of_a_response_of_another_release_are_handed_over():
    channel, tags = unique("tags"), {"key": "value", "ключ": "значение"}
    stub, told = raw_stub(PEER_ADDRESS), 1_700_000_000
    requests = stub.SubscribeToRequests(
        pb.Subscribe(SubscribeTypeData=4, ClientID="other", Channel=channel), timeout=60
    )
    requests.initial_metadata()
    responses = []
    # Tags as the pages of these SDKs write them.
    request = request_of(RequestType.Query, channel, tags=[("key", "value"), ("key2", "value2")])
    Initiator(ADDRESS).send_request_async(request, responses.append)
    asked = next(requests)
    assert dict(asked.Tags) == {"key": "value", "key2": "value2"}
    stub.SendResponse(
        pb.Response(
            ClientID="other",
            RequestID=asked.RequestID,
            ReplyChannel=asked.ReplyChannel,
            Timestamp=told,
            Executed=True,
            Tags=tags,
        )
    )
    [response] = until(lambda: responses, what="the response")
    assert dict(response.tags) == tags
    # 2.4.0 says when it came.
    assert response.timestamp.timestamp() == told or time.time() - response.timestamp.timestamp() < 60
    requests.cancel()


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_refusal_is_an_answer(kind, subscribe):
    channel, initiator = unique("refused"), Initiator(ADDRESS)

    def refuse(request):
        return response_to(request, b"", executed=False, error="not today")

    with Serving(subscribe, channel, refuse) as serving:
        await_serving(initiator, kind, channel, serving)
        response = initiator.send_request(request_of(kind, channel))
        assert (response.executed, response.error) == (False, "not today")


def test_an_answer_may_be_waited_for_elsewhere():
    channel, initiator = unique("async"), Initiator(ADDRESS)
    responses = []
    with Serving(SubscribeType.Queries, channel, echo) as serving:
        await_serving(initiator, RequestType.Query, channel, serving)
        for number in range(20):
            request = request_of(RequestType.Query, channel, number)
            initiator.send_request_async(request, responses.append)
        until(lambda: len(responses) == 20, what="all responses")
        assert sorted(number_of(response.body) for response in responses) == list(range(20))


def test_what_nobody_answers_fails_when_its_time_is_over():
    initiator = Initiator(ADDRESS)
    for kind, _ in KINDS:
        began = time.monotonic()
        request = request_of(kind, unique("nobody"), timeout=700)
        assert status_of(lambda request=request: initiator.send_request(request)) == NO_RESPONSE
        assert 0.7 <= time.monotonic() - began < 10


def test_what_is_answered_too_late_fails():
    channel, initiator = unique("late"), Initiator(ADDRESS)
    told = threading.Event()

    def late(request):
        if request.metadata != "probe":
            told.wait(30)
        return response_to(request)

    with Serving(SubscribeType.Commands, channel, late) as serving:
        await_serving(initiator, RequestType.Command, channel, serving)
        request = request_of(RequestType.Command, channel, timeout=500)
        assert status_of(lambda: initiator.send_request(request)) == NO_RESPONSE
        told.set()
        # The late answer harms nobody.
        response = initiator.send_request(request_of(RequestType.Command, channel, 1))
        assert response.executed
        assert not serving.inbox.errors


def test_requests_with_equal_ids_get_each_its_own_answer():
    channel = unique("ids")
    responses = {}

    def ask(number):
        request = request_of(RequestType.Query, channel, number, request_id="1")
        responses[number] = Initiator(ADDRESS).send_request(request)

    with Serving(SubscribeType.Queries, channel, echo) as serving:
        await_serving(Initiator(ADDRESS), RequestType.Query, channel, serving)
        at_once(ask, 20)
    assert len(responses) == 20
    for number, response in responses.items():
        assert response.request_id == "1"
        assert number_of(response.body) == number


def test_several_threads_may_share_an_initiator_and_both_kinds_a_responder():
    channel, initiator, responder = unique("shared"), Initiator(ADDRESS), Responder(PEER_ADDRESS)
    answers, count = [[] for _ in range(4)], COUNT // 20

    def ask(thread):
        kind, _ = KINDS[thread % 2]
        for number in own_numbers(thread, count):
            response = initiator.send_request(request_of(kind, channel, number))
            answers[thread].append(number_of(response.body))

    with (
        Serving(SubscribeType.Commands, channel, echo, responder=responder) as commands,
        Serving(SubscribeType.Queries, channel, echo, responder=responder) as queries,
    ):
        await_serving(initiator, RequestType.Command, channel, commands)
        await_serving(initiator, RequestType.Query, channel, queries)
        at_once(ask, 4)
        assert answers == [list(own_numbers(thread, count)) for thread in range(4)]
        assert_own_order(commands.numbers(), (0, 2), count)
        assert_own_order(queries.numbers(), (1, 3), count)


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_group_shares_requests_and_others_get_them_all(kind, subscribe):
    channel, initiator, here = unique("groups"), Initiator(ADDRESS), Responder(ADDRESS)
    with (
        Serving(subscribe, channel, echo, "g") as first,
        Serving(subscribe, channel, echo, "g", responder=here) as second,
        Serving(subscribe, channel, echo, "other") as other,
        Serving(subscribe, channel, echo, responder=here) as alone,
    ):
        await_serving(initiator, kind, channel, first, second, other, alone)
        for number in range(60):
            response = initiator.send_request(request_of(kind, channel, number))
            assert number_of(response.body) == number
        # Whoever was not the first to answer may still be at it.
        for one in (other, alone):
            one.inbox.wait(60)
            assert one.numbers() == list(range(60))
        until(lambda: len(first.numbers() + second.numbers()) >= 60, what="the group's requests")
        settle([first.inbox, second.inbox], 0.2)
        assert sorted(first.numbers() + second.numbers()) == list(range(60))
        for member in (first, second):
            assert member.numbers() == sorted(member.numbers()) != []


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_without_a_group_all_are_asked_and_the_first_answer_counts(kind, subscribe):
    channel, initiator = unique("several"), Initiator(ADDRESS)
    told = threading.Event()

    def late(request):
        if request.metadata != "probe":
            told.wait(SECONDS_MAX)
        return response_to(request, b"late", executed=False, error="late")

    with (
        Serving(subscribe, channel, late) as second,
        Serving(subscribe, channel, echo, responder=Responder(ADDRESS)) as first,
    ):
        await_serving(initiator, kind, channel, first, second)
        for number in range(20):
            response = initiator.send_request(request_of(kind, channel, number))
            assert (number_of(response.body), response.executed) == (number, True)
        told.set()
        second.inbox.wait(20)
        assert first.numbers() == second.numbers() == list(range(20))
        # When this one comes, the late answers were given, and have harmed nobody.
        assert initiator.send_request(request_of(kind, channel, 20)).client_id == "responder"
        second.inbox.wait(21)
        assert first.inbox.errors == second.inbox.errors == []


def test_wildcards_match_whole_tokens_and_groups_share():
    root, initiator = unique("wild"), Initiator(ADDRESS)
    query, queries = RequestType.Query, SubscribeType.Queries
    with (
        Serving(queries, root + ".*", echo, "g") as first,
        Serving(queries, root + ".*", echo, "g") as second,
        Serving(queries, root + ".a.>", echo) as deep,
        Serving(SubscribeType.Commands, root + ".>", echo) as commands,
    ):
        await_serving(initiator, query, root + ".a", first, second)
        await_serving(initiator, query, root + ".a.b", deep)
        await_serving(initiator, RequestType.Command, root + ".a", commands)
        for number in range(60):
            response = initiator.send_request(request_of(query, root + ".a", number))
            assert number_of(response.body) == number
        response = initiator.send_request(request_of(query, root + ".a.b.c", 99))
        assert number_of(response.body) == 99
        shared = [number_of(r.body) for one in (first, second) for r in one.inbox.now()]
        assert sorted(shared) == list(range(60))
        assert first.inbox.now() and second.inbox.now()
        assert [request.channel for request in deep.inbox.now()] == [root + ".a.b.c"]
        assert commands.inbox.now() == []


def test_a_query_with_a_key_is_answered_from_the_cache_of_its_channel():
    channels, initiator = [unique("cached"), unique("cached")], Initiator(ADDRESS)
    query = RequestType.Query

    def ask(channel, number):
        fields = {"cache_key": "k", "cache_ttl": 2}
        return initiator.send_request(request_of(query, channel, number, **fields))

    with (
        Serving(SubscribeType.Queries, channels[0], echo) as serving,
        Serving(SubscribeType.Queries, channels[1], echo) as other,
    ):
        await_serving(initiator, query, channels[0], serving)
        await_serving(initiator, query, channels[1], other)
        kept = ask(channels[0], 1)
        assert kept.cache_hit is False
        hit = ask(channels[0], 2)
        assert (hit.cache_hit, hit.body, hit.metadata) == (True, kept.body, kept.metadata)
        assert ask(channels[1], 3).body == body_of(3)
        # Without a key everything is asked.
        assert initiator.send_request(request_of(query, channels[0], 4)).body == body_of(4)
        until(lambda: not ask(channels[0], 5).cache_hit, what="the end of its time")
        asked = [number_of(request.body) for request in serving.inbox.now()]
        assert asked == [1, 4, 5]


def test_a_cancelled_responder_is_asked_no_more_and_its_group_answers():
    channel, initiator = unique("cancelled"), Initiator(ADDRESS)
    query, queries = RequestType.Query, SubscribeType.Queries
    with (
        Serving(queries, channel, echo, "g") as stays,
        Serving(queries, channel, echo, "g", ListenerCancellationToken()) as goes,
    ):
        await_serving(initiator, query, channel, stays, goes)
        goes.cancel_and_wait()

        def all_answered():
            """What is given to it before its end is known has no answer."""
            for _ in range(10):
                try:
                    initiator.send_request(
                        request_of(query, channel, timeout=500, metadata="probe")
                    )
                except grpc.RpcError as error:
                    assert (error.code(), error.details()) == NO_RESPONSE
                    return False
            return True

        until(all_answered, what="the end of the cancelled one")
        for number in range(20):
            response = initiator.send_request(request_of(query, channel, number))
            assert number_of(response.body) == number
        assert [number_of(request.body) for request in stays.inbox.now()] == list(range(20))
        assert goes.inbox.now() == []
