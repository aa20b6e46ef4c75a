"""Channel management through the new SDKs: every type, made, listed, searched and deleted."""

import pytest
from cq import IS_NEWEST, cq_client
from kubemq.pubsub import Client as PubSubClient
from kubemq.queues import Client as QueuesClient
from support import ADDRESS, PEER_ADDRESS, pb, raw_stub, unique, until

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


def test_a_queue_is_listed_with_its_figures():
    from kubemq.queues import QueueMessage

    channel = unique("figures")
    with open_client("queues") as client:
        send = client.send_queue_message if IS_NEWEST else client.send_queues_message
        for _ in range(3):
            assert not send(QueueMessage(channel=channel, body=b"x")).is_error
        (found,) = client.list_queues_channels(channel)
        assert found.incoming.messages == 3
        assert found.incoming.waiting == 3
        assert found.is_active
        assert not send(QueueMessage(channel=channel, body=b"x", expiration_in_seconds=1)).is_error
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
