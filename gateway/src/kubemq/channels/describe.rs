//! Channels as clients read them: JSON in which every key is there.

use bytes::Bytes;
use flotilla_broker::ObjectSummary;
use serde::Serialize;

use crate::kubemq::error::RequestError;

/// A channel counts as active this long after its last message.
const ACTIVE_MS: i64 = 60_000;
/// No channel is described in less.
const CHANNEL_BYTES_MIN: usize = 128;

/// A channel as the clients of this protocol know it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Channel<'a> {
    name: &'a str,
    r#type: &'static str,
    last_activity: i64,
    is_active: bool,
    incoming: Figures,
    outgoing: Figures,
}

/// What went one way. What a pattern does not have is 0.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Figures {
    messages: u64,
    volume: u64,
    responses: u64,
    waiting: u64,
    expired: u64,
    delayed: u64,
}

impl<'a> Channel<'a> {
    /// Of what the broker knows of a name.
    pub fn of(kind: &'static str, item: &'a ObjectSummary, now_ms: i64) -> Self {
        let last = item.last_published.map_or(0, |at| at.0 / 1_000_000);
        // When something was put into a queue last is not kept.
        let is_in_use =
            item.subscriber_count > 0 || item.available + item.leased + item.delayed > 0;
        let last_activity = i64::try_from(last).unwrap_or(i64::MAX);
        // Both ways alike: clients look for what is in a queue in either.
        let now = Figures {
            waiting: item.available,
            expired: item.expired_total,
            delayed: item.delayed,
            ..Figures::default()
        };
        Self {
            name: item.name.text(),
            r#type: kind,
            last_activity,
            is_active: is_in_use || last_activity > now_ms - ACTIVE_MS,
            incoming: Figures {
                messages: item.published_total,
                volume: item.bytes,
                ..now
            },
            outgoing: Figures {
                messages: item.delivered_total,
                ..now
            },
        }
    }
}

/// A list that is not longer than clients take.
pub struct List {
    json: Vec<u8>,
    bytes_max: usize,
}

impl List {
    /// With at most so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            json: vec![b'['],
            bytes_max,
        }
    }

    /// Refuses so many channels as cannot fit.
    pub fn check_count(&self, channels: usize) -> Result<(), RequestError> {
        if channels > self.bytes_max / CHANNEL_BYTES_MIN {
            return Err(self.too_long());
        }
        Ok(())
    }

    /// Adds one.
    pub fn add(&mut self, channel: &Channel<'_>) -> Result<(), RequestError> {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        serde_json::to_writer(&mut self.json, channel).map_err(|error| RequestError::Describe {
            what: error.to_string(),
        })?;
        if self.json.len() > self.bytes_max {
            return Err(self.too_long());
        }
        Ok(())
    }

    /// The whole of it.
    pub fn finish(mut self) -> Bytes {
        self.json.push(b']');
        self.json.into()
    }

    fn too_long(&self) -> RequestError {
        RequestError::ListTooLong {
            allowed: self.bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::WallTime;
    use flotilla_model::name::Name;

    use super::*;

    fn an_item(name: &str) -> ObjectSummary {
        ObjectSummary {
            name: Name::queue(name).unwrap(),
            messages: 6,
            bytes: 60,
            available: 3,
            leased: 2,
            delayed: 1,
            published_total: 10,
            delivered_total: 5,
            expired_total: 4,
            subscriber_count: 0,
            last_published: Some(WallTime(7_000_000)),
        }
    }

    fn json(list: List) -> String {
        String::from_utf8(list.finish().to_vec()).unwrap()
    }

    #[test]
    fn a_channel_has_every_key() {
        let item = an_item("q\"1");
        let mut list = List::new(10_000);
        list.add(&Channel::of("queues", &item, 8)).unwrap();
        let figures = r#""responses":0,"waiting":3,"expired":4,"delayed":1"#;
        let expected = format!(
            r#"[{{"name":"q\"1","type":"queues","lastActivity":7,"isActive":true,"incoming":{{"messages":10,"volume":60,{figures}}},"outgoing":{{"messages":5,"volume":0,{figures}}}}}]"#
        );
        assert_eq!(json(list), expected);
        assert_eq!(json(List::new(10)), "[]");
    }

    #[test]
    fn a_channel_is_active_while_it_is_used_or_listened_to() {
        let mut item = an_item("q");
        assert!(
            Channel::of("queues", &item, 99_999).is_active,
            "it holds messages"
        );
        (item.available, item.leased, item.delayed) = (0, 0, 0);
        assert!(Channel::of("queues", &item, 60_006).is_active);
        assert!(!Channel::of("queues", &item, 60_007).is_active);
        item.subscriber_count = 1;
        assert!(Channel::of("queues", &item, 99_999).is_active);
        item.last_published = None;
        assert_eq!(Channel::of("queues", &item, 0).last_activity, 0);
    }

    #[test]
    fn a_list_that_clients_could_not_read_is_refused() {
        let item = an_item("q");
        let mut list = List::new(1_000);
        assert!(list.check_count(7).is_ok());
        assert!(list.check_count(8).is_err());
        let error = (0..8)
            .find_map(|_| list.add(&Channel::of("queues", &item, 8)).err())
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the list has more than 1000 bytes: search for fewer channels"
        );
    }
}
