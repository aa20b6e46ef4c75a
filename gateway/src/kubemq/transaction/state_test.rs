//! Whatever a client sends and whatever the broker says, a transaction holds at most one message and leaves
//! none behind.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;

const VISIBILITY: Duration = Duration::from_secs(5);

fn limits() -> KubemqLimits {
    KubemqLimits::default()
}

fn request(kind: Type) -> StreamQueueMessagesRequest {
    StreamQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        stream_request_type_data: kind as i32,
        channel: "q".to_owned(),
        ..StreamQueueMessagesRequest::default()
    }
}

fn a_message() -> QueueMessage {
    QueueMessage {
        client_id: "c".to_owned(),
        channel: "other".to_owned(),
        body: Bytes::from_static(b"b"),
        ..QueueMessage::default()
    }
}

fn held(lease: u64) -> Held {
    Held {
        queue: Name::queue("q").unwrap(),
        lease: LeaseId(lease),
        sequence: Sequence(3),
        until: Instant::now() + VISIBILITY,
    }
}

fn received(transaction: &mut Transaction) {
    let Next::Receive(origin, wanted) =
        transaction.request(request(Type::ReceiveMessage), &limits())
    else {
        panic!("a receive should begin");
    };
    assert_eq!(wanted.visibility, Duration::from_secs(60));
    assert_eq!(wanted.wait, Duration::from_secs(1));
    let answer = transaction.received(Got {
        origin,
        result: Ok(Some((held(1), a_message()))),
    });
    assert!(!answer.is_error && answer.message.is_some());
}

fn told(transaction: &mut Transaction, request: StreamQueueMessagesRequest) -> String {
    let kind = request.stream_request_type_data;
    match transaction.request(request, &limits()) {
        Next::Tell(answer) => {
            assert!(answer.is_error);
            assert_eq!(answer.stream_request_type_data, kind);
            answer.error
        }
        next => panic!("it should be refused: {next:?}"),
    }
}

#[test]
fn each_request_without_a_message_is_refused_with_its_own_text() {
    let mut transaction = Transaction::default();
    let modified = StreamQueueMessagesRequest {
        modified_message: Some(a_message()),
        ..request(Type::SendModifiedMessage)
    };
    for is_waiting in [false, true] {
        for (request, text) in [
            (
                request(Type::AckMessage),
                "Error 124: no active message to ack",
            ),
            (
                request(Type::RejectMessage),
                "Error 137: no active message to reject",
            ),
            (
                request(Type::ModifyVisibility),
                "Error 124: no active message to ack",
            ),
            (
                request(Type::ResendMessage),
                "Error 126: no active message to send",
            ),
            (
                request(Type::SendModifiedMessage),
                "Error 131: invalid queue message",
            ),
            (modified.clone(), "Error 124: no active message to ack"),
            (
                request(Type::Unknown),
                "Error 132: invalid stream queue messages request type",
            ),
            (
                StreamQueueMessagesRequest {
                    stream_request_type_data: 77,
                    ..StreamQueueMessagesRequest::default()
                },
                "Error 132: invalid stream queue messages request type",
            ),
        ] {
            assert_eq!(told(&mut transaction, request), text);
            assert!(!transaction.is_over() && !transaction.is_busy());
        }
        if !is_waiting {
            let next = transaction.request(request(Type::ReceiveMessage), &limits());
            assert!(matches!(next, Next::Receive(..)));
        }
    }
    assert_eq!(
        told(&mut transaction, request(Type::ReceiveMessage)),
        "Error 128: subscription to queue is already active"
    );
}

