"""REST and WebSocket, alone and with clients of the SDK at the same channels."""

import threading

import pytest
import websocket
from new import EventStoreStartPosition as Start
from new import Subscription, event, pubsub, queue_message, queues, store_event
from rest import ADDRESS, PEER_ADDRESS, Socket, call, data, decoded, encoded, post
from support import body_of, md5_of, unique

COUNT = 20


def a_message(queue, number, **more):
    return {
        "MessageID": str(number),
        "ClientID": "sender",
        "Channel": queue,
        "Metadata": "meta",
        "Body": encoded(body_of(number)),
        "Tags": {"key": "value"},
        **more,
    }


def a_receive(queue, count, **more):
    return {
        "RequestID": "receive",
        "ClientID": "receiver",
        "Channel": queue,
        "MaxNumberOfMessages": count,
        "WaitTimeSeconds": 5,
        **more,
    }


def bodies(response):
    return [decoded(message.get("Body")) for message in response.get("Messages", [])]


def test_every_node_answers_a_ping():
    for address in (ADDRESS, PEER_ADDRESS):
        answer = data("GET", "/ping", address=address)
        assert answer["Host"] and answer["Version"] == "2.6.0"
        assert answer["ServerStartTime"] > 0


def test_queue_messages_from_http_to_the_sdk_and_back():
    queue = unique("rest")
    results = post(
        "/queue/send_batch",
        {"BatchID": "batch", "Messages": [a_message(queue, n) for n in range(COUNT)]},
    )
    assert results["BatchID"] == "batch" and "HaveErrors" not in results
    assert [result["MessageID"] for result in results["Results"]] == [
        str(n) for n in range(COUNT)
    ]
    with queues() as client:
        got = client.receive_queue_messages(
            channel=queue, max_messages=COUNT, wait_timeout_in_seconds=10, auto_ack=True
        )
        assert not got.is_error, got.error
        assert [bytes(message.body) for message in got.messages] == [
            body_of(n) for n in range(COUNT)
        ]
        assert got.messages[0].tags == {"key": "value"}
        for number in range(3):
            sent = client.send_queue_message(queue_message(queue, number))
            assert not sent.is_error, sent.error

    info = data("GET", "/queue/info?queue_name=" + queue, address=PEER_ADDRESS)
    assert info["Info"]["Queues"][0]["Waiting"] == 3
    peeked = post("/queue/receive", a_receive(queue, 3, IsPeak=True), PEER_ADDRESS)
    received = post("/queue/receive", a_receive(queue, 3))
    assert bodies(peeked) == bodies(received) == [body_of(n) for n in range(3)]
    attributes = received["Messages"][2]["Attributes"]
    assert attributes["MD5OfBody"] == md5_of(body_of(2))
    assert attributes["Sequence"] == COUNT + 3 and attributes["ReceiveCount"] == 1
    assert "Messages" not in post("/queue/receive", a_receive(queue, 1, WaitTimeSeconds=1))

    for number in range(4):
        assert "IsError" not in post("/queue/send", a_message(queue, number))
    purged = post(
        "/queue/ack_all", {"ClientID": "c", "Channel": queue, "WaitTimeSeconds": 1}, PEER_ADDRESS
    )
    assert purged["AffectedMessages"] == 4


def test_stored_events_from_every_side_have_one_order():
    channel = unique("rest.store")
    with Socket("/send/stream") as stream:
        for number in range(COUNT):
            stream.send(
                {
                    "EventID": str(number),
                    "ClientID": "sender",
                    "Channel": channel,
                    "Body": encoded(body_of(number)),
                    "Store": True,
                }
            )
        for number in range(COUNT):
            assert stream.next() == {"EventID": str(number), "Sent": True}
    sent = post(
        "/send/event",
        {"ClientID": "s", "Channel": channel, "Body": encoded(body_of(COUNT)), "Store": True},
        PEER_ADDRESS,
    )
    assert sent["Sent"]
    with pubsub() as client, Subscription().store(channel, Start.StartFromFirst) as subscription:
        assert client.send_event_store(store_event(channel, COUNT + 1)).sent
        events = subscription.inbox.wait(COUNT + 2)
    expected = [body_of(n) for n in range(COUNT + 2)]
    assert [bytes(one.body) for one in events] == expected
    query = dict(
        client_id=unique("ws"),
        channel=channel,
        subscribe_type="events_store",
        events_store_type_data=2,
    )
    with Socket("/subscribe/events", PEER_ADDRESS, **query) as reader:
        got = [reader.next() for _ in expected]
    assert [one["Sequence"] for one in got] == list(range(1, COUNT + 3))
    assert [decoded(one["Body"]) for one in got] == expected


