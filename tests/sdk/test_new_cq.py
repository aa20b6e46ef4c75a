"""Commands and queries through the native async client of the newest SDK, and the raw stubs."""

import asyncio

import grpc
import pytest
from cq import TAGS, message
from error_texts import E101, E102, E107, E108, E109, E115, E116, E117, E119, E206, E207
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from new_async import answer_to, answering, asking, go_live, serve, stopped, subscription
from support import PEER_ADDRESS, number_of, pb, raw_stub, status_of, unique

INTERNAL = grpc.StatusCode.INTERNAL
BATCH = 100


async def serve_fast(client, kind, channel, heard, token):
    """The same by the calls without measurements, which end with their token only."""
    requests = (
        client.subscribe_to_commands_fast(subscription(kind, channel), token)
        if kind == "command"
        else client.subscribe_to_queries_fast(subscription(kind, channel), token)
    )
    async for request in requests:
        heard.append(request)
        await client.send_response_fast(answer_to(kind, request))


async def serve_by_callback(client, kind, channel, heard, token):
    """The same by a callback, for several requests at a time."""

    async def answer(request):
        heard.append(request)
        await client.send_response(answer_to(kind, request))

    subscribe = (
        client.subscribe_commands_with_callback
        if kind == "command"
        else client.subscribe_queries_with_callback
    )
    await subscribe(
        subscription(kind, channel),
        answer,
        cancellation_token=token,
        max_concurrent_callbacks=4,
    )


@pytest.mark.parametrize("kind", ["command", "query"])
def test_the_async_client_asks_and_answers(kind):
    channel, heard = unique("async"), []

    async def run():
        async with asking() as client, answering() as responder:
            task = asyncio.create_task(serve(responder, kind, channel, heard))
            await asyncio.wait_for(go_live(client, kind, channel, heard), 30)
            requests = [message(kind, channel, number) for number in range(BATCH)]
            if kind == "command":
                one = await client.send_command(message(kind, channel, BATCH))
                many = await client.send_commands_batch(requests)
            else:
                one = await client.send_query(message(kind, channel, BATCH))
                many = await client.send_queries_batch(requests)
            await stopped(task)
            return [*many, one]

    responses = asyncio.run(run())
    assert len(responses) == BATCH + 1
    for number, response in enumerate(responses):
        assert response.is_executed, response.error
        assert number_of(response.body) == number
        assert response.metadata == "re m%d" % number
        assert response.tags == TAGS
    assert sorted(number_of(request.body) for request in heard) == list(range(BATCH + 1))


def test_the_async_client_is_answered_from_the_cache():
    channel, heard = unique("async"), []

    async def run():
        async with asking() as client, answering() as responder:
            task = asyncio.create_task(serve(responder, "query", channel, heard))
            await asyncio.wait_for(go_live(client, "query", channel, heard), 30)

            async def ask(number, **cache):
                return await client.send_query(message("query", channel, number, **cache))

            cache = {"cache_key": "k", "cache_ttl_in_seconds": 60}
            responses = [await ask(0, **cache), await ask(1, **cache), await ask(2)]
            await stopped(task)
            return responses

    responses = asyncio.run(run())
    assert [number_of(response.body) for response in responses] == [0, 0, 2]
    assert [response.cache_hit for response in responses] == [False, True, False]
    assert [number_of(request.body) for request in heard] == [0, 2]


@pytest.mark.parametrize("serving", [serve_fast, serve_by_callback])
@pytest.mark.parametrize("kind", ["command", "query"])
def test_the_calls_without_measurements_and_with_callbacks(kind, serving):
    channel, heard = unique("fast"), []

    async def run():
        async with asking() as client, answering() as responder:
            token = AsyncCancellationToken()
            task = asyncio.create_task(serving(responder, kind, channel, heard, token))
            await asyncio.wait_for(go_live(client, kind, channel, heard), 30)
            send = client.send_command_fast if kind == "command" else client.send_query_fast
            asked = [send(message(kind, channel, number)) for number in range(BATCH)]
            responses = await asyncio.gather(*asked)
            token.cancel()
            await asyncio.wait_for(task, 30)
            return responses

    responses = asyncio.run(run())
    assert [number_of(response.body) for response in responses] == list(range(BATCH))
    for number, response in enumerate(responses):
        assert response.is_executed, response.error
        assert (response.metadata, response.tags) == ("re m%d" % number, TAGS)
    assert sorted(number_of(request.body) for request in heard) == list(range(BATCH))


@pytest.fixture
def stub():
    return raw_stub()


BAD_REQUESTS = [
    (dict(RequestTypeData=0), E206),
    (dict(RequestTypeData=3), E206),
    (dict(ClientID=""), E101),
    (dict(Channel=""), E102),
    (dict(Channel="a b."), E119),
    (dict(Channel="a *"), E108),
    (dict(Channel="a\u2003b"), E108),
    (dict(Channel="a.*"), E107),
    (dict(Channel="a.>"), E107),
    (dict(Timeout=0), E109),
    (dict(Timeout=-1), E109),
    (dict(Body=b"", Tags={"k": "v"}), E115),
    (dict(CacheKey="k"), E116),
    (dict(CacheKey="k", CacheTTL=-1), E116),
    (dict(RequestTypeData=1, CacheKey="k"), E116),
    (dict(ClientID="", Channel="", Timeout=0, Body=b""), E101),
    (dict(Channel="a", Timeout=0, Body=b"", CacheKey="k"), E109),
    (dict(Body=b"", CacheKey="k"), E115),
]


