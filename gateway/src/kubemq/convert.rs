//! The protocol's messages to the broker's and back.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flotilla_broker::{QueueDelivery, SignalDelivery, TopicDelivery};
use flotilla_model::command::QueuePolicy;
use flotilla_model::ids::WallTime;
use flotilla_model::message::{Message, Text};
use flotilla_model::name::Name;
use md5::{Digest, Md5};

use super::apart::apart;
use super::error::RequestError;
use super::protocol::{
    Event, EventReceive, QueueMessage, QueueMessageAttributes, QueueMessagePolicy,
};

const SECOND_NS: u64 = 1_000_000_000;
/// Digesting more than this would keep a thread of the runtime from its connections for long.
const DIGEST_INLINE_BYTES_MAX: usize = 1024 * 1024;

/// The id a client gave, or a new one where it gave none. Clients' ids are echoed, never relied on.
pub fn id_or_new(id: String) -> String {
    if id.is_empty() { new_id() } else { id }
}

/// A unique id.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// An event's content; its id must have been filled in.
pub fn event_content(event: Event) -> Message {
    Message {
        id: Text::from(event.event_id),
        source: Text::from(event.client_id),
        metadata: Text::from(event.metadata),
        tags: tags_in(event.tags),
        body: event.body,
    }
}

/// A queue message's content; its id must have been filled in.
pub fn queue_content(message: QueueMessage) -> Message {
    Message {
        id: Text::from(message.message_id),
        source: Text::from(message.client_id),
        metadata: Text::from(message.metadata),
        tags: tags_in(message.tags),
        body: message.body,
    }
}

/// What a checked policy asks for. A count of 0 leaves the limit to the queue's settings.
pub fn policy_in(policy: Option<&QueueMessagePolicy>) -> Result<QueuePolicy, RequestError> {
    let Some(policy) = policy else {
        return Ok(QueuePolicy::default());
    };
    let milliseconds = |seconds: i32| u64::try_from(seconds).unwrap_or(0) * 1_000;
    let ttl_ms = milliseconds(policy.expiration_seconds);
    Ok(QueuePolicy {
        delay_ms: milliseconds(policy.delay_seconds),
        ttl_ms: (ttl_ms > 0).then_some(ttl_ms),
        receive_count_max: u32::try_from(policy.max_receive_count).unwrap_or(0),
        dead_letter: if policy.max_receive_queue.is_empty() {
            None
        } else {
            Some(Name::queue(&policy.max_receive_queue)?)
        },
    })
}

/// When a message that was sent now under a policy is delayed to and expires; 0: not at all.
pub fn sent_times(at: WallTime, policy: Option<&QueueMessagePolicy>) -> (i64, i64) {
    let Some(policy) = policy else {
        return (0, 0);
    };
    let delay_ns = u64::try_from(policy.delay_seconds).unwrap_or(0) * SECOND_NS;
    let ttl_ns = u64::try_from(policy.expiration_seconds).unwrap_or(0) * SECOND_NS;
    let after = |ns: u64| nanoseconds(WallTime(at.0.saturating_add(ns)));
    let delayed_to = if delay_ns > 0 { after(delay_ns) } else { 0 };
    let expires_at = if ttl_ns > 0 {
        after(delay_ns + ttl_ns)
    } else {
        0
    };
    (delayed_to, expires_at)
}

/// A plain event as its listeners get it.
pub fn signal_out(delivery: &SignalDelivery) -> EventReceive {
    EventReceive {
        timestamp: 0,
        sequence: 0,
        ..event_out(delivery.name.text(), &delivery.message)
    }
}

/// A stored event as its readers get it.
pub fn stored_out(channel: &str, delivery: &TopicDelivery) -> EventReceive {
    EventReceive {
        timestamp: nanoseconds(delivery.at),
        sequence: delivery.offset.0,
        ..event_out(channel, &delivery.message)
    }
}

fn event_out(channel: &str, message: &Message) -> EventReceive {
    EventReceive {
        event_id: message.id.as_str().to_owned(),
        channel: channel.to_owned(),
        metadata: message.metadata.as_str().to_owned(),
        body: message.body.clone(),
        tags: tags_out(&message.tags),
        ..EventReceive::default()
    }
}

