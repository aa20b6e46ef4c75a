//! The mapping to the letter of the protocol's documentation, and against whatever else is sent.

use std::collections::HashMap;
use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::{Value, read, text};
use crate::any_json::any_object;
use crate::kubemq::protocol::{
    Event, EventReceive, QueueMessage, QueueMessageAttributes, QueueMessagePolicy,
    QueueMessagesBatchRequest, ReceiveQueueMessagesRequest, ReceiveQueueMessagesResponse, Request,
    Response, SendQueueMessageResult, StreamQueueMessagesRequest, StreamQueueMessagesResponse,
};
use crate::transport::codec::{MESSAGES_MAX, PARTS_MAX};

#[test]
fn messages_of_the_documentation_are_read() {
    let message: QueueMessage = read(
        br#"{"Id":"1","ClientId":"Some-client","Channel":"q.batch","Metadata":"m",
             "Body":"QmF0Y2ggTWVzc2FnZSAy","Tags":{"k":"v"},"Attributes":null,
             "policy":{"expirationseconds":5,"MAXRECEIVEQUEUE":"dead"}}"#,
    )
    .unwrap();
    let expected = QueueMessage {
        client_id: "Some-client".to_owned(),
        channel: "q.batch".to_owned(),
        metadata: "m".to_owned(),
        body: Bytes::from_static(b"Batch Message 2"),
        tags: [("k".to_owned(), "v".to_owned())].into(),
        policy: Some(QueueMessagePolicy {
            expiration_seconds: 5,
            max_receive_queue: "dead".to_owned(),
            ..QueueMessagePolicy::default()
        }),
        ..QueueMessage::default()
    };
    assert_eq!(message, expected);
    let request: Request = read(br#"{"RequestTypeData":2,"Timeout":1000,"CacheTTL":7}"#).unwrap();
    let numbers = (
        request.request_type_data,
        request.timeout,
        request.cache_ttl,
    );
    assert_eq!(numbers, (2, 1_000, 7));
}

#[test]
fn zero_values_are_left_out_and_64_bit_numbers_are_numbers() {
    let event = EventReceive {
        event_id: "1".to_owned(),
        body: Bytes::from_static(b"\x00\xff"),
        timestamp: i64::MIN,
        sequence: u64::MAX,
        tags: [
            ("b".to_owned(), String::new()),
            ("a".to_owned(), "\"".to_owned()),
        ]
        .into(),
        ..EventReceive::default()
    };
    assert_eq!(
        text(&event).unwrap(),
        r#"{"EventID":"1","Body":"AP8=","Timestamp":-9223372036854775808,"Sequence":18446744073709551615,"Tags":{"a":"\"","b":""}}"#
    );
    assert_eq!(text(&Event::default()).unwrap(), "{}");
    let answer = ReceiveQueueMessagesResponse {
        messages: vec![QueueMessage::default(), QueueMessage::default()],
        is_error: true,
        ..ReceiveQueueMessagesResponse::default()
    };
    assert_eq!(
        text(&answer).unwrap(),
        r#"{"Messages":[{},{}],"IsError":true}"#
    );
}

