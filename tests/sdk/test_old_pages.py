"""The examples of the old SDKs' pages, as they stand there: without ids, which the SDK then makes,
and with pairs for tags."""

import pytest
from kubemq.grpc import QueueMessagePolicy
from kubemq.queue.stream_request_type import StreamRequestType
from old import (
    KINDS,
    Event,
    Initiator,
    ListenerCancellationToken,
    Message,
    MessageQueue,
    Request,
    Sender,
    Serving,
    await_serving,
    go_live,
    held,
    is_free,
    response_to,
    subscribe_to_events,
)
from support import ADDRESS, PEER_ADDRESS, SLOWNESS, unique

TEXT = b"some-simple_queue-queue-message"
PAIRS = [("key", "value"), ("key2", "value2")]
TAGS = dict(PAIRS)


def create_queue_message(meta_data, body, policy=None):
    message = Message()
    message.metadata = meta_data
    message.body = body
    message.tags = PAIRS
    message.attributes = None
    message.policy = policy
    return message


def queue_of(name, max_number_messages=2, max_timeout=10):
    """Where messages are taken: at another node than where they are sent, if there is one."""
    return MessageQueue(name, "page", PEER_ADDRESS, max_number_messages, max_timeout)


def sent(name, policy=None):
    """The answer to a message that is sent."""
    message = create_queue_message("someMeta", TEXT, policy)
    answer = MessageQueue(name, "page", ADDRESS).send_queue_message(message)
    assert not answer.is_error, answer.error
    return answer


def is_the_pages(message, channel, metadata="someMeta"):
    """Ids are checked where they are known."""
    assert (message.Channel, message.ClientID) == (channel, "page")
    assert (message.Metadata, message.Body) == (metadata, TEXT)
    assert dict(message.Tags) == TAGS


def assert_made_by_the_sdk(*ids):
    """It counts; an id of the server's is a UUID."""
    assert all(one.isdigit() for one in ids) and len(set(ids)) == len(ids), ids


def received(name, visibility=10):
    """A transaction with the message that it received."""
    transaction = queue_of(name).create_transaction()
    message = held(transaction, visibility)
    is_the_pages(message, name)
    return transaction, message


def well(answer, name):
    assert not answer.is_error, answer.error
    assert StreamRequestType(answer.stream_request_type).name == name


def test_a_message_has_the_id_that_its_sender_is_told_and_tags_as_a_map():
    name = unique("queue")
    ids = [sent(name).message_id for _ in range(2)]
    assert_made_by_the_sdk(*ids)
    answer = queue_of(name).receive_queue_messages()
    assert [message.MessageID for message in answer.messages] == ids
    for message in answer.messages:
        is_the_pages(message, name)


def test_messages_of_a_batch_have_ids_of_their_own_and_tags_as_a_map():
    name, mm = unique("queue"), []
    for i in range(2):
        mm.append(create_queue_message("queueName {}".format(i), TEXT))
    answer = MessageQueue(name, "page", ADDRESS, 2, 1).send_queue_messages_batch(mm)
    assert not answer.have_errors
    ids = [result.MessageID for result in answer.result]
    assert_made_by_the_sdk(answer.batch_id, *ids)
    messages = queue_of(name).receive_queue_messages().messages
    assert [message.MessageID for message in messages] == ids
    assert [m.Attributes.Timestamp for m in messages] == [r.SentAt for r in answer.result]
    for number, message in enumerate(messages):
        is_the_pages(message, name, metadata="queueName %d" % number)


def test_a_policy_for_expiry_is_told_to_sender_and_receiver():
    name, policy = unique("queue"), QueueMessagePolicy()
    policy.ExpirationSeconds = 5 * SLOWNESS
    answer = sent(name, policy)
    assert answer.expiration_at - answer.sent_at == 5 * SLOWNESS * 10**9
    assert answer.delayed_to == 0
    [message] = queue_of(name, 1).receive_queue_messages().messages
    is_the_pages(message, name)
    assert message.Policy.ExpirationSeconds == 5 * SLOWNESS
    assert message.Attributes.ExpirationAt == answer.expiration_at


def test_a_policy_for_delay_is_told_to_sender_and_receiver():
    name, policy = unique("queue"), QueueMessagePolicy()
    policy.DelaySeconds = 1
    answer = sent(name, policy)
    assert answer.delayed_to - answer.sent_at == 10**9
    assert answer.expiration_at == 0
    [message] = queue_of(name, 1).receive_queue_messages().messages
    is_the_pages(message, name)
    assert message.Policy.DelaySeconds == 1
    assert message.MessageID == answer.message_id


def test_a_message_that_is_rejected_thrice_is_in_the_dead_letter_queue():
    name, dead, policy = unique("queue"), unique("DeadLetterQueue"), QueueMessagePolicy()
    policy.MaxReceiveCount = 3
    policy.MaxReceiveQueue = dead
    answer = sent(name, policy)
    transaction = queue_of(name).create_transaction()
    for delivery in (1, 2, 3):
        message = held(transaction, visibility=10)
        assert (message.Policy.MaxReceiveCount, message.Policy.MaxReceiveQueue) == (3, dead)
        assert message.Attributes.ReceiveCount == delivery
        well(transaction.rejected_message(message.Attributes.Sequence), "RejectMessage")
        is_free(transaction)
    [letter] = queue_of(dead, 1).receive_queue_messages().messages
    is_the_pages(letter, dead)
    assert letter.MessageID == answer.message_id