#[test]
fn each_bad_request_about_a_message_is_refused_and_the_message_stays() {
    let mut transaction = Transaction::default();
    received(&mut transaction);
    let bad_queue = "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot";
    let bad_visibility =
        "Error 127: invalid visibility time, cannot be negative or exceed setting in kubemq config";
    let with = |kind, change: fn(&mut StreamQueueMessagesRequest)| {
        let mut changed = request(kind);
        change(&mut changed);
        changed
    };
    for (request, text) in [
        (
            with(Type::AckMessage, |_| {}),
            "Error 125: ack sequence cannot be 0 or negative",
        ),
        (
            with(Type::AckMessage, |bad| bad.ref_sequence = 4),
            "Error 125: ack sequence cannot be 0 or negative",
        ),
        (
            with(Type::RejectMessage, |bad| bad.ref_sequence = u64::MAX),
            "Error 125: ack sequence cannot be 0 or negative",
        ),
        (
            with(Type::ModifyVisibility, |bad| bad.visibility_seconds = -1),
            bad_visibility,
        ),
        (
            with(Type::ModifyVisibility, |bad| {
                bad.visibility_seconds = 43_201;
            }),
            bad_visibility,
        ),
        (
            with(Type::ResendMessage, |bad| bad.channel.clear()),
            bad_queue,
        ),
        (
            with(Type::ResendMessage, |bad| bad.channel = "a.*".to_owned()),
            bad_queue,
        ),
        (
            with(Type::SendModifiedMessage, |_| {}),
            "Error 131: invalid queue message",
        ),
        (
            with(Type::SendModifiedMessage, |bad| {
                bad.modified_message = Some(QueueMessage::default());
            }),
            "Error 101: invalid clientID value, cannot be empty",
        ),
        (
            with(Type::ReceiveMessage, |_| {}),
            "Error 128: subscription to queue is already active",
        ),
        (
            with(Type::AckMessage, |bad| bad.request_id = "x".repeat(1_025)),
            "the request id has 1025 bytes, at most 1024 are allowed",
        ),
    ] {
        assert_eq!(told(&mut transaction, request), text);
        assert!(transaction.deadline().is_some(), "{text}");
    }
}

#[test]
fn each_bad_receive_is_refused_and_another_may_follow() {
    let mut transaction = Transaction::default();
    let with = |change: fn(&mut StreamQueueMessagesRequest)| {
        let mut changed = request(Type::ReceiveMessage);
        change(&mut changed);
        changed
    };
    let number = |text: String| text.split(':').next().unwrap().to_owned();
    for (request, text) in [
        (with(|bad| bad.client_id.clear()), "Error 101"),
        (with(|bad| bad.channel.clear()), "Error 120"),
        (with(|bad| bad.channel = "a.>".to_owned()), "Error 120"),
        (with(|bad| bad.visibility_seconds = -1), "Error 127"),
        (with(|bad| bad.visibility_seconds = 43_201), "Error 127"),
        (with(|bad| bad.wait_time_seconds = -1), "Error 136"),
        (with(|bad| bad.wait_time_seconds = 3_601), "Error 136"),
    ] {
        assert_eq!(number(told(&mut transaction, request)), text);
    }
    received(&mut transaction);
}

#[test]
fn a_message_whose_time_is_up_is_told_with_the_request_that_came_last() {
    let mut transaction = Transaction::default();
    received(&mut transaction);
    let refused = StreamQueueMessagesRequest {
        request_id: "last".to_owned(),
        ..request(Type::AckMessage)
    };
    told(&mut transaction, refused);
    let (origin, held) = transaction.expire().unwrap();
    assert!(transaction.is_busy() && transaction.deadline().is_none());
    assert!(transaction.expire().is_none());
    let answer = transaction.acted(Acted {
        origin,
        held,
        result: Ok(Outcome::Expired),
    });
    assert_eq!(answer.error, "Error 129: current visibility timer expired");
    assert_eq!(answer.request_id, "last");
    assert_eq!(answer.stream_request_type_data, Type::AckMessage as i32);
    assert!(transaction.is_over());
}