#[test]
fn null_is_the_zero_value_and_unknown_keys_are_passed_over() {
    let event: Event = read(
        br#"{"EventID":null,"Body":null,"Store":null,"Tags":null,"Extra":{"a":[1,{"b":null}]}}"#,
    )
    .unwrap();
    assert_eq!(event, Event::default());
    assert_eq!(read::<Event>(b" null ").unwrap(), Event::default());
    let batch: QueueMessagesBatchRequest = read(br#"{"Messages":null}"#).unwrap();
    assert!(batch.messages.is_empty());
}

#[test]
fn base64_is_read_with_its_padding_and_without() {
    for body in ["YQ==", "YQ"] {
        let event: Event = read(format!(r#"{{"Body":"{body}"}}"#).as_bytes()).unwrap();
        assert_eq!(event.body, "a");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_field_and_place() {
    let cases: [(&str, &str); 8] = [
        ("", "EOF"),
        ("[]", "invalid type: sequence, expected an object"),
        ("{\"Channel\":5}", "Channel: invalid type: integer `5`"),
        ("{\"Store\":\"true\"}", "Store: invalid type: string"),
        ("{\"Body\":\"a-_\"}", "Body: no base64"),
        ("{\"Tags\":{\"a\":1}}", "Tags: invalid type"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ("{\"Channel\":\"a\"", "EOF while parsing"),
    ];
    for (body, expected) in cases {
        let error = read::<Event>(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
    let error = read::<Request>(br#"{"Timeout":2147483648}"#).unwrap_err();
    assert!(
        error.to_string().contains("Timeout: invalid value"),
        "{error}"
    );
    let error = read::<StreamQueueMessagesRequest>(br#"{"RefSequence":-1}"#).unwrap_err();
    assert!(error.to_string().contains("RefSequence"), "{error}");
}

#[test]
fn a_small_body_does_not_become_a_large_request() {
    let messages = format!(r#"{{"Messages":[{}{{}}]}}"#, "{},".repeat(MESSAGES_MAX));
    let error = read::<QueueMessagesBatchRequest>(messages.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("65536 messages"), "{error}");
    let fields = format!(r#"{{{}"Store":true}}"#, r#""x":0,"#.repeat(PARTS_MAX));
    let error = read::<Event>(fields.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("fields and tags"), "{error}");
}

#[test]
fn no_depth_of_what_is_passed_over_does_harm() {
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let _ = read::<Event>(deep.as_bytes());
    let _ = read::<Event>("[".repeat(100_000).as_bytes());
}

fn tags() -> impl Strategy<Value = HashMap<String, String>> {
    proptest::collection::hash_map(".{0,8}", ".{0,8}", 0..4)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    any::<Vec<u8>>().prop_map(Bytes::from)
}

prop_compose! {
    fn a_message()(
        ids in proptest::collection::vec(".{0,12}", 4),
        body in bytes(),
        tags in tags(),
        attributes in proptest::option::of((any::<i64>(), any::<u64>(), any::<i32>(), any::<bool>())),
        policy in proptest::option::of((any::<i32>(), ".{0,5}")),
    ) -> QueueMessage {
        QueueMessage {
            message_id: ids[0].clone(),
            client_id: ids[1].clone(),
            channel: ids[2].clone(),
            metadata: ids[3].clone(),
            body,
            tags,
            attributes: attributes.map(|(time, sequence, count, flag)| QueueMessageAttributes {
                timestamp: time,
                sequence,
                md5_of_body: "5".to_owned(),
                receive_count: count,
                re_routed: flag,
                re_routed_from_queue: "from".to_owned(),
                expiration_at: time,
                delayed_to: time,
            }),
            policy: policy.map(|(number, queue)| QueueMessagePolicy {
                expiration_seconds: number,
                delay_seconds: number,
                max_receive_count: number,
                max_receive_queue: queue,
            }),
        }
    }
}

/// Fields of requests, in whatever spelling.
const FIELDS: [&str; 14] = [
    "EventID",
    "clientid",
    "CHANNEL",
    "Metadata",
    "Body",
    "Store",
    "Tags",
    "RequestTypeData",
    "StreamRequestTypeData",
    "Timeout",
    "RefSequence",
    "Policy",
    "Attributes",
    "Messages",
];

fn is_understood<M: Value + PartialEq + Debug>(json: &str) {
    if let Ok(message) = read::<M>(json.as_bytes()) {
        assert_eq!(
            read::<M>(text(&message).unwrap().as_bytes()).unwrap(),
            message
        );
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        message in a_message(),
        flag in any::<bool>(),
        number in any::<i64>(),
        small in any::<i32>(),
    ) {
        let QueueMessage { message_id: id, metadata, body, tags, .. } = message.clone();
        let event = Event {
            event_id: id.clone(), client_id: metadata.clone(), channel: id.clone(),
            metadata: metadata.clone(), body: body.clone(), store: flag, tags: tags.clone(),
        };
        prop_assert_eq!(read::<Event>(text(&event).unwrap().as_bytes()).unwrap(), event);
        let request = Request {
            request_id: id.clone(), request_type_data: small, client_id: metadata.clone(),
            channel: id.clone(), metadata: metadata.clone(), body: body.clone(),
            reply_channel: id.clone(), timeout: small, cache_key: id.clone(), cache_ttl: small,
            span: body.clone(), tags: tags.clone(),
        };
        prop_assert_eq!(read::<Request>(text(&request).unwrap().as_bytes()).unwrap(), request);
        let response = Response {
            client_id: id.clone(), request_id: metadata.clone(), reply_channel: id.clone(),
            metadata, body: body.clone(), cache_hit: flag, timestamp: number, executed: flag,
            error: id.clone(), span: body, tags,
        };
        prop_assert_eq!(read::<Response>(text(&response).unwrap().as_bytes()).unwrap(), response);
        let result = SendQueueMessageResult {
            message_id: id.clone(), sent_at: number, expiration_at: number, delayed_to: number,
            is_error: flag, error: id.clone(),
        };
        prop_assert_eq!(
            read::<SendQueueMessageResult>(text(&result).unwrap().as_bytes()).unwrap(), result);
        let asked = StreamQueueMessagesRequest {
            request_id: id.clone(), client_id: id.clone(), stream_request_type_data: small,
            channel: id.clone(), visibility_seconds: small, wait_time_seconds: small,
            ref_sequence: number.unsigned_abs(), modified_message: Some(message.clone()),
        };
        prop_assert_eq!(
            read::<StreamQueueMessagesRequest>(text(&asked).unwrap().as_bytes()).unwrap(), asked);
        let told = StreamQueueMessagesResponse {
            request_id: id.clone(), stream_request_type_data: small, message: Some(message.clone()),
            is_error: flag, error: id.clone(),
        };
        prop_assert_eq!(
            read::<StreamQueueMessagesResponse>(text(&told).unwrap().as_bytes()).unwrap(), told);
        let batch = QueueMessagesBatchRequest {
            batch_id: id,
            messages: vec![message, QueueMessage::default()],
        };
        prop_assert_eq!(
            read::<QueueMessagesBatchRequest>(text(&batch).unwrap().as_bytes()).unwrap(), batch);
    }

    /// Fields that there are, with values of whatever kind: what is taken is what is written of it.
    #[test]
    fn fields_of_any_value_are_refused_or_understood(
        object in any_object(&FIELDS),
        message in any_object(&FIELDS),
    ) {
        let mut object = object;
        object["ModifiedMessage"] = message.clone();
        for json in [object.to_string(), message.to_string(), json!({"Messages": [message]}).to_string()] {
            is_understood::<Event>(&json);
            is_understood::<Request>(&json);
            is_understood::<Response>(&json);
            is_understood::<QueueMessagesBatchRequest>(&json);
            is_understood::<ReceiveQueueMessagesRequest>(&json);
            is_understood::<StreamQueueMessagesRequest>(&json);
        }
    }

    /// Whatever is sent.
    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
        let _ = read::<QueueMessagesBatchRequest>(&bytes);
    }

    /// Texts that are nearly right.
    #[test]
    fn torn_and_spoilt_messages_are_survived(
        message in a_message(),
        cut in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let batch = QueueMessagesBatchRequest { batch_id: "b".to_owned(), messages: vec![message] };
        let mut json = text(&batch).unwrap().into_bytes();
        let _ = read::<QueueMessagesBatchRequest>(&json[..cut.index(json.len())]);
        let place = place.index(json.len());
        json[place] = byte;
        let _ = read::<QueueMessagesBatchRequest>(&json);
        let _ = read::<ReceiveQueueMessagesRequest>(&json);
    }
}
