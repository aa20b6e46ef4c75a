//! Every rule of the protocol's table that this module is for: what is refused, and as what.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn an_event(client_id: &str, channel: &str) -> Event {
    Event {
        client_id: client_id.to_owned(),
        channel: channel.to_owned(),
        metadata: "m".to_owned(),
        ..Event::default()
    }
}

fn a_queue_message(channel: &str) -> QueueMessage {
    QueueMessage {
        client_id: "c".to_owned(),
        channel: channel.to_owned(),
        body: Bytes::from_static(b"b"),
        ..QueueMessage::default()
    }
}

fn a_subscribe(kind: SubscribeType, start: EventsStoreType, value: i64) -> Subscribe {
    Subscribe {
        subscribe_type_data: kind as i32,
        client_id: "c".to_owned(),
        channel: "a.b".to_owned(),
        group: String::new(),
        events_store_type_data: start as i32,
        events_store_type_value: value,
    }
}

#[test]
fn bad_channels_of_events_are_refused_with_their_own_text() {
    let cases = [
        (
            "",
            "x",
            "Error 101: invalid clientID value, cannot be empty",
        ),
        ("c", "", "Error 102: invalid channel value, cannot be empty"),
        (
            "c",
            "a.",
            "Error 119: invalid channel value, cannot end with `.`",
        ),
        (
            "c",
            "a b",
            "Error 108: invalid channel value, no white spaces are allowed",
        ),
        (
            "c",
            "a\tb",
            "Error 108: invalid channel value, no white spaces are allowed",
        ),
        (
            "c",
            "a\u{2003}b",
            "Error 108: invalid channel value, no white spaces are allowed",
        ),
        (
            "c",
            "a.*",
            "Error 107: invalid channel value, no wildcards are allowed",
        ),
        (
            "c",
            "a*",
            "Error 107: invalid channel value, no wildcards are allowed",
        ),
        (
            "c",
            ">",
            "Error 107: invalid channel value, no wildcards are allowed",
        ),
    ];
    for (client_id, channel, text) in cases {
        for store in [false, true] {
            let given = Event {
                store,
                ..an_event(client_id, channel)
            };
            assert_eq!(event(&given).unwrap_err().to_string(), text, "{channel:?}");
        }
    }
}

#[test]
fn the_first_failure_in_the_protocols_order_is_the_answer() {
    let mut given = Event::default();
    assert_eq!(event(&given), Err(RequestError::ClientId));
    given.client_id = "c".to_owned();
    assert_eq!(event(&given), Err(RequestError::ChannelEmpty));
    given.channel = "a *.".to_owned();
    assert_eq!(event(&given), Err(RequestError::ChannelDot));
    given.channel = "a *".to_owned();
    assert_eq!(event(&given), Err(RequestError::ChannelSpace));
    given.channel = "*".to_owned();
    assert_eq!(event(&given), Err(RequestError::ChannelWildcard));
    given.channel = "a".to_owned();
    assert_eq!(event(&given), Err(RequestError::MessageEmpty));
    given.body = Bytes::from_static(b"x");
    assert_eq!(event(&given), Ok(Name::signal("a").unwrap()));
    given.store = true;
    assert_eq!(event(&given), Ok(Name::topic("a").unwrap()));
}

#[test]
fn tags_alone_make_no_message() {
    let mut given = an_event("c", "a");
    given.metadata.clear();
    given.tags.insert("k".to_owned(), "v".to_owned());
    assert_eq!(
        event(&given).unwrap_err().to_string(),
        "Error 110: invalid message, cannot be empty"
    );
    let mut given = a_queue_message("q");
    given.body = Bytes::new();
    given.tags.insert("k".to_owned(), "v".to_owned());
    assert_eq!(
        queue_message(&given, &KubemqLimits::default()),
        Err(RequestError::MessageEmpty)
    );
}

#[test]
fn every_bad_queue_name_has_one_text() {
    let text = "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot";
    let limits = KubemqLimits::default();
    for name in ["", "q.", "a b", "q*", "a.>", "\n"] {
        assert_eq!(
            queue_message(&a_queue_message(name), &limits)
                .unwrap_err()
                .to_string(),
            text
        );
        let mut with_policy = a_queue_message("q");
        with_policy.policy = Some(QueueMessagePolicy {
            max_receive_queue: name.to_owned(),
            ..QueueMessagePolicy::default()
        });
        let refused = queue_message(&with_policy, &limits);
        if name.is_empty() {
            assert!(refused.is_ok(), "no dead letter queue is no error");
        } else {
            assert_eq!(refused.unwrap_err().to_string(), text);
        }
    }
}

