"""Sends to several channels, and to a configured route, by the clients of every release."""

import pytest
from support import ADDRESS, body_of, number_of, pb, raw_stub, status_of, unique

try:
    from kubemq.pubsub import Client as PubSubClient
    from kubemq.pubsub import EventMessage, EventStoreMessage
    from kubemq.queues import Client as QueuesClient
    from kubemq.queues import QueueMessage

    IS_OLD = False
except ImportError:
    from old import Sender, event, queue, queue_message

    IS_OLD = True

# What the tests' servers have under this key: events_store:audit.log;queues:audit.jobs
ROUTE = "routes:audit"


CLIENTS = {}


@pytest.fixture(scope="module", autouse=True)
def closed_clients():
    yield
    for client in CLIENTS.values():
        client.close()


def client_of(kind):
    """Stays open: what was handed to it may still be on its way."""
    if kind not in CLIENTS:
        CLIENTS[kind] = kind(address=ADDRESS, client_id="sender")
    return CLIENTS[kind]


def call(client, *names):
    """The calls have other names in each release."""
    return next(getattr(client, name) for name in names if hasattr(client, name))


def send_event(channel, number, store=False):
    if IS_OLD:
        result = Sender(ADDRESS).send_event(event(channel, number, store))
        return result.sent, result.error
    fields = dict(channel=channel, id="event-%d" % number, metadata="m", body=body_of(number))
    client = client_of(PubSubClient)
    if not store:
        # Whether it went well is not always told.
        call(client, "send_event", "send_events_message")(EventMessage(**fields))
        return True, ""
    send = call(client, "send_event_store", "send_events_store_message")
    result = send(EventStoreMessage(**fields))
    return result.sent, result.error


def send_to_queue(channel, number):
    if IS_OLD:
        result = queue(channel).send_queue_message(queue_message(number))
        error = result.error[0] if isinstance(result.error, tuple) else result.error
        return not result.is_error, error
    message = QueueMessage(channel=channel, metadata="m", body=body_of(number))
    send = call(client_of(QueuesClient), "send_queue_message", "send_queues_message")
    result = send(message)
    return not result.is_error, result.error


def listen(stub, channel, start=0):
    kind = pb.Subscribe.EventsStore if start else pb.Subscribe.Events
    request = pb.Subscribe(
        SubscribeTypeData=kind,
        ClientID=unique("listener"),
        Channel=channel,
        EventsStoreTypeData=start,
    )
    listening = stub.SubscribeToEvents(request, timeout=30)
    listening.initial_metadata()
    return listening


def in_queue(stub, channel, count, **fields):
    request = pb.ReceiveQueueMessagesRequest(
        ClientID="c", Channel=channel, MaxNumberOfMessages=count, **fields
    )
    return [number_of(m.Body) for m in stub.ReceiveQueueMessages(request).Messages]


@pytest.mark.parametrize("store", [False, True])
def test_an_event_goes_to_all_its_targets(store):
    stub = raw_stub()
    own, events, topic, jobs = (unique(name) for name in ("own", "events", "topic", "jobs"))
    listening = listen(stub, events)
    listening_to_own = None if store else listen(stub, own)
    targets = "%s;events:%s;events_store:%s;queues:%s" % (own, events, topic, jobs)
    sent, error = send_event(targets, 7, store)
    assert sent, error
    got = next(listening)
    assert (got.Channel, number_of(got.Body), got.Sequence) == (events, 7, 0)
    got = next(listening_to_own or listen(stub, own, pb.Subscribe.StartFromFirst))
    assert (got.Channel, number_of(got.Body), got.Sequence) == (own, 7, int(store))
    got = next(listen(stub, topic, pb.Subscribe.StartFromFirst))
    assert (got.Channel, number_of(got.Body), got.Sequence) == (topic, 7, 1)
    assert in_queue(stub, jobs, 1, WaitTimeSeconds=10) == [7]


def test_a_queue_message_goes_to_all_its_targets():
    stub = raw_stub()
    own, topic, jobs = (unique(name) for name in ("own", "topic", "jobs"))
    sent, error = send_to_queue("%s;events_store:%s;queues:%s" % (own, topic, jobs), 8)
    assert sent, error
    assert in_queue(stub, own, 1) == [8]
    assert in_queue(stub, jobs, 1) == [8]
    assert number_of(next(listen(stub, topic, pb.Subscribe.StartFromFirst)).Body) == 8


def test_a_route_stands_for_its_targets():
    stub = raw_stub()
    # Others may have sent there as well.
    log = listen(stub, "audit.log", pb.Subscribe.StartNewOnly)
    number = int(unique("n")[2:8], 16)
    for sent, error in (send_event(ROUTE, number, store=True), send_to_queue(ROUTE, number + 1)):
        assert sent, error
    wanted = [number, number + 1]
    seen = []
    while len(seen) < 2:
        seen += [n for n in [number_of(next(log).Body)] if n in wanted]
    assert seen == wanted
    while wanted:
        [taken] = in_queue(stub, "audit.jobs", 1)
        if taken in wanted:
            assert taken == wanted.pop(0)


def test_what_is_no_target_is_an_error_and_nothing_is_sent():
    stub = raw_stub()
    jobs = unique("jobs")
    sent, error = send_to_queue("queues:%s;routes:none" % jobs, 9)
    assert (sent, error) == (False, 'route "none" is not configured')
    bad = pb.Event(ClientID="c", Channel="queues:%s;events:" % jobs, Body=b"x")
    text = "Error 102: invalid channel value, cannot be empty"
    assert status_of(lambda: stub.SendEvent(bad))[1] == text
    assert in_queue(stub, jobs, 1, IsPeak=True) == []
