"""The newest SDK's clients at a server that encrypts and asks for no certificate of theirs."""

import asyncio
from pathlib import Path

import pytest
from access import CA_FILE, CERT_FILE
from access_clients import FIRST, assert_requests_served, assert_served, connected, opened
from cq import KINDS, message
from kubemq import (
    AsyncCQClient,
    AsyncPubSubClient,
    AsyncQueuesClient,
    ErrorCode,
    KubeMQConnectionError,
    KubeMQError,
    PubSubClient,
    TLSConfig,
)
from kubemq.common.async_cancellation_token import AsyncCancellationToken
from new import queue_message, store_event
from new_async import ask, cancelled, collect, reached, serve, stopped, to_stored
from new_async import go_live as is_asked
from support import ADDRESS, number_of, run_async, unique

# What an ordinary client is given, and what an asynchronous one is.
NO_CERTIFICATE = {"tls_cert_file": "", "tls_key_file": ""}
AUTHORITY_ONLY = {"tls": TLSConfig(enabled=True, ca_file=Path(CA_FILE))}
AUTHORITY_AS_TEXT = {"tls": TLSConfig(enabled=True, ca_pem=Path(CA_FILE).read_bytes())}


@pytest.mark.parametrize("shown", [NO_CERTIFICATE, {}], ids=["none", "shown unasked"])
def test_ordinary_clients_need_no_certificate(shown):
    assert_served(**shown)


@pytest.mark.parametrize("kind", KINDS)
def test_requests_need_no_certificate(kind):
    assert_requests_served(kind, **NO_CERTIFICATE)


@pytest.mark.parametrize("shown", [AUTHORITY_ONLY, AUTHORITY_AS_TEXT], ids=["file", "text"])
def test_asynchronous_clients_need_no_certificate(shown):
    queue, channel, read = unique("open.queue"), unique("open.store"), []

    async def run():
        token = AsyncCancellationToken()
        async with (
            opened(AsyncQueuesClient, "writer", **shown) as writer,
            opened(AsyncQueuesClient, "reader", **shown) as reader,
        ):
            assert (await writer.ping()).host
            assert not (await writer.send_queue_message(queue_message(queue, 1))).is_error
            response = await reader.receive_queue_messages(queue, 1, 10)
            assert [number_of(one.body) for one in response.messages] == [1]
        async with (
            opened(AsyncPubSubClient, "writer", **shown) as writer,
            opened(AsyncPubSubClient, "reader", **shown) as reader,
        ):
            assert (await writer.send_event_store(store_event(channel, 2))).sent
            events = reader.subscribe_to_events_store(to_stored(channel, FIRST), token)
            task = asyncio.create_task(collect(events, read))
            await reached(lambda: read)
            await cancelled(token, task)

    run_async(run())
    assert [number_of(one.body) for one in read] == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_asynchronous_requests_need_no_certificate(kind):
    channel, heard = unique("open"), []

    async def run():
        async with (
            opened(AsyncCQClient, "writer", **AUTHORITY_ONLY) as writer,
            opened(AsyncCQClient, "reader", **AUTHORITY_ONLY) as reader,
        ):
            task = asyncio.create_task(serve(reader, kind, channel, heard))
            await is_asked(writer, kind, channel, heard)
            response = await ask(writer, message(kind, channel, 7))
            await stopped(task)
            return response

    response = run_async(run())
    assert (response.is_executed, number_of(response.body)) == (True, 7)


def refused_by(client):
    """The text of a connection that did not come about."""
    with client, pytest.raises(KubeMQConnectionError) as caught:
        client.ping()
    assert (type(caught.value), caught.value.code) == (KubeMQConnectionError, ErrorCode.UNAVAILABLE)
    return caught.value.message


async def refuses(client):
    with pytest.raises(KubeMQError) as caught:
        await client.connect()
    assert caught.value.message.startswith("Failed to connect to " + ADDRESS)
    assert isinstance(caught.value.cause, KubeMQConnectionError)
    return caught.value.message


def test_who_trusts_another_authority_does_not_connect():
    other = {**NO_CERTIFICATE, "tls_ca_file": CERT_FILE}
    assert "certificate" in refused_by(connected(PubSubClient, "writer", **other)).lower()
    tls = TLSConfig(enabled=True, ca_file=Path(CERT_FILE))
    text = run_async(refuses(opened(AsyncPubSubClient, "writer", tls=tls)))
    assert "certificate" in text.lower()


def test_the_name_of_the_server_counts_that_the_client_expects():
    def expecting(name):
        files = {"enabled": True, "ca_file": Path(CA_FILE)}
        tls = TLSConfig(server_name_override=name, **files)
        return opened(AsyncPubSubClient, "writer", tls=tls)

    async def run():
        async with expecting("localhost") as client:
            assert (await client.ping()).host
        await refuses(expecting("elsewhere"))

    run_async(run())


def test_who_does_not_encrypt_is_not_served():
    refused_by(connected(PubSubClient, "writer", tls=False))
    run_async(refuses(opened(AsyncPubSubClient, "writer", tls=TLSConfig())))
