"""Channel management through the new SDKs: every type, made, listed, searched and deleted; and what tools are told
of channels."""

import contextlib
import json
import re

import pytest
from admin import ADMIN_ADDRESS, ADMIN_PEER_ADDRESS, told
from cq import IS_NEWEST, Serving, cq_client, response_to
from kubemq.pubsub import Client as PubSubClient
from kubemq.queues import Client as QueuesClient
from kubemq.queues import QueueMessage
from support import ADDRESS, PEER_ADDRESS, pb, raw_stub, settle, store_events, unique, until

if IS_NEWEST:
    from new import EventStoreStartPosition as Start
    from new import Subscription as Listening
else:
    from mid import EventsStoreType as Start
    from mid import Listening

CLIENTS = {
    "events": PubSubClient,
    "events_store": PubSubClient,
    "commands": None,
    "queries": None,
    "queues": QueuesClient,
}
OTHER = raw_stub(PEER_ADDRESS)


def open_client(kind):
    if CLIENTS[kind] is None:
        return cq_client()
    return CLIENTS[kind](address=ADDRESS, client_id=unique("client"))


def call(client, operation, kind, argument):
    ending = "channels" if operation == "list" else "channel"
    return getattr(client, "%s_%s_%s" % (operation, kind, ending))(argument)


def listed_elsewhere(kind, search):
    """What another node says, as bytes."""
    request = pb.Request(
        RequestTypeData=2,
        ClientID="c",
        Channel="kubemq.cluster.internal.requests",
        Metadata="list-channels",
        Timeout=10_000,
        Tags={"channel_type": kind, "channel_search": search},
    )
    response = OTHER.SendRequest(request, timeout=20)
    assert response.Executed, response.Error
    return response.Body


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_channel_is_made_listed_everywhere_and_deleted(kind):
    root = unique("made")
    with open_client(kind) as client:
        assert call(client, "list", kind, root) == []
        assert listed_elsewhere(kind, root) == b"[]"
        for number in range(3):
            name = "%s.%d" % (root, number)
            assert call(client, "create", kind, name) is True
            assert call(client, "create", kind, name) is True
            found = call(client, "list", kind, name)
            assert [(c.name, c.type) for c in found] == [(name, kind)]
            assert name.encode() in listed_elsewhere(kind, name)
        names = ["%s.%d" % (root, number) for number in range(3)]
        assert [c.name for c in call(client, "list", kind, root)] == names
        assert [c.name for c in call(client, "list", kind, root + ".*")] == names
        assert [c.name for c in call(client, "list", kind, "*%s.1" % root)] == names[1:2]
        channel = call(client, "list", kind, names[0])[0]
        assert channel.incoming.messages == 0
        assert channel.outgoing.volume == 0
        assert call(client, "delete", kind, names[1]) is True
        assert [c.name for c in call(client, "list", kind, root)] == [names[0], names[2]]
        with pytest.raises(Exception, match="channel not found"):
            call(client, "delete", kind, names[1])
        assert names[1].encode() not in listed_elsewhere(kind, root)


def used(kind, channel):
    """Uses a channel that nobody made, in the way that makes the least of it."""
    if kind == "queues":
        with open_client(kind) as client:
            send_to_queue(client, channel)
    elif kind == "events_store":
        store_events(channel, range(1))
    elif kind == "events":
        return Listening().events(channel)
    else:
        one = {"commands": "command", "queries": "query"}[kind]
        return Serving(one, channel, lambda request: response_to(one, request))
    return contextlib.nullcontext()


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_channel_that_was_only_used_is_listed_everywhere(kind):
    channel = unique("used")
    with open_client(kind) as client, used(kind, channel):
        found = until(lambda: call(client, "list", kind, channel), what="the channel's name")
        assert [(c.name, c.type) for c in found] == [(channel, kind)]
        name = channel.encode()
        until(lambda: name in listed_elsewhere(kind, channel), what="its name elsewhere")