def test_a_queue_made_without_numbers_gives_32_messages_at_a_time():
    name = unique("queue")
    sender = MessageQueue(name, "page", ADDRESS)
    mm = [create_queue_message("someMeta", b"%d" % number) for number in range(40)]
    assert not sender.send_queue_messages_batch(mm).have_errors
    first = MessageQueue(name, "page", PEER_ADDRESS).receive_queue_messages()
    assert [message.Body for message in first.messages] == [b"%d" % n for n in range(32)]
    peeked = queue_of(name).peek_queue_message(5)
    assert [message.Body for message in peeked.messages] == [b"%d" % n for n in range(32, 37)]
    # As the page prints it.
    assert "is_error:False is_peek:True" in "{}".format(peeked)


def test_all_messages_are_acknowledged_and_none_of_an_empty_queue():
    name = unique("queue")
    for _ in range(3):
        sent(name)
    for affected in (3, None):
        answer = queue_of(name).ack_all_queue_messages()
        assert not answer.is_error, answer.error
        # This is how these SDKs tell of none.
        assert answer.affected_messages == affected


def test_a_transaction_acknowledges():
    name = unique("queue")
    answer = sent(name)
    transaction, message = received(name)
    assert message.MessageID == answer.message_id
    well(transaction.ack_message(message.Attributes.Sequence), "AckMessage")
    is_free(transaction)
    assert list(queue_of(name, 1, 1).receive_queue_messages().messages) == []


def test_a_transaction_rejects():
    name = unique("reject_test")
    answer = sent(name)
    transaction, message = received(name)
    well(transaction.rejected_message(message.Attributes.Sequence), "RejectMessage")
    [again] = queue_of(name, 1).receive_queue_messages().messages
    is_the_pages(again, name)
    assert (again.MessageID, again.Attributes.ReceiveCount) == (answer.message_id, 2)


def test_a_transaction_extends_and_acknowledges():
    name = unique("extend_test")
    sent(name)
    transaction, message = received(name, visibility=5)
    well(transaction.extend_visibility(60), "ModifyVisibility")
    well(transaction.ack_message(message.Attributes.Sequence), "AckMessage")


def test_a_transaction_resends_to_a_new_queue():
    name, target = unique("resend_to_new_queue"), unique("new-queue")
    answer = sent(name)
    transaction, _ = received(name)
    well(transaction.resend(target), "ResendMessage")
    [moved] = queue_of(target, 1).receive_queue_messages().messages
    is_the_pages(moved, target)
    assert moved.MessageID == answer.message_id


def test_a_transaction_resends_a_modified_message():
    name, target = unique("resend_modify_message"), unique("receiverB")
    answer = sent(name)
    transaction, mod_msg = received(name)
    mod_msg.Channel = target
    mod_msg.Metadata = "new Metadata"
    well(transaction.modify(mod_msg), "SendModifiedMessage")
    [modified] = queue_of(target, 1).receive_queue_messages().messages
    is_the_pages(modified, target, metadata="new Metadata")
    # The SDK gives it another one.
    assert_made_by_the_sdk(answer.message_id, modified.MessageID)


def test_a_stream_of_events_without_ids_and_tags():
    channel, sender, results = unique("MyTestChannelName"), Sender(ADDRESS), []

    def async_streamer():
        for counter in range(3):
            yield Event(
                metadata="m%d" % counter,
                body=b"Event %d" % counter,
                store=False,
                channel=channel,
                client_id="EventSenderStream",
            )

    with subscribe_to_events(
        channel, address=PEER_ADDRESS, token=ListenerCancellationToken()
    ) as subscription:
        go_live(sender, channel, subscription)
        before = len(subscription.inbox.now())
        sender.stream_event(async_streamer(), results.append)
        heard = subscription.inbox.wait(before + 3)[before:]
    assert [(one.metadata, one.body) for one in heard] == [
        ("m%d" % counter, b"Event %d" % counter) for counter in range(3)
    ]
    assert all(one.channel == channel and dict(one.tags) == {} for one in heard)
    assert all(one.event_id for one in heard) and len({one.event_id for one in heard}) == 3
    assert results == [], "only what is stored, or has failed, has a result"


@pytest.mark.parametrize("kind, subscribe", KINDS)
def test_a_request_without_id_and_its_response(kind, subscribe):
    channel, initiator = unique("MyTestChannelName"), Initiator(ADDRESS)
    request = Request(
        body="Request".encode("UTF-8"),
        metadata="MyMetadata",
        cache_key="",
        cache_ttl=0,
        channel=channel,
        client_id="CommandQueryInitiator",
        timeout=1000 * SLOWNESS,
        request_type=kind,
        tags=PAIRS,
    )
    token = ListenerCancellationToken()
    with Serving(subscribe, channel, response_to, token=token) as serving:
        await_serving(initiator, kind, channel, serving)
        response = initiator.send_request(request)
        [asked] = serving.inbox.now()
    assert (response.body, response.metadata, response.error) == (b"OK", "re MyMetadata", "None")
    assert response.executed is True and response.cache_hit is False
    assert response.request_id == asked.request_id != ""
    assert (asked.body, asked.metadata, asked.channel) == (b"Request", "MyMetadata", channel)
    assert (asked.client_id, asked.timeout) == ("CommandQueryInitiator", 1000 * SLOWNESS)
    assert dict(asked.tags) == TAGS
