//! Publish: order, answers, repeats, what is refused.

use flotilla_broker::BrokerConfig;
use flotilla_cluster::ClusterConfig;
use flotilla_gateway::KubemqConfig;
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::subscribe_request::{Open, open};
use flotilla_gateway::native::protocol::subscribe_response::Kind;
use flotilla_gateway::native::protocol::{Ack, PublishRequest, Record};

use crate::support::{
    Gateway, a_batch, a_record, assert_synced, opening, records, text_of, unique,
};

/// The bodies of all that a topic has, from its first record to number `last`.
async fn stored(gateway: &Gateway, topic: &str, last: u64) -> Vec<String> {
    let mut reader = gateway.subscribe().await;
    let open = Open {
        topic: topic.to_owned(),
        start: Some(open::Start::First(true)),
        ..Open::default()
    };
    assert!(matches!(
        reader.ask(opening(open)).await.kind,
        Some(Kind::Opened(_))
    ));
    let mut texts = Vec::new();
    loop {
        let Some(Kind::Deliveries(frame)) = reader.hear().await.kind else {
            panic!("it was opened before");
        };
        for delivery in frame.deliveries {
            texts.push(text_of(&delivery.record.unwrap()));
            if delivery.offset == last {
                return texts;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_answered_and_stored_in_their_order() {
    let gateway = Gateway::start().await;
    let (one, two) = (unique("t"), unique("t"));
    let mut publishes = gateway.publish().await;
    for batch in 0..100 {
        let topic = if batch % 3 == 2 { &two } else { &one };
        let numbers = batch * 10..batch * 10 + 10;
        publishes.say(a_batch(batch, topic, records(numbers))).await;
    }
    publishes.half_close();
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for batch in 0..100 {
        let answer = publishes.hear().await;
        assert_eq!(answer.batch, batch);
        assert_synced(answer.ack, answer.error.as_ref());
        assert!(answer.errors.is_empty() && answer.duplicates.is_empty());
        let of = if batch % 3 == 2 { &mut twos } else { &mut ones };
        of.extend(answer.offsets);
    }
    publishes.end().await.unwrap();
    assert_eq!(ones, (1..=ones.len() as u64).collect::<Vec<_>>());
    assert_eq!(twos, (1..=twos.len() as u64).collect::<Vec<_>>());
    let expected: Vec<String> = (0..1_000u64)
        .filter(|number| (number / 10) % 3 == 2)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(stored(&gateway, &two, twos.len() as u64).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_records_and_batches_are_refused_among_good_ones() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let mut publishes = gateway.publish().await;
    let long = Record {
        dedup_id: "x".repeat(1_025),
        ..a_record("long")
    };
    let mixed = vec![a_record("a"), long, a_record("b")];
    let answer = publishes.ask(a_batch(1, &topic, mixed)).await;
    assert_eq!(answer.offsets, [1, 0, 2]);
    assert_eq!(answer.error, None);
    assert_eq!(answer.errors.len(), 1);
    assert_eq!(answer.errors[0].index, 1);
    let error = answer.errors[0].error.clone().unwrap();
    assert_eq!(error.code(), Code::Invalid);
    assert_eq!(
        error.text,
        "the dedup_id has 1025 bytes, at most 1024 are allowed"
    );
    let refused: [(PublishRequest, &str); 7] = [
        (
            a_batch(2, "", records(0..2)),
            "a topic name must not be empty",
        ),
        (
            a_batch(2, &topic, Vec::new()),
            "the batch has 0 records, 1 to 4096 are allowed",
        ),
        (
            a_batch(2, &topic, vec![Record::default(); 4_097]),
            "the batch has 4097 records, 1 to 4096 are allowed",
        ),
        (
            PublishRequest {
                namespace: "A".to_owned(),
                ..a_batch(2, &topic, records(0..1))
            },
            "namespace \"A\" must be 1 to 63 of the characters a-z, 0-9, '-' and '_'",
        ),
        (
            PublishRequest {
                ack: 2,
                ..a_batch(2, &topic, records(0..1))
            },
            "ack is 2, ACK_SYNCED (0) and ACK_NONE (1) are allowed",
        ),
        (
            PublishRequest {
                producer: "p".repeat(513),
                ..a_batch(2, &topic, records(0..1))
            },
            "the producer has 513 bytes, at most 512 are allowed",
        ),
        (
            PublishRequest {
                producer: "p".to_owned(),
                first_sequence: u64::MAX,
                ..a_batch(2, &topic, records(0..2))
            },
            "first_sequence is 18446744073709551615, with which the last of 2 records has none",
        ),
    ];
    for (request, text) in refused {
        let answer = publishes.ask(request).await;
        assert_eq!(answer.batch, 2);
        assert!(answer.offsets.is_empty() && answer.errors.is_empty());
        let error = answer.error.unwrap();
        assert_eq!((error.code(), error.text.as_str()), (Code::Invalid, text));
    }
    // None of them harmed the stream, or stored anything.
    let answer = publishes.ask(a_batch(3, &topic, records(0..1))).await;
    assert_eq!(answer.offsets, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_producer_sends_again_is_stored_once_over_connections_too() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let batch = |number, first_sequence, numbers| PublishRequest {
        producer: "p".to_owned(),
        first_sequence,
        ..a_batch(number, &topic, records(numbers))
    };
    let mut publishes = gateway.publish().await;
    let answer = publishes.ask(batch(1, 10, 0..3)).await;
    assert_eq!(answer.offsets, [1, 2, 3]);
    drop(publishes);
    let mut publishes = gateway.publish().await;
    let answer = publishes.ask(batch(2, 11, 1..5)).await;
    assert_eq!(answer.offsets, [2, 3, 4, 5]);
    assert_eq!(answer.duplicates, [0, 1]);
    // Another producer's numbers are its own.
    let other = PublishRequest {
        producer: "q".to_owned(),
        ..batch(3, 11, 0..1)
    };
    assert_eq!(publishes.ask(other).await.offsets, [6]);
    let mut own = a_record("own");
    own.dedup_id = "p/14".to_owned();
    let answer = publishes.ask(a_batch(4, &topic, vec![own])).await;
    assert_eq!((answer.offsets, answer.duplicates), (vec![5], vec![0]));
    assert_eq!(
        stored(&gateway, &topic, 6).await,
        ["0", "1", "2", "3", "4", "0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_wanted_comes_at_once_with_what_was_refused() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let mut publishes = gateway.publish().await;
    let long = Record {
        dedup_id: "x".repeat(1_025),
        ..a_record("long")
    };
    let unwanted = |number, records| PublishRequest {
        ack: Ack::None.into(),
        ..a_batch(number, &topic, records)
    };
    publishes.say(a_batch(1, &topic, records(0..1))).await;
    publishes.say(unwanted(2, records(1..3))).await;
    publishes.say(unwanted(3, vec![a_record("3"), long])).await;
    publishes.half_close();
    assert_eq!(publishes.hear().await.batch, 1);
    let answer = publishes.hear().await;
    assert_eq!((answer.batch, answer.ack), (2, Ack::None.into()));
    assert!(answer.offsets.is_empty() && answer.errors.is_empty());
    let answer = publishes.hear().await;
    assert_eq!((answer.batch, answer.errors.len()), (3, 1));
    publishes.end().await.unwrap();
    assert_eq!(stored(&gateway, &topic, 4).await, ["0", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_at_once_tells_of_records_that_the_broker_refused() {
    let gateway = Gateway::on_broker(BrokerConfig {
        message_bytes_max: 100,
        ..BrokerConfig::default()
    })
    .await;
    let topic = unique("t");
    let mut publishes = gateway.publish().await;
    let large = || a_record(&"x".repeat(101));
    let unwanted = |number, records| PublishRequest {
        ack: Ack::None.into(),
        ..a_batch(number, &topic, records)
    };
    let mixed = vec![a_record("0"), large(), a_record("1"), large()];
    // Read together they are one call to the broker.
    publishes.say(unwanted(1, mixed)).await;
    publishes.say(unwanted(2, vec![large(), large()])).await;
    let answer = publishes.hear().await;
    let refused: Vec<(u32, Code)> = answer
        .errors
        .iter()
        .map(|one| (one.index, one.error.as_ref().unwrap().code()))
        .collect();
    assert_eq!(refused, [(1, Code::TooLarge), (3, Code::TooLarge)]);
    assert!(answer.error.is_none() && answer.offsets.is_empty());
    let answer = publishes.hear().await;
    assert_eq!(answer.error.unwrap().code(), Code::TooLarge);
    assert_eq!(stored(&gateway, &topic, 2).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_syncs_later_says_so() {
    let gateway = Gateway::over(KubemqConfig::default(), |cluster: &mut ClusterConfig| {
        cluster.log.sync =
            flotilla_storage::SyncPolicy::Interval(std::time::Duration::from_millis(10));
    })
    .await;
    let mut publishes = gateway.publish().await;
    let answer = publishes.ask(a_batch(1, &unique("t"), records(0..2))).await;
    assert_eq!(answer.ack, i32::from(Ack::Buffered));
    assert_eq!(answer.offsets, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_windows_hold_goes_through_and_stays_in_order() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let mut publishes = gateway.publish().await;
    let large = Record {
        body: vec![7; 1 << 20].into(),
        ..Record::default()
    };
    for batch in 0..40 {
        let sent = a_batch(batch, &topic, vec![large.clone()]);
        publishes.say(sent).await;
    }
    for batch in 0..40 {
        let answer = publishes.hear().await;
        assert_eq!((answer.batch, answer.offsets), (batch, vec![batch + 1]));
    }
}
