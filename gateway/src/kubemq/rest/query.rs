//! What stands in the query of a path: subscriptions, and which queues are asked for.

use super::error::RestError;
use crate::kubemq::error::shown;
use crate::kubemq::protocol::subscribe::SubscribeType;
use crate::kubemq::protocol::{QueuesInfoRequest, Subscribe};

/// A subscription, as the query describes it. What is no type of one is none, for whoever checks it.
pub fn subscribe(query: &str) -> Result<Subscribe, RestError> {
    let mut request = Subscribe::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let text = || value.clone().into_owned();
        if is(&key, "client_id") {
            request.client_id = text();
        } else if is(&key, "channel") {
            request.channel = text();
        } else if is(&key, "group") {
            request.group = text();
        } else if is(&key, "subscribe_type") {
            request.subscribe_type_data = subscribe_type(&value) as i32;
        } else if is(&key, "events_store_type_data") {
            request.events_store_type_data = number("events_store_type_data", &value)?;
        } else if is(&key, "events_store_type_value") {
            request.events_store_type_value = number("events_store_type_value", &value)?;
        }
    }
    Ok(request)
}

fn subscribe_type(name: &str) -> SubscribeType {
    match name {
        "events" => SubscribeType::Events,
        "events_store" => SubscribeType::EventsStore,
        "commands" => SubscribeType::Commands,
        "queries" => SubscribeType::Queries,
        _ => SubscribeType::Undefined,
    }
}

/// Which queues are asked for.
pub fn queues_info(query: &str) -> QueuesInfoRequest {
    let mut request = QueuesInfoRequest::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if is(&key, "request_id") {
            request.request_id = value.into_owned();
        } else if is(&key, "queue_name") {
            request.queue_name = value.into_owned();
        }
    }
    request
}

/// Keys are written as in JSON by some clients, and with underscores by others.
fn is(key: &str, name: &str) -> bool {
    let letters = |text: &str| -> Vec<u8> {
        let bytes = text.bytes().filter(|byte| *byte != b'_');
        bytes.map(|byte| byte.to_ascii_lowercase()).collect()
    };
    letters(key) == letters(name)
}

fn number<N: std::str::FromStr + Default>(key: &'static str, value: &str) -> Result<N, RestError> {
    if value.is_empty() {
        return Ok(N::default());
    }
    value.parse().map_err(|_| RestError::Number {
        key,
        given: shown(value),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subscription_is_read_from_its_query() {
        let request = subscribe(
            "client_id=a%20b&channel=foo.*&group=g+1&subscribe_type=events_store\
             &events_store_type_data=4&events_store_type_value=-9&other=1",
        )
        .unwrap();
        let expected = Subscribe {
            subscribe_type_data: SubscribeType::EventsStore as i32,
            client_id: "a b".to_owned(),
            channel: "foo.*".to_owned(),
            group: "g 1".to_owned(),
            events_store_type_data: 4,
            events_store_type_value: -9,
        };
        assert_eq!(request, expected);
        let request = subscribe("subscribe_type=queries&ClientID=c").unwrap();
        assert_eq!(request.subscribe_type_data(), SubscribeType::Queries);
        assert_eq!(request.client_id, "c");
        for query in ["", "subscribe_type=Events&events_store_type_value="] {
            assert_eq!(subscribe(query).unwrap(), Subscribe::default(), "{query}");
        }
    }

    #[test]
    fn a_number_that_is_none_is_named() {
        let refused = subscribe("events_store_type_data=first").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "events_store_type_data is \"first\" in the query, it must be a whole number"
        );
    }

    /// Parts of queries, right and wrong.
    const PARTS: [&str; 12] = [
        "&",
        "=",
        "%",
        "%2",
        "%zz",
        "+",
        "client_id",
        "ClientID",
        "subscribe_type",
        "events_store",
        "events_store_type_data",
        "queue_name",
    ];

    proptest! {
        #[test]
        fn any_query_is_refused_or_understood(
            parts in prop::collection::vec(
                prop_oneof![3 => prop::sample::select(&PARTS[..]).prop_map(str::to_owned), 1 => ".{0,6}"],
                0..12,
            )
        ) {
            let query = parts.concat();
            if let Ok(request) = subscribe(&query) {
                let kinds = 0..=SubscribeType::Queries as i32;
                prop_assert!(kinds.contains(&request.subscribe_type_data));
            }
            let asked = queues_info(&query);
            prop_assert!(asked.queue_name.is_empty() || query.len() > "queuename".len());
        }

        #[test]
        fn what_is_written_into_a_query_is_read_back(
            client_id in ".{0,20}", channel in ".{0,20}", value in any::<i64>(),
        ) {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("client_id", &client_id)
                .append_pair("channel", &channel)
                .append_pair("events_store_type_value", &value.to_string())
                .finish();
            let request = subscribe(&query).unwrap();
            prop_assert_eq!(request.client_id, client_id);
            prop_assert_eq!(request.channel, channel);
            prop_assert_eq!(request.events_store_type_value, value);
        }
    }

    #[test]
    fn queues_are_named_in_either_spelling() {
        for query in ["RequestID=1&QueueName=a%3Bb", "request_id=1&queue_name=a;b"] {
            let request = queues_info(query);
            let got = (request.request_id.as_str(), request.queue_name.as_str());
            assert_eq!(got, ("1", "a;b"), "{query}");
        }
    }
}