#[test]
fn an_answer_to_a_request_without_an_id_has_one() {
    let mut transaction = Transaction::default();
    let Next::Tell(answer) = transaction.request(StreamQueueMessagesRequest::default(), &limits())
    else {
        panic!("it should be refused");
    };
    assert!(!answer.request_id.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Request(Box<StreamQueueMessagesRequest>),
    /// What is under way ends, in one of three ways.
    Finish(u8),
    TimeIsUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let message = prop_oneof![
        Just(None),
        Just(Some(QueueMessage::default())),
        Just(Some(a_message())),
    ];
    let text = prop_oneof![Just(""), Just("q"), Just("a b"), Just("a.")];
    let any_request = (
        -1i32..9,
        text,
        prop_oneof![Just(""), Just("c")],
        -1i32..3,
        prop_oneof![Just(0u64), Just(3), Just(4)],
        message,
    )
        .prop_map(|(kind, channel, client_id, seconds, sequence, message)| {
            StreamQueueMessagesRequest {
                request_id: "r".to_owned(),
                client_id: client_id.to_owned(),
                stream_request_type_data: kind,
                channel: channel.to_owned(),
                visibility_seconds: seconds,
                wait_time_seconds: seconds,
                ref_sequence: sequence,
                modified_message: message,
            }
        });
    let step = prop_oneof![
        2 => any_request.prop_map(|any| Step::Request(Box::new(any))),
        1 => Just(Step::Request(Box::new(request(Type::ReceiveMessage)))),
        2 => (0u8..3).prop_map(Step::Finish),
        1 => Just(Step::TimeIsUp),
    ];
    proptest::collection::vec(step, 0..40)
}

/// What the transaction has asked the broker for.
enum UnderWay {
    Receive(Origin),
    Act(Origin, Held, Act),
}

proptest! {
    /// What was bent on its way is taken for what it says, or refused.
    #[test]
    fn any_bytes_are_refused_or_understood(
        kind in 0i32..8, sequence in any::<u64>(), bends in proptest::collection::vec((0usize..80, any::<u8>()), 0..6)
    ) {
        let whole = StreamQueueMessagesRequest {
            ref_sequence: sequence,
            modified_message: Some(a_message()),
            stream_request_type_data: kind,
            ..request(Type::ReceiveMessage)
        };
        let mut bytes = whole.encode_to_vec();
        let length = bytes.len();
        for (place, byte) in bends {
            bytes[place % length] = byte;
        }
        if let Ok(bent) = StreamQueueMessagesRequest::decode(bytes.as_slice()) {
            let kind = bent.stream_request_type_data;
            match Transaction::default().request(bent, &limits()) {
                Next::Tell(answer) => prop_assert_eq!(answer.stream_request_type_data, kind),
                Next::Receive(..) => prop_assert_eq!(kind, Type::ReceiveMessage as i32),
                Next::Act(..) => prop_assert!(false, "nothing is held"),
            }
        }
    }

    /// A transaction that is over has nothing in hand; one that is not has what it says it has.
    #[test]
    fn no_message_is_held_twice_or_left_behind(steps in steps()) {
        let mut transaction = Transaction::default();
        let mut under_way = None;
        // Leases at the broker.
        let mut leases: Vec<u64> = Vec::new();
        let mut given = 0;
        let lost = || RequestError::from(BrokerError::Unavailable { reason: "no leader".to_owned() });
        for step in steps {
            match step {
                Step::Request(_) if transaction.is_busy() || transaction.is_over() => {}
                Step::Request(request) => match transaction.request(*request, &limits()) {
                    Next::Tell(answer) => prop_assert!(answer.is_error && answer.request_id == "r"),
                    Next::Receive(origin, _) => {
                        prop_assert!(under_way.is_none() && leases.is_empty());
                        under_way = Some(UnderWay::Receive(origin));
                    }
                    Next::Act(origin, held, act) => {
                        prop_assert!(under_way.is_none() && leases == [held.lease.0]);
                        under_way = Some(UnderWay::Act(origin, held, act));
                    }
                },
                Step::TimeIsUp => {
                    if let Some((origin, held)) = transaction.expire() {
                        prop_assert!(under_way.is_none() && leases == [held.lease.0]);
                        under_way = Some(UnderWay::Act(origin, held, Act::Expire));
                    }
                }
                Step::Finish(how) => match under_way.take() {
                    None => {}
                    Some(UnderWay::Receive(origin)) => {
                        let result = match how {
                            0 => {
                                given += 1;
                                leases.push(given);
                                Ok(Some((held(given), a_message())))
                            }
                            1 => Ok(None),
                            _ => Err(lost()),
                        };
                        let answer = transaction.received(Got { origin, result });
                        prop_assert_eq!(answer.message.is_some(), how == 0);
                        prop_assert_eq!(transaction.is_over(), how == 1);
                    }
                    Some(UnderWay::Act(origin, held, act)) => {
                        let result = match (&act, how) {
                            (Act::Expire, _) => Ok(Outcome::Expired),
                            (_, 1) => Err(lost()),
                            (_, 2) => Err(RequestError::VisibilityOver),
                            (Act::Extend(by), _) => Ok(Outcome::Extended(held.until + *by)),
                            _ => Ok(Outcome::Settled),
                        };
                        let stays = matches!(result, Ok(Outcome::Extended(_))) || result == Err(lost());
                        if !stays {
                            leases.clear();
                        }
                        transaction.acted(Acted { origin, held, result });
                        prop_assert_eq!(transaction.is_over(), !stays);
                    }
                },
            }
            let is_acting = matches!(under_way, Some(UnderWay::Act(..)));
            prop_assert_eq!(transaction.is_busy(), is_acting);
            prop_assert_eq!(transaction.deadline().is_some(), !leases.is_empty() && !is_acting);
            if transaction.is_over() {
                prop_assert!(under_way.is_none() && leases.is_empty());
            }
        }
    }
}