/// Queue messages as their consumers get them.
///
/// `receive_count_max` is what a message says that has no limit, and whose queue has none.
pub async fn queue_out(
    queue: &Name,
    deliveries: Vec<QueueDelivery>,
    receive_count_max: u32,
) -> Vec<QueueMessage> {
    let body_bytes: usize = deliveries.iter().map(|one| one.message.body.len()).sum();
    let queue = queue.clone();
    let convert = move || -> Vec<QueueMessage> {
        deliveries
            .iter()
            .map(|one| queue_message_out(queue.text(), one, receive_count_max))
            .collect()
    };
    if body_bytes <= DIGEST_INLINE_BYTES_MAX {
        return convert();
    }
    apart(convert).await
}

fn queue_message_out(
    queue: &str,
    delivery: &QueueDelivery,
    receive_count_max: u32,
) -> QueueMessage {
    let message = &delivery.message;
    let policy = &delivery.policy;
    let seconds = |ms: u64| i32::try_from(ms / 1_000).unwrap_or(i32::MAX);
    let count_max = match policy.receive_count_max {
        0 => receive_count_max,
        limit => limit,
    };
    QueueMessage {
        message_id: message.id.as_str().to_owned(),
        client_id: message.source.as_str().to_owned(),
        channel: queue.to_owned(),
        metadata: message.metadata.as_str().to_owned(),
        body: message.body.clone(),
        tags: tags_out(&message.tags),
        attributes: Some(QueueMessageAttributes {
            timestamp: nanoseconds(delivery.published),
            sequence: delivery.sequence.0,
            md5_of_body: md5_hex(&message.body),
            receive_count: i32::try_from(delivery.receive_count).unwrap_or(i32::MAX),
            re_routed: delivery.moved_from.is_some(),
            re_routed_from_queue: delivery
                .moved_from
                .as_ref()
                .map_or_else(String::new, |from| from.text().to_owned()),
            expiration_at: delivery.expires.map_or(0, nanoseconds),
            // It is here: some clients cannot read anything else.
            delayed_to: 0,
        }),
        policy: Some(QueueMessagePolicy {
            expiration_seconds: policy.ttl_ms.map_or(0, seconds),
            delay_seconds: seconds(policy.delay_ms),
            max_receive_count: i32::try_from(count_max).unwrap_or(i32::MAX),
            max_receive_queue: policy
                .dead_letter
                .as_ref()
                .map_or_else(String::new, |queue| queue.text().to_owned()),
        }),
    }
}

/// The protocol's times are signed; the last nanosecond of theirs is in the year 2262.
pub fn nanoseconds(at: WallTime) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// The node's own time, for what no shard has stamped.
pub fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

/// Tags as clients send them.
pub fn tags_in(tags: HashMap<String, String>) -> Vec<(Text, Text)> {
    tags.into_iter()
        .map(|(key, value)| (Text::from(key), Text::from(value)))
        .collect()
}

/// Tags as clients get them.
pub fn tags_out(tags: &[(Text, Text)]) -> HashMap<String, String> {
    tags.iter()
        .map(|(key, value)| (key.as_str().to_owned(), value.as_str().to_owned()))
        .collect()
}