def test_plain_events_reach_listeners_of_a_pattern_on_another_node():
    channel = unique("rest")
    query = dict(client_id="l", channel=channel + ".*", subscribe_type="events")
    with Socket("/subscribe/events", PEER_ADDRESS, **query) as listener:
        assert post("/send/event", {"ClientID": "s", "Channel": channel + ".a", "Metadata": "1"})
        with pubsub() as client:
            client.send_event(event(channel + ".b", 2))
            assert listener.next()["Metadata"] == "1"
            got = listener.next()
    assert got["Channel"] == channel + ".b" and decoded(got["Body"]) == body_of(2)
    assert got["Tags"]["ключ"] == "значение"
    assert "Sequence" not in got and "Timestamp" not in got


@pytest.mark.parametrize("kind, name", [(1, "commands"), (2, "queries")])
def test_a_responder_on_another_node_answers(kind, name):
    channel = unique("rest")
    query = dict(client_id="responder", channel=channel, subscribe_type=name)
    with Socket("/subscribe/requests", PEER_ADDRESS, **query) as responder:

        def respond():
            asked = responder.next()
            assert decoded(asked["Body"]) == b"question"
            post(
                "/send/response",
                {
                    "ClientID": "responder",
                    "RequestID": asked["RequestID"],
                    "ReplyChannel": asked["ReplyChannel"],
                    "Body": encoded(b"answer"),
                    "Executed": True,
                },
                # Not where it was asked.
                ADDRESS,
            )

        responding = threading.Thread(target=respond)
        responding.start()
        request = {
            "RequestTypeData": kind,
            "ClientID": "asker",
            "Channel": channel,
            "Body": encoded(b"question"),
            "Timeout": 20_000,
        }
        answer = post("/send/request", request)
        responding.join()
    assert answer["Executed"] and decoded(answer["Body"]) == b"answer"
    request["Timeout"] = 200
    status, envelope = call("POST", "/send/request", request)
    assert (status, envelope["message"]) == (400, "Error 301: timeout for request message")


def a_step(kind, queue, **more):
    return {
        "RequestID": str(kind),
        "ClientID": "c",
        "StreamRequestTypeData": kind,
        "Channel": queue,
        "VisibilitySeconds": 30,
        "WaitTimeSeconds": 10,
        **more,
    }


def test_a_transaction_is_one_socket():
    queue, other = unique("rest"), unique("rest")
    post("/queue/send", a_message(queue, 7))
    # Left without a word: the message goes to the next one.
    with Socket("/queue/stream", PEER_ADDRESS) as lost:
        assert lost.ask(a_step(1, queue))["Message"]["MessageID"] == "7"
    with Socket("/queue/stream") as transaction:
        got = transaction.ask(a_step(1, queue))
        assert got["Message"]["Attributes"]["ReceiveCount"] == 2, got
        assert "IsError" not in transaction.ask(a_step(4, queue))
        assert "IsError" not in transaction.ask(a_step(5, other))
        assert transaction.close_code() == 1000
    with Socket("/queue/stream") as transaction:
        got = transaction.ask(a_step(1, other))
        attributes = got["Message"]["Attributes"]
        assert attributes["ReRouted"] and attributes["ReRoutedFromQueue"] == queue
        settled = transaction.ask(a_step(2, other, RefSequence=attributes["Sequence"]))
        assert "IsError" not in settled
        assert transaction.close_code() == 1000
    info = data("GET", "/queue/info?queue_name=" + other)
    assert "Messages" not in info["Info"]["Queues"][0]


def test_what_is_wrong_is_told_before_the_upgrade():
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        Socket("/subscribe/events", channel="a", subscribe_type="events")
    assert refused.value.status_code == 400
    status, envelope = call("POST", "/send/event", {"ClientID": "c", "Channel": "a b"})
    assert status == 400
    assert envelope["message"] == "Error 108: invalid channel value, no white spaces are allowed"
