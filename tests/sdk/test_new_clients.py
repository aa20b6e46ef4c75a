"""What else the newest SDK's clients offer: how they are configured, opened and closed, what they
tell of their connection, and the older names of their calls."""

import asyncio
import logging
import socket

import pytest
from admin import wait_until_empty
from cq import KINDS, Serving, cq_client, go_live, message, response_to
from kubemq import (
    AsyncCQClient,
    AsyncHealthChecker,
    AsyncPubSubClient,
    AsyncQueuesClient,
    ClientConfig,
    ConnectionState,
    CQClient,
    HealthChecker,
    PubSubClient,
    QueuesClient,
    RetryPolicy,
    StdLibLoggerAdapter,
)
from new import EventStoreStartPosition as Start
from new import (
    Subscription,
    event,
    numbers,
    pubsub,
    queue_client,
    queue_message,
    receive,
    store_event,
)
from new import go_live as listen
from new_async import pubsub as async_pubsub
from support import ADDRESS, number_of, run_async, settle, unique, until

ORDINARY = [PubSubClient, QueuesClient, CQClient]
ASYNCHRONOUS = [AsyncPubSubClient, AsyncQueuesClient, AsyncCQClient]


def from_environment(monkeypatch, _):
    for name, value in (
        ("ADDRESS", ADDRESS),
        ("CLIENT_ID", "configured"),
        ("KEEP_ALIVE_INTERVAL", "7"),
        ("CONNECTION_TIMEOUT", "20"),
    ):
        monkeypatch.setenv("FLOTILLA_TEST_" + name, value)
    return ClientConfig.from_env("FLOTILLA_TEST_")


def from_file(_, folder):
    path = folder / "client.toml"
    lines = [
        'address = "%s"' % ADDRESS,
        'client_id = "configured"',
        "connection_timeout = 20",
        "[keep_alive]",
        "ping_interval_in_seconds = 7",
    ]
    path.write_text("\n".join(lines))
    return ClientConfig.from_file(str(path))


@pytest.mark.parametrize("made", [from_environment, from_file])
def test_a_configuration_from_elsewhere_is_that_of_the_client(made, monkeypatch, tmp_path):
    config, channel = made(monkeypatch, tmp_path), unique("queue")
    told = (config.client_id, config.connection_timeout, config.keep_alive.ping_interval_in_seconds)
    assert told == ("configured", 20.0, 7)
    with QueuesClient(config=config) as client:
        assert client.config is config
        assert not client.send_queue_message(queue_message(channel, 1)).is_error
        [one] = receive(client, channel, 1, auto_ack=True).messages
        assert (one.from_client_id, one.receiver_client_id) == ("configured", "configured")

    async def run():
        async with AsyncQueuesClient(config=config) as client:
            assert (await client.send_queue_message(queue_message(channel, 2))).id == "id-2"
            [one] = (await client.receive_queue_messages(channel, 1, 10)).messages
            assert (one.from_client_id, number_of(one.body)) == ("configured", 2)
            await one.async_ack()
            await asyncio.to_thread(wait_until_empty, channel)

    run_async(run())


def test_a_client_without_a_name_has_that_of_its_machine():
    """With other characters where the name has some that are no letters, digits or hyphens."""
    channel = unique("queue")
    with QueuesClient(address=ADDRESS) as client:
        assert not client.send_queue_message(queue_message(channel, 1)).is_error
        [one] = receive(client, channel, 1, auto_ack=True).messages
        assert one.from_client_id == client.config.client_id
        assert len(one.from_client_id) == len(socket.gethostname())


def test_what_a_client_logs_goes_where_it_is_told(caplog):
    logger = StdLibLoggerAdapter(name="of-a-test", level=logging.DEBUG)
    config = ClientConfig(address=ADDRESS, client_id=unique("client"), logger=logger)
    with caplog.at_level(logging.DEBUG, "of-a-test"), PubSubClient(config=config) as client:
        client.ping()
    text = " ".join(record.getMessage() for record in caplog.records if record.name == "of-a-test")
    assert "Connected to " + ADDRESS in text
    assert "Closing connection to " + ADDRESS in text


@pytest.mark.parametrize("of", ORDINARY)
def test_an_ordinary_client_is_connected_until_it_is_closed(of):
    client = of(address=ADDRESS, client_id=unique("client"))
    assert client.is_connected
    report = HealthChecker(client).check()
    assert report.is_healthy() and not report.is_unhealthy()
    info, [check] = client.ping(), report.checks
    assert check.details["host"] == info.host
    assert check.details["version"] == info.version
    for _ in range(2):
        client.close()
        assert not client.is_connected
    assert HealthChecker(client).check().is_unhealthy()


@pytest.mark.parametrize("of", ORDINARY)
def test_an_ordinary_client_may_be_closed_by_a_loop(of):
    async def run():
        async with of(address=ADDRESS, client_id=unique("client")) as client:
            assert client.is_connected
            assert (await client.ping_async()).host
        assert not client.is_connected
        await client.close_async()

    run_async(run())


