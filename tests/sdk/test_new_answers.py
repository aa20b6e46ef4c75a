"""Requests of the newest SDK's asynchronous client: groups, errors of responders, refusals, and
what nobody answers."""

import asyncio
import time

import pytest
from cq import KINDS, TAGS, message, response_to
from error_texts import E115, E301
from kubemq.core.exceptions import ErrorCode, KubeMQError, KubeMQTimeoutError
from new_async import (
    answer_to,
    answering,
    ask,
    asking,
    collect,
    go_live,
    reached,
    requests_to,
    serve,
    stopped,
)
from support import ADDRESS, number_of, run_async, unique

# This client gives up when the server does: whoever is first tells it.
GIVEN_UP = {
    KubeMQTimeoutError: "Request timed out after 1s",
    KubeMQError: E301,
}
TIMED_OUT = tuple(GIVEN_UP.values())


def asked(heard):
    return [number_of(request.body) for request in heard if request.metadata != "probe"]


async def ask_many(client, kind, requests):
    if kind == "command":
        return await client.send_commands_batch(requests)
    return await client.send_queries_batch(requests)


async def answered(client, kind, channel, requests, answer):
    """What a responder answers in its own way."""
    async with answering() as responder:
        heard = []
        task = asyncio.create_task(serve(responder, kind, channel, heard, answer=answer))
        await go_live(client, kind, channel, heard)
        responses = await ask_many(client, kind, requests)
        await stopped(task)
        return responses


@pytest.mark.parametrize("kind", KINDS)
def test_each_request_goes_to_one_member_of_each_group(kind):
    channel, heard = unique("group"), [[], [], []]
    groups = ["g", "g", "other"]

    async def run():
        async with asking() as client, answering() as first, answering(ADDRESS) as second:
            serving = [
                asyncio.create_task(serve(one, kind, channel, into, group))
                for one, into, group in zip((first, second, first), heard, groups, strict=True)
            ]
            await go_live(client, kind, channel, *heard)
            requests = [message(kind, channel, number) for number in range(100)]
            responses = await ask_many(client, kind, requests)
            # One of each group answers, and the first answer counts.
            await reached(lambda: len(asked(heard[2])) >= 100)
            await reached(lambda: len(asked(heard[0] + heard[1])) >= 100)
            await stopped(*serving)
            return responses

    responses = run_async(asyncio.wait_for(run(), 60))
    assert [number_of(response.body) for response in responses] == list(range(100))
    assert all(response.is_executed for response in responses)
    first, second, other = (asked(one) for one in heard)
    assert sorted(first + second) == sorted(other) == list(range(100))
    assert first and second, "both members have some"


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_in_a_response_is_an_answer(kind, executed):
    channel = unique("refused")

    def answer(kind, request):
        fields = {"metadata": request.metadata, "body": request.body, "tags": TAGS}
        return response_to(kind, request, is_executed=executed, error="сегодня нет", **fields)

    async def run():
        async with asking() as client:
            requests = [message(kind, channel, n, id="id-%d" % n) for n in range(5)]
            return await answered(client, kind, channel, requests, answer)

    for number, response in enumerate(run_async(run())):
        assert (response.is_executed, response.error) == (executed, "сегодня нет")
        assert (response.request_id, response.client_id) == ("id-%d" % number, "responder")
        assert (response.metadata, response.tags) == ("m%d" % number, TAGS)
        assert number_of(response.body) == number


# What this SDK lets through: tags alone, and names of any length.
REFUSED = [
    ({"metadata": None, "body": b""}, E115),
    ({"channel": "x" * 65_536}, " name has 65536 bytes, at most 65535 are allowed"),
]


@pytest.mark.parametrize(("fields", "text"), REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_of_the_server_is_an_error_with_its_text(kind, fields, text):
    request = message(kind, **{"channel": unique("refused"), **fields})

    async def run():
        async with asking() as client:
            with pytest.raises(KubeMQError) as caught:
                await ask(client, request)
            [response] = await ask_many(client, kind, [request])
            assert (await client.ping()).host, "the client goes on"
            return caught.value, response

    error, response = run_async(run())
    assert type(error) is KubeMQError
    assert error.message.endswith(text)
    told = (error.code, error.channel, error.operation)
    assert told == (ErrorCode.INTERNAL, request.channel, "Send" + kind.capitalize())
    assert not error.is_retryable
    assert not response.is_executed and text in response.error


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_answers_fails_once_when_its_time_is_over(kind):
    channel = unique("nobody")

    async def run():
        async with asking() as client:
            began = time.monotonic()
            requests = [message(kind, channel, n, timeout=1) for n in range(3)]
            many = asyncio.create_task(ask_many(client, kind, requests))
            with pytest.raises(KubeMQError) as caught:
                await ask(client, requests[0])
            return caught.value, time.monotonic() - began, await many

    error, took, responses = run_async(run())
    assert error.message == GIVEN_UP[type(error)]
    assert not error.is_retryable
    # A request that may have been carried out is not sent again.
    assert 0.9 < took < 10
    assert [response.is_executed for response in responses] == [False] * 3
    assert all(any(text in response.error for text in TIMED_OUT) for response in responses)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_comes_too_late_is_dropped(kind):
    channel, heard = unique("late"), []

    async def run():
        async with asking() as client, answering() as responder:
            task = asyncio.create_task(collect(requests_to(responder, kind, channel), heard))
            while not heard:
                with pytest.raises(KubeMQError):
                    await ask(client, message(kind, channel, 1, timeout=1))
            asking_again = asyncio.create_task(ask(client, message(kind, channel, 2)))
            await reached(lambda: number_of(heard[-1].body) == 2)
            for request in heard:
                await responder.send_response(answer_to(kind, request))
            response = await asking_again
            await stopped(task)
            return response

    response = run_async(asyncio.wait_for(run(), 60))
    assert (response.is_executed, number_of(response.body)) == (True, 2)
