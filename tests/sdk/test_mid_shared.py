"""One client of 3.6.0 that several threads share. It is made in the main thread, since it wants an
event loop; its calls do not. All that a client sends goes over one stream, and so does all that it
receives of queues."""

from admin import wait_until_empty
from mid import (
    Listening,
    event,
    go_live,
    message_of,
    pubsub,
    put,
    queues,
    receive,
    store_event,
)
from mid import EventsStoreType as Start
from support import (
    COUNT,
    PEER_ADDRESS,
    SECONDS_MAX,
    Inbox,
    at_once,
    number_of,
    settle,
    unique,
    until,
)

THREADS = 4
# Received at a time.
BATCH = 5
EACH = COUNT // 100 * BATCH
ALL = THREADS * EACH


def share_of(thread):
    """The numbers that a thread sends."""
    return range(thread * EACH, (thread + 1) * EACH)


def assert_in_order_of_each(numbers):
    """That all of them are there, each thread's in the order in which it sent them."""
    assert sorted(numbers) == list(range(ALL))
    for thread in range(THREADS):
        own = share_of(thread)
        assert [number for number in numbers if number in own] == list(own)


def test_threads_send_to_a_queue_and_receive_and_acknowledge():
    channel, taken = unique("queue"), Inbox()
    # It waits two seconds for an answer where nobody says more.
    with queues(send_timeout=SECONDS_MAX) as client:

        def work(thread):
            if thread < THREADS:
                for number in share_of(thread):
                    assert put(client, message_of(channel, number)).id == "id-%d" % number
                return
            for _ in range(EACH // BATCH):
                for message in receive(client, channel, BATCH, wait=SECONDS_MAX).messages:
                    taken.add(message)
                    message.ack()

        at_once(work, 2 * THREADS)
        messages = sorted(taken.wait(ALL), key=lambda message: message.sequence)
        assert [message.sequence for message in messages] == list(range(1, ALL + 1))
        assert_in_order_of_each([number_of(message.body) for message in messages])
        assert {message.receive_count for message in messages} == {1}
        wait_until_empty(channel)


def test_threads_send_events():
    channel = unique("events")
    with pubsub() as client, Listening(PEER_ADDRESS).events(channel) as listening:
        # Its stream is opened by the first of them: two at a time would open two.
        go_live(client, channel, listening)

        def work(thread):
            for number in share_of(thread):
                client.send_events_message(event(channel, number))

        at_once(work, THREADS)
        until(lambda: len(listening.numbers()) >= ALL, what="all events")
        settle([listening.inbox], 0.2)
        assert_in_order_of_each(listening.numbers())


def test_threads_store_events():
    channel, results = unique("store"), Inbox()
    with pubsub() as client:

        def work(thread):
            for number in share_of(thread):
                result = client.send_events_store_message(store_event(channel, number))
                results.add((number, result.id, result.sent, result.error))

        at_once(work, THREADS)
        answers = sorted(results.wait(ALL))
        assert answers == [(number, "event-%d" % number, True, "") for number in range(ALL)]
        with Listening(PEER_ADDRESS).store(channel, Start.StartFromFirst) as listening:
            listening.inbox.wait(ALL)
            assert_in_order_of_each(listening.numbers())