def test_a_deleted_channel_of_stored_events_forgets_its_events_and_its_readers():
    channel, reader = unique("forgotten"), unique("reader")
    with open_client("events_store") as client:
        store_events(channel, range(5))
        with Listening(client_id=reader).store(channel, Start.StartFromFirst) as listening:
            listening.inbox.wait(5)
        until(
            lambda: place_of(channel, reader).get("last_sequence_sent") == 5,
            what="the reader's place",
        )
        assert call(client, "delete", "events_store", channel) is True
        assert call(client, "list", "events_store", channel) == []
        # As many as it had read: with its place it would be told none of them.
        store_events(channel, range(5))
        with Listening(client_id=reader).store(channel, Start.StartFromFirst) as listening:
            listening.inbox.wait(5)
            settle([listening.inbox], 0.2)
            assert listening.sequences() == [1, 2, 3, 4, 5]


def stats(what, address=ADMIN_ADDRESS):
    """All pages of figures."""
    after, items = "", {}
    while True:
        answer = json.loads(told("/v1/stats/%s?limit=100%s" % (what, after), address))
        assert (answer["error"], answer["error_string"]) == (False, "")
        items.update({item["name"]: item for item in answer["data"]["queues"]})
        if not answer["data"]["next"]:
            return items
        after = "&after=" + answer["data"]["next"]


def place_of(channel, client):
    clients = stats("events_stores")[channel]["clients"]
    return next((one for one in clients if one["client_id"] == client), {})


def send_to_queue(client, channel, **policy):
    send = client.send_queue_message if IS_NEWEST else client.send_queues_message
    assert not send(QueueMessage(channel=channel, body=b"x", **policy)).is_error


def test_tools_are_told_the_figures_of_all_channels_by_every_node():
    """Whichever nodes lead them: there are enough for each to lead some."""
    queues, topics = ([unique(name) for _ in range(6)] for name in ("told-queue", "told-topic"))
    with open_client("queues") as client:
        for queue, topic in zip(queues, topics, strict=True):
            for _ in range(3):
                send_to_queue(client, queue)
            store_events(topic, range(4))
    for address in (ADMIN_ADDRESS, ADMIN_PEER_ADDRESS):
        found = stats("queues", address)
        for queue in queues:
            figures = found[queue]
            assert (figures["messages"], figures["waiting"], figures["sent"]) == (3, 3, 3)
            assert (figures["first_sequence"], figures["last_sequence"]) == (1, 3)
        found = stats("events_stores", address)
        for topic in topics:
            figures = found[topic]
            assert (figures["messages"], figures["sent"], figures["last_sequence"]) == (4, 4, 4)
        assert told("/health", address) == "healthy"
        assert json.loads(told("/ready", address)) == {"is_healthy": True, "is_ready": True}
        for family in ("messages_count", "errors_count", "clients_count"):
            assert "\nkubemq_%s{" % family in told("/metrics", address)
    # What is sent and received is counted by the node that is asked.
    counted = told("/metrics")
    for name, kind, count in [(queues[0], "queues", 3), (topics[0], "events_store", 4)]:
        labels = '{channel="%s",client_id="",node="[^"]+",side="send",type="%s"}' % (name, kind)
        assert re.search("\nkubemq_messages_count%s %d\n" % (labels, count), counted)
        assert re.search("\nkubemq_messages_last_seen%s [0-9]{13}\n" % labels, counted)


def test_a_queue_is_listed_with_its_figures():
    channel = unique("figures")
    with open_client("queues") as client:
        for _ in range(3):
            send_to_queue(client, channel)
        (found,) = client.list_queues_channels(channel)
        assert found.incoming.messages == 3
        assert found.incoming.waiting == 3
        assert found.is_active
        send_to_queue(client, channel, expiration_in_seconds=1)
        expired = until(
            lambda: [c for c in client.list_queues_channels(channel) if c.incoming.expired],
            what="the expiry",
        )
        assert [(c.incoming.expired, c.incoming.waiting) for c in expired] == [(1, 3)]


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_cannot_be_a_channel_is_refused_with_its_text(kind):
    text = "Error 120" if kind == "queues" else "Error 107"
    with open_client(kind) as client, pytest.raises(Exception, match=text):
        call(client, "create", kind, "a.*")