#[test]
fn a_name_longer_than_any_name_may_be_is_refused() {
    let long = "x".repeat(70_000);
    assert!(matches!(
        event(&an_event("c", &long)),
        Err(RequestError::Name(_))
    ));
    assert!(matches!(queue_name(&long), Err(RequestError::Name(_))));
}

#[test]
fn policies_outside_their_limits_are_refused() {
    let limits = KubemqLimits::default();
    let cases = [
        ((-1, 0, 0), Err(RequestError::Expiration)),
        ((43_201, 0, 0), Err(RequestError::Expiration)),
        ((43_200, 43_200, 1_024), Ok(())),
        ((0, -1, 0), Err(RequestError::Delay)),
        ((0, 43_201, 0), Err(RequestError::Delay)),
        ((0, 0, -1), Err(RequestError::ReceiveCount)),
        ((0, 0, 1_025), Err(RequestError::ReceiveCount)),
        ((0, 86_400, 1_025), Err(RequestError::ReceiveCount)),
        ((0, 0, 0), Ok(())),
    ];
    for ((expiration_seconds, delay_seconds, max_receive_count), expected) in cases {
        let mut given = a_queue_message("q");
        given.policy = Some(QueueMessagePolicy {
            expiration_seconds,
            delay_seconds,
            max_receive_count,
            max_receive_queue: String::new(),
        });
        assert_eq!(queue_message(&given, &limits).map(|_| ()), expected);
    }
}

#[test]
fn receives_are_bounded_in_messages_and_wait() {
    let limits = KubemqLimits::default();
    let cases = [
        ((0, 1), Err(RequestError::MessagesMax)),
        ((-1, 1), Err(RequestError::MessagesMax)),
        ((1_025, 1), Err(RequestError::MessagesMax)),
        ((1_025, -1), Err(RequestError::MessagesMax)),
        ((1, -1), Err(RequestError::WaitTimeout)),
        ((1, 3_601), Err(RequestError::WaitTimeout)),
        ((1, 0), Ok(())),
        ((1_024, 3_600), Ok(())),
    ];
    for ((max_number_of_messages, wait_time_seconds), expected) in cases {
        let request = ReceiveQueueMessagesRequest {
            client_id: "c".to_owned(),
            channel: "q".to_owned(),
            max_number_of_messages,
            wait_time_seconds,
            ..ReceiveQueueMessagesRequest::default()
        };
        assert_eq!(receive(&request, &limits).map(|_| ()), expected);
        let nameless = ReceiveQueueMessagesRequest {
            channel: String::new(),
            ..request.clone()
        };
        assert_eq!(receive(&nameless, &limits), Err(RequestError::QueueName));
        let anonymous = ReceiveQueueMessagesRequest {
            client_id: String::new(),
            ..nameless
        };
        assert_eq!(receive(&anonymous, &limits), Err(RequestError::ClientId));
    }
}

#[test]
fn emptying_a_queue_and_gets_check_client_queue_and_wait() {
    let limits = KubemqLimits::default();
    let mut request = AckAllQueueMessagesRequest::default();
    assert_eq!(ack_all(&request, &limits), Err(RequestError::ClientId));
    request.client_id = "c".to_owned();
    assert_eq!(ack_all(&request, &limits), Err(RequestError::QueueName));
    request.channel = "q".to_owned();
    request.wait_time_seconds = 3_601;
    assert_eq!(ack_all(&request, &limits), Err(RequestError::WaitTimeout));
    request.wait_time_seconds = 0;
    assert!(ack_all(&request, &limits).is_ok());

    let mut get = QueuesDownstreamRequest::default();
    assert_eq!(downstream_get(&get, &limits), Err(RequestError::ClientId));
    get.client_id = "c".to_owned();
    assert_eq!(downstream_get(&get, &limits), Err(RequestError::QueueName));
    get.channel = "q".to_owned();
    for (wait_timeout, is_right) in [
        (0, true),
        (3_600_000, true),
        (3_600_001, false),
        (-1, false),
    ] {
        get.wait_timeout = wait_timeout;
        assert_eq!(
            downstream_get(&get, &limits).is_ok(),
            is_right,
            "{wait_timeout}"
        );
    }
}