@pytest.mark.parametrize("of", ASYNCHRONOUS)
def test_an_asynchronous_client_tells_of_its_connection(of):
    async def run():
        config = ClientConfig(
            address=ADDRESS,
            client_id=unique("client"),
            connection_pool_size=1,
            retry_policy=RetryPolicy(max_retries=0),
        )
        client, changes = of(config=config), []
        assert (client.is_connected, client.connection_state) == (False, ConnectionState.IDLE)
        for _ in range(2):
            await client.connect()
            assert (client.is_connected, client.connection_state) == (True, ConnectionState.READY)
        for register in (client.on_connected, client.on_reconnected):
            register(lambda: changes.append("connected"))
        for register in (client.on_disconnected, client.on_reconnecting):
            register(lambda: changes.append("lost"))
        report = await AsyncHealthChecker(client).check()
        info, [check] = await client.ping(), report.checks
        assert report.is_healthy()
        assert check.details["host"] == info.host
        for _ in range(2):
            await client.close()
            assert (client.is_connected, client.connection_state) == (False, ConnectionState.IDLE)
        assert (await AsyncHealthChecker(client).check()).is_unhealthy()
        assert changes == [], "it was connected before, and closed by itself"

    run_async(run())


def test_a_pool_of_connections_serves_as_one_does():
    async def run(connections):
        channel, taken = unique("queue"), []
        config = ClientConfig(
            address=ADDRESS, client_id=unique("client"), connection_pool_size=connections
        )
        async with AsyncQueuesClient(config=config) as client:
            for number in range(20):
                result = await client.send_queue_message(queue_message(channel, number))
                assert not result.is_error
            response = await client.receive_queue_messages(channel, 20, 10)
            taken += numbers(response.messages)
            await response.ack_all()
            await asyncio.to_thread(wait_until_empty, channel)
        return taken

    for connections in (1, 3):
        assert run_async(run(connections)) == list(range(20))


def test_the_older_names_of_calls_with_queues_do_the_same():
    with queue_client() as (client, channel):
        with pytest.warns(DeprecationWarning, match="Use send_queue_message"):
            result = client.send_queues_message(queue_message(channel, 1))
        assert (result.id, result.is_error) == ("id-1", False)
        with pytest.warns(DeprecationWarning, match="Use receive_queue_messages"):
            response = client.receive_queues_messages(channel, 1, 10)
        assert numbers(response.messages) == [1]
        response.ack_all()
        client.send_queue_message(queue_message(channel, 2))
        with pytest.warns(DeprecationWarning):
            taken = client.receive_queues_messages(channel, 1, 10, auto_ack=True)
        assert numbers(taken.messages) == [2]
        wait_until_empty(channel)


def test_the_older_names_of_calls_with_events_do_the_same():
    channel = unique("events")

    async def run():
        async with async_pubsub() as client:
            with pytest.warns(DeprecationWarning, match="Use send_event_store"):
                result = await client.send_events_store_message(store_event(channel, 2))
            assert (result.id, result.sent) == ("event-2", True)
            with pytest.warns(DeprecationWarning, match="Use publish_event"):
                await client.send_event(event(channel, 2))
            await asyncio.to_thread(until, lambda: 2 in heard.numbers())

    with (
        pubsub() as client,
        Subscription().events(channel) as heard,
        Subscription().store(channel, Start.StartFromFirst) as read,
    ):
        listen(client, channel, heard)
        with pytest.warns(DeprecationWarning, match="Use publish_event"):
            client.send_events_message(event(channel, 1))
        with pytest.warns(DeprecationWarning, match="Use send_event_store"):
            result = client.send_events_store_message(store_event(channel, 1))
        assert (result.id, result.sent, result.error) == ("event-1", True, "")
        until(lambda: 1 in heard.numbers())
        run_async(run())
        read.inbox.wait(2)
        settle([heard.inbox, read.inbox], 0.2)
        assert (heard.numbers(), read.numbers()) == ([1, 2], [1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_older_names_of_calls_with_requests_do_the_same(kind):
    channel = unique("requests")

    def answer(request):
        return response_to(kind, request, body=request.body)

    with cq_client() as client, Serving(kind, channel, answer) as serving:
        go_live(client, kind, channel, serving)
        with pytest.warns(DeprecationWarning, match="Use send_%s" % kind):
            response = getattr(client, "send_%s_request" % kind)(message(kind, channel, 7))
        assert (response.is_executed, number_of(response.body)) == (True, 7)


def test_what_a_callback_raises_is_told_to_another_and_the_subscription_goes_on():
    channel = unique("events")

    class Failing(Subscription):
        def __init__(self):
            super().__init__()
            add = self.inbox.add

            def add_and_fail(one):
                add(one)
                raise ValueError("not " + one.metadata)

            self.inbox.add = add_and_fail

    with pubsub() as client, Failing().events(channel) as heard:
        listen(client, channel, heard)
        for number in range(3):
            client.send_event(event(channel, number))
        until(lambda: 2 in heard.numbers())
        assert heard.numbers() == [0, 1, 2]
        until(lambda: len([e for e in heard.inbox.errors if "not probe" not in e]) >= 3)
        for number, error in enumerate(heard.inbox.errors[-3:]):
            assert "Message handler raised ValueError: not m%d" % number in error
