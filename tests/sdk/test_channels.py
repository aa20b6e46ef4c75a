"""Channel management through the new SDKs: every type, made, listed, searched and deleted; and what
tools are told of channels. The figures of lists are in test_channels_figures.py."""

import contextlib
import json
import re

import pytest
from admin import ADMIN_ADDRESS, ADMIN_PEER_ADDRESS, told
from channels import (
    CLIENTS,
    Listening,
    Start,
    call,
    open_client,
    receive_from_queue,
    send_to_queue,
    serving,
    the_one,
)
from support import PEER_ADDRESS, pb, raw_stub, settle, store_events, unique, until

OTHER = raw_stub(PEER_ADDRESS)


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
        return serving(kind, channel)
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


def test_a_deleted_queue_forgets_its_messages_also_those_that_are_held():
    channel = unique("forgotten")
    with open_client("queues") as client, open_client("queues", PEER_ADDRESS) as other:
        for _ in range(5):
            send_to_queue(client, channel)
        held = receive_from_queue(other, channel, 2)
        assert client.delete_queues_channel(channel) is True
        assert client.list_queues_channels(channel) == []
        assert client.create_queues_channel(channel) is True
        made = the_one(client, "queues", channel)
        assert (made.incoming.messages, made.incoming.waiting, made.incoming.volume) == (0, 0, 0)
        send_to_queue(client, channel)
        # It has the sequence of one that was held, and stays.
        held.ack_all()
        response = receive_from_queue(other, channel, 1)
        assert [(m.sequence, m.receive_count) for m in response.messages] == [(1, 1)]
        found = the_one(client, "queues", channel)
        assert (found.incoming.messages, found.outgoing.messages) == (1, 1)
        response.ack_all()


@pytest.mark.parametrize("kind", CLIENTS)
def test_channels_are_searched_by_expression_by_pattern_or_by_name(kind):
    root = unique("searched")
    names = [root + end for end in (".a", ".a.b", ".b", ".c+d", ".ccd")]
    with open_client(kind) as client:
        for name in reversed(names):
            assert call(client, "create", kind, name) is True

        def found(search):
            every = [channel.name for channel in call(client, "list", kind, search)]
            assert every == sorted(every)
            return [name for name in every if name.startswith(root)]

        assert found("") == names
        assert found("*") == names
        assert found(root[3:]) == names, "a part of the name"
        assert found("^%s\\.a" % root) == names[:2]
        assert found("^%s\\.(b|ccd)$" % root) == [names[2], names[4]]
        assert found("^searched$") == []
        # No expression: a pattern.
        assert found("*%s.?" % root[3:]) == [names[0], names[2]]
        assert found("*%s.*.b" % root[3:]) == names[1:2]
        assert found(names[3]) == names[3:], "an expression for one, the name of the other"
        assert found(root.upper()) == []


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_cannot_be_a_channel_is_refused_with_its_text(kind):
    text = "Error 120" if kind == "queues" else "Error 107"
    with open_client(kind) as client, pytest.raises(Exception, match=text):
        call(client, "create", kind, "a.*")