@pytest.mark.parametrize("fields, text", BAD_REQUESTS)
def test_a_bad_request_is_internal_with_its_text(stub, fields, text):
    right = dict(RequestTypeData=2, ClientID="c", Channel="a", Body=b"x", Timeout=1000)
    request = pb.Request(**{**right, **fields})
    assert status_of(lambda: stub.SendRequest(request, timeout=10)) == (INTERNAL, text)


BAD_SUBSCRIPTIONS = [
    (dict(SubscribeTypeData=0), E207),
    (dict(SubscribeTypeData=1), E207),
    (dict(SubscribeTypeData=2), E207),
    (dict(ClientID=""), E101),
    (dict(Channel=""), E102),
    (dict(Channel="a."), E119),
    (dict(Channel="a b"), E108),
]


@pytest.mark.parametrize("fields, text", BAD_SUBSCRIPTIONS)
def test_a_bad_subscription_is_internal_with_its_text(stub, fields, text):
    right = dict(SubscribeTypeData=3, ClientID="c", Channel="a")
    request = pb.Subscribe(**{**right, **fields})
    calling = stub.SubscribeToRequests(request, timeout=10)
    assert status_of(lambda: next(calling)) == (INTERNAL, text)


BAD_RESPONSES = [
    (dict(ClientID=""), E101),
    (dict(ReplyChannel=""), E102),
    (dict(ReplyChannel="a."), E119),
    (dict(ReplyChannel="a b"), E108),
    (dict(ReplyChannel="a.*"), E107),
    (dict(RequestID=""), E117),
]


@pytest.mark.parametrize("fields, text", BAD_RESPONSES)
def test_a_bad_response_is_internal_with_its_text(stub, fields, text):
    right = dict(ClientID="c", RequestID="r", ReplyChannel="_INBOX-1", Executed=True)
    response = pb.Response(**{**right, **fields})
    assert status_of(lambda: stub.SendResponse(response, timeout=10)) == (INTERNAL, text)


def test_a_response_to_nothing_is_taken_and_dropped(stub):
    for channel in ("_INBOX-1", "1-2-3", "1-ffff-0"):
        response = pb.Response(ClientID="c", RequestID="r", ReplyChannel=channel, Executed=True)
        assert stub.SendResponse(response, timeout=10) == pb.Empty()


@pytest.mark.parametrize("kind, subscribe", [(1, 3), (2, 4)])
def test_span_time_and_error_are_passed_through_other_connections(stub, kind, subscribe):
    channel = unique("raw")
    responder, other = raw_stub(PEER_ADDRESS), raw_stub()
    requests = responder.SubscribeToRequests(
        pb.Subscribe(SubscribeTypeData=subscribe, ClientID="r", Channel=channel), timeout=60
    )
    requests.initial_metadata()
    request = pb.Request(
        RequestTypeData=kind, ClientID="c", Channel=channel, Body=b"x", Timeout=20_000
    )
    request.Span = b"\x00span"
    asking = stub.SendRequest.future(request, timeout=30)
    received = next(requests)
    assert received.RequestID, "one was made"
    assert (received.Span, received.Timeout) == (b"\x00span", 20_000)
    # A responder of an old release says seconds, and something beside a success.
    other.SendResponse(
        pb.Response(
            ClientID="r",
            RequestID=received.RequestID,
            ReplyChannel=received.ReplyChannel,
            Metadata="m",
            Body=b"y",
            CacheHit=True,
            Timestamp=1_700_000_000,
            Executed=True,
            Error="None",
            Span=b"back",
        ),
        timeout=10,
    )
    assert asking.result() == pb.Response(
        ClientID="r",
        RequestID=received.RequestID,
        Metadata="m",
        Body=b"y",
        Timestamp=1_700_000_000,
        Executed=True,
        Error="None",
        Span=b"back",
    )
    requests.cancel()


def test_a_responder_that_leaves_may_still_answer(stub):
    channel = unique("left")
    responder = raw_stub(PEER_ADDRESS)
    requests = responder.SubscribeToRequests(
        pb.Subscribe(SubscribeTypeData=4, ClientID="r", Channel=channel), timeout=60
    )
    requests.initial_metadata()
    request = pb.Request(
        RequestTypeData=2, ClientID="c", Channel=channel, Body=b"x", Timeout=20_000
    )
    asking = stub.SendRequest.future(request, timeout=30)
    received = next(requests)
    requests.cancel()
    response = pb.Response(
        ClientID="r",
        RequestID=received.RequestID,
        ReplyChannel=received.ReplyChannel,
        Executed=True,
    )
    with pytest.raises(grpc.FutureTimeoutError):
        asking.result(timeout=0.5)
    raw_stub(PEER_ADDRESS).SendResponse(response, timeout=10)
    assert asking.result().Executed