#[test]
fn subscriptions_are_of_the_right_type_with_the_right_parameters() {
    use EventsStoreType as From;
    use SubscribeType as Type;
    let cases = [
        (
            (Type::Undefined, From::Undefined, 0),
            "Error 207: invalid subscribe type",
        ),
        (
            (Type::Commands, From::Undefined, 0),
            "Error 207: invalid subscribe type",
        ),
        (
            (Type::Queries, From::Undefined, 0),
            "Error 207: invalid subscribe type",
        ),
        (
            (Type::Events, From::StartFromFirst, 0),
            "Error 118: event store parameters were set but subscribe type is not event store",
        ),
        (
            (Type::EventsStore, From::Undefined, 0),
            "Error 111: invalid subscription type, cannot be undefined or 0",
        ),
        (
            (Type::EventsStore, From::StartAtSequence, 0),
            "Error 112: invalid subscription type start at sequence value, cannot by 0 or negative",
        ),
        (
            (Type::EventsStore, From::StartAtTime, -1),
            "Error 113: invalid subscription type start at time value, cannot by 0 or negative",
        ),
        (
            (Type::EventsStore, From::StartAtTimeDelta, 0),
            "Error 114: invalid subscription type start at time delta value, cannot by 0 or negative",
        ),
    ];
    for ((kind, start, value), text) in cases {
        let request = a_subscribe(kind, start, value);
        assert_eq!(subscription(&request).unwrap_err().to_string(), text);
    }
    let mut unknown = a_subscribe(Type::EventsStore, From::Undefined, 1);
    unknown.events_store_type_data = 9;
    assert_eq!(subscription(&unknown), Err(RequestError::StartUndefined));
}

#[test]
fn wildcards_are_for_plain_events_only() {
    let mut request = a_subscribe(SubscribeType::Events, EventsStoreType::Undefined, 0);
    request.channel = "a.*.>".to_owned();
    assert_eq!(subscription(&request), Ok(Subscription::Events));
    let mut request = a_subscribe(SubscribeType::EventsStore, EventsStoreType::StartNewOnly, 0);
    request.channel = "a.*".to_owned();
    assert_eq!(subscription(&request), Err(RequestError::ChannelWildcard));
    request.client_id.clear();
    assert_eq!(subscription(&request), Err(RequestError::ClientId));
}

#[test]
fn each_start_position_is_understood() {
    let cases = [
        ((EventsStoreType::StartNewOnly, 0), Start::NewOnly),
        ((EventsStoreType::StartFromFirst, 0), Start::First),
        ((EventsStoreType::StartFromLast, 7), Start::Last),
        (
            (EventsStoreType::StartAtSequence, 7),
            Start::Offset(Offset(7)),
        ),
        (
            (EventsStoreType::StartAtTime, 1_700_000_000),
            Start::Wall(WallTime(1_700_000_000_000_000_000)),
        ),
        (
            (EventsStoreType::StartAtTimeDelta, 60),
            Start::Ago(Duration::from_secs(60)),
        ),
    ];
    for ((kind, value), expected) in cases {
        let request = a_subscribe(SubscribeType::EventsStore, kind, value);
        assert_eq!(
            subscription(&request),
            Ok(Subscription::Store(Name::topic("a.b").unwrap(), expected))
        );
    }
}

proptest! {
    /// A moment between 1980 and 2200 is the same moment in whichever unit it is given.
    #[test]
    fn a_start_time_is_the_same_in_every_unit(seconds in 315_532_800u64..7_258_118_400) {
        let expected = WallTime(seconds * 1_000_000_000);
        for unit in [1, 1_000, 1_000_000, 1_000_000_000] {
            prop_assert_eq!(wall_time(seconds * unit), expected);
        }
    }

    /// No value makes the conversion overflow or panic.
    #[test]
    fn any_start_time_is_taken(value in 1u64..=i64::MAX as u64) {
        wall_time(value);
    }
}

#[test]
fn an_id_that_is_too_long_is_cut_between_characters_for_its_echo() {
    let id = "x".repeat(ID_BYTES_MAX - 1) + "\u{e9}";
    assert!(super::id("request id", &id).is_err());
    assert_eq!(echoed(&id).len(), ID_BYTES_MAX - 1);
    let longest = &id[..ID_BYTES_MAX - 1];
    assert_eq!(echoed(longest), longest);
    assert!(super::id("request id", longest).is_ok());
}