fn md5_hex(body: &Bytes) -> String {
    let mut hex = String::with_capacity(32);
    for byte in Md5::digest(body) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::{LeaseId, Offset, Sequence};

    use super::*;

    fn a_delivery(policy: QueuePolicy, moved_from: Option<Name>) -> QueueDelivery {
        QueueDelivery {
            lease: LeaseId(1),
            sequence: Sequence(7),
            published: WallTime(11),
            receive_count: 2,
            expires: Some(WallTime(13)),
            policy,
            moved_from,
            message: Message {
                id: Text::from("id".to_owned()),
                source: Text::from("client".to_owned()),
                metadata: Text::from("meta".to_owned()),
                tags: vec![(Text::from("k".to_owned()), Text::from("v".to_owned()))],
                body: Bytes::from_static(b"Batch Message 2"),
            },
        }
    }

    #[tokio::test]
    async fn a_delivered_queue_message_has_its_attributes_and_policy() {
        let queue = Name::queue("q").unwrap();
        let policy = QueuePolicy {
            delay_ms: 2_000,
            ttl_ms: Some(5_000),
            receive_count_max: 3,
            dead_letter: Some(Name::queue("dead").unwrap()),
        };
        let messages = queue_out(&queue, vec![a_delivery(policy, None)], 1_024).await;
        let message = &messages[0];
        assert_eq!(message.message_id, "id");
        assert_eq!(message.client_id, "client");
        assert_eq!(message.channel, "q");
        assert_eq!(message.tags["k"], "v");
        let attributes = message.attributes.as_ref().unwrap();
        assert_eq!(attributes.sequence, 7);
        assert_eq!(attributes.timestamp, 11);
        assert_eq!(attributes.receive_count, 2);
        assert_eq!(attributes.expiration_at, 13);
        assert_eq!(attributes.delayed_to, 0);
        assert_eq!(attributes.md5_of_body, "467bd369acea7c452a6ef23d6d33b624");
        assert!(!attributes.re_routed);
        let policy = message.policy.as_ref().unwrap();
        assert_eq!(policy.delay_seconds, 2);
        assert_eq!(policy.expiration_seconds, 5);
        assert_eq!(policy.max_receive_count, 3);
        assert_eq!(policy.max_receive_queue, "dead");
    }

    #[tokio::test]
    async fn a_moved_message_says_from_where_and_no_limit_is_the_highest() {
        let queue = Name::queue("q").unwrap();
        let moved = a_delivery(QueuePolicy::default(), Some(Name::queue("old").unwrap()));
        let messages = queue_out(&queue, vec![moved], 1_024).await;
        let policy = messages[0].policy.as_ref().unwrap();
        assert_eq!(policy.max_receive_count, 1_024);
        let attributes = messages[0].attributes.as_ref().unwrap();
        assert!(attributes.re_routed);
        assert_eq!(attributes.re_routed_from_queue, "old");
    }

    #[tokio::test]
    async fn large_bodies_are_digested_like_small_ones() {
        let queue = Name::queue("q").unwrap();
        let mut large = a_delivery(QueuePolicy::default(), None);
        large.message.body = Bytes::from(vec![b'a'; DIGEST_INLINE_BYTES_MAX + 1]);
        let messages = queue_out(&queue, vec![large.clone()], 0).await;
        let digest = &messages[0].attributes.as_ref().unwrap().md5_of_body;
        assert_eq!(*digest, md5_hex(&large.message.body));
    }

    #[test]
    fn expiry_counts_after_the_delay() {
        let policy = QueueMessagePolicy {
            expiration_seconds: 5,
            delay_seconds: 2,
            ..QueueMessagePolicy::default()
        };
        let at = WallTime(1_000);
        assert_eq!(
            sent_times(at, Some(&policy)),
            (2_000_001_000, 7_000_001_000)
        );
        assert_eq!(sent_times(at, None), (0, 0));
        let stored = policy_in(Some(&policy)).unwrap();
        assert_eq!(stored.delay_ms, 2_000);
        assert_eq!(stored.ttl_ms, Some(5_000));
    }

    #[test]
    fn a_stored_event_carries_sequence_and_time_and_a_plain_one_none() {
        let message = a_delivery(QueuePolicy::default(), None).message;
        let stored = stored_out(
            "a.b",
            &TopicDelivery {
                offset: Offset(3),
                at: WallTime(5),
                message: message.clone(),
            },
        );
        assert_eq!((stored.sequence, stored.timestamp), (3, 5));
        assert_eq!(stored.channel, "a.b");
        assert_eq!(stored.event_id, "id");
        let plain = signal_out(&SignalDelivery {
            name: Name::signal("a.c").unwrap().into(),
            message: message.into(),
        });
        assert_eq!((plain.sequence, plain.timestamp), (0, 0));
        assert_eq!(plain.channel, "a.c");
        assert_eq!(plain.metadata, "meta");
    }
}
