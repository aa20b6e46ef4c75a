//! SubscribeToEvents of stored events: replay, then live, in order and without gaps.

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_broker::{CursorMode, Start, SubscribeTopic, TopicDelivery, TopicSubscription};
use flotilla_model::ids::{DedupId, Offset};
use flotilla_model::name::Name;
use futures::Stream;
use tonic::Status;

use super::context::Context;
use super::convert::stored_out;
use super::error::RequestError;
use super::protocol::EventReceive;

/// Longest client id or group that is part of a cursor's name as it is.
const CURSOR_KEY_BYTES_MAX: usize = 960;
/// What the cursors of clients begin with.
const CLIENT: &str = "client";
/// So much is given to the transport before it is asked whether it took it.
const RUN_BYTES_MAX: usize = 64 * 1024;

/// Under which name the reader's position is kept: its group's, or its own.
pub fn cursor(client_id: &str, group: &str, durable_resume: bool) -> CursorMode {
    if !group.is_empty() {
        CursorMode::Group {
            name: cursor_name("group", group),
        }
    } else if durable_resume {
        CursorMode::Exclusive {
            name: cursor_name(CLIENT, client_id),
        }
    } else {
        CursorMode::None
    }
}

/// Whether a cursor is that of a client, and not of this one.
pub fn is_cursor_of_other(cursor: &str, client_id: &str) -> bool {
    let is_of_client = cursor
        .strip_prefix(CLIENT)
        .is_some_and(|rest| rest.starts_with(':'));
    is_of_client && cursor != cursor_name(CLIENT, client_id)
}

/// Readable in listings; of keys that are too long a digest stands for the rest.
fn cursor_name(kind: &str, key: &str) -> String {
    if key.len() <= CURSOR_KEY_BYTES_MAX {
        return format!("{kind}:{key}");
    }
    let mut end = CURSOR_KEY_BYTES_MAX;
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    let digest = u128::from_be_bytes(DedupId::of(key.as_bytes()).0);
    format!("{kind}:{}#{digest:032x}", &key[..end])
}

/// Opens a subscription; it is live when this returns.
pub async fn subscribe(
    context: Arc<Context>,
    topic: Name,
    start: Start,
    cursor: CursorMode,
) -> Result<impl Stream<Item = Result<EventReceive, Status>> + Send + use<>, Status> {
    let opening = context.broker.subscribe_topic(SubscribeTopic {
        topic: topic.clone(),
        start,
        cursor,
        buffer_messages: context.config.subscription_messages_max,
        buffer_bytes: context.config.subscription_bytes_max,
    });
    let subscription = context
        .until_ending(opening)
        .await?
        .map_err(RequestError::from)?;
    let delivery = Delivery {
        context,
        topic,
        subscription,
        arrived: VecDeque::new(),
        given: None,
        given_bytes: 0,
    };
    Ok(futures::stream::try_unfold(
        delivery,
        |mut delivery| async move {
            let event = delivery.next_event().await?;
            Ok(Some((event, delivery)))
        },
    ))
}

struct Delivery {
    context: Arc<Context>,
    topic: Name,
    subscription: TopicSubscription,
    arrived: VecDeque<TopicDelivery>,
    /// The last event that was given out but perhaps is still in the encoder's buffer.
    given: Option<Offset>,
    given_bytes: usize,
}

impl Delivery {
    async fn next_event(&mut self) -> Result<EventReceive, Status> {
        loop {
            if self.given_bytes < RUN_BYTES_MAX
                && let Some(delivery) = self.arrived.pop_front()
            {
                self.given = Some(delivery.offset);
                self.given_bytes += delivery.message.encoded_len();
                return Ok(stored_out(self.topic.text(), &delivery));
            }
            if let Some(upto) = self.given.take() {
                // Being pending once makes the encoder hand over what it has gathered, and the
                // gate lets the transport come back here only when the client had room for it.
                tokio::task::yield_now().await;
                self.subscription.done(upto);
                self.given_bytes = 0;
                continue;
            }
            self.arrived = self
                .context
                .until_ending(self.subscription.next())
                .await?
                .map_err(RequestError::from)?
                .into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_one_position_and_a_client_has_its_own() {
        let name = |mode| match mode {
            CursorMode::None => String::new(),
            CursorMode::Exclusive { name } => format!("exclusive {name}"),
            CursorMode::Group { name } => format!("group {name}"),
        };
        assert_eq!(name(cursor("a", "g", true)), "group group:g");
        assert_eq!(name(cursor("b", "g", false)), "group group:g");
        assert_eq!(name(cursor("g", "", true)), "exclusive client:g");
        assert_eq!(cursor("g", "", false), CursorMode::None);
    }

    #[test]
    fn the_cursor_of_a_client_is_told_from_those_of_others() {
        assert!(is_cursor_of_other("client:b", "a"));
        assert!(is_cursor_of_other("client:", "a"));
        for own in ["client:a", "group:b", "clients", "mine"] {
            assert!(!is_cursor_of_other(own, "a"), "{own}");
        }
    }

    #[test]
    fn long_keys_keep_apart_within_the_length_of_a_cursor_name() {
        let base = "ä".repeat(2_000);
        let one = cursor_name("client", &format!("{base}1"));
        let two = cursor_name("client", &format!("{base}2"));
        assert_ne!(one, two);
        assert!(one.len() <= 1_024 && two.len() <= 1_024);
    }
}
