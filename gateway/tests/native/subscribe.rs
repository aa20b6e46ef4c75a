//! Subscribe: replay, windows, cursors, what is refused.

use std::time::Duration;

use flotilla_gateway::native::protocol::subscribe_request::{Kind as Say, Open, open};
use flotilla_gateway::native::protocol::subscribe_response::Kind;
use flotilla_gateway::native::protocol::{Delivery, Record, SubscribeRequest, SubscribeResponse};
use tonic::Code;

use crate::support::{Gateway, Talk, a_batch, a_record, opening, records, text_of, unique};

type Reader = Talk<SubscribeRequest, SubscribeResponse>;

async fn open(gateway: &Gateway, open: Open) -> Reader {
    let mut reader = gateway.subscribe().await;
    let first = reader.ask(opening(open)).await;
    assert!(matches!(first.kind, Some(Kind::Opened(_))));
    reader
}

fn from_first(topic: &str) -> Open {
    Open {
        topic: topic.to_owned(),
        start: Some(open::Start::First(true)),
        ..Open::default()
    }
}

fn done(upto: u64) -> SubscribeRequest {
    SubscribeRequest {
        kind: Some(Say::DoneUpto(upto)),
    }
}

async fn frame(reader: &mut Reader) -> Vec<Delivery> {
    match reader.hear().await.kind {
        Some(Kind::Deliveries(frame)) => frame.deliveries,
        other => panic!("{other:?} is no delivery"),
    }
}

/// Offsets of so many deliveries.
async fn read(reader: &mut Reader, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        offsets.extend(frame(reader).await.iter().map(|one| one.offset));
    }
    offsets
}

async fn publish(gateway: &Gateway, topic: &str, numbers: std::ops::Range<u64>) {
    let mut publishes = gateway.publish().await;
    let answer = publishes.ask(a_batch(1, topic, records(numbers))).await;
    assert!(answer.error.is_none() && answer.errors.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_records_come_whole_and_in_order_and_then_new_ones() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    publish(&gateway, &topic, 1..501).await;
    let mut reader = open(&gateway, from_first(&topic)).await;
    publish(&gateway, &topic, 501..701).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 700 {
        deliveries.extend(frame(&mut reader).await);
    }
    for (number, delivery) in (1u64..).zip(deliveries) {
        assert_eq!(delivery.offset, number);
        assert!(delivery.time_unix_ms > 1_700_000_000_000);
        assert_eq!(delivery.record.unwrap(), a_record(&number.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_window_comes_until_something_is_done() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    publish(&gateway, &topic, 1..101).await;
    let mut reader = open(
        &gateway,
        Open {
            window_records: 10,
            ..from_first(&topic)
        },
    )
    .await;
    assert_eq!(read(&mut reader, 10).await, (1..11).collect::<Vec<_>>());
    reader.say(done(4)).await;
    assert_eq!(read(&mut reader, 4).await, (11..15).collect::<Vec<_>>());
    // What cannot come must not: a pause that is too short only makes this test blind.
    let more = tokio::time::timeout(Duration::from_millis(200), reader.hear()).await;
    assert!(more.is_err(), "{more:?} exceeds the window");
    reader.say(done(14)).await;
    assert_eq!(read(&mut reader, 10).await, (15..25).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_goes_on_after_what_was_done() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    publish(&gateway, &topic, 1..11).await;
    let with_cursor = || Open {
        cursor: Some(open::Cursor::Exclusive("reader".to_owned())),
        ..from_first(&topic)
    };
    let mut reader = open(&gateway, with_cursor()).await;
    assert_eq!(read(&mut reader, 10).await.len(), 10);
    reader.say(done(6)).await;
    reader.half_close();
    reader.end().await.unwrap();
    let mut reader = open(&gateway, with_cursor()).await;
    assert_eq!(read(&mut reader, 4).await, [7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_records() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let member = || Open {
        cursor: Some(open::Cursor::Group("group".to_owned())),
        window_records: 10,
        ..from_first(&topic)
    };
    let (mut one, mut two) = (
        open(&gateway, member()).await,
        open(&gateway, member()).await,
    );
    publish(&gateway, &topic, 1..21).await;
    let mut offsets = read(&mut one, 10).await;
    offsets.extend(read(&mut two, 10).await);
    offsets.sort_unstable();
    assert_eq!(offsets, (1..21).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_begins_where_it_says() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    publish(&gateway, &topic, 1..6).await;
    let starts = [
        (open::Start::First(true), 1),
        (open::Start::Last(true), 5),
        (open::Start::Offset(3), 3),
        (open::Start::TimeUnixMs(1), 1),
        (open::Start::AgoMs(3_600_000), 1),
    ];
    for (start, expected) in starts {
        let mut reader = open(
            &gateway,
            Open {
                topic: topic.clone(),
                start: Some(start),
                ..Open::default()
            },
        )
        .await;
        assert_eq!(read(&mut reader, 1).await[0], expected, "{start:?}");
    }
    let mut reader = open(
        &gateway,
        Open {
            topic: topic.clone(),
            ..Open::default()
        },
    )
    .await;
    publish(&gateway, &topic, 6..7).await;
    let new = frame(&mut reader).await;
    assert_eq!(text_of(new[0].record.as_ref().unwrap()), "6");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_cannot_be_served_end_their_stream_with_the_reason() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let refused = [
        (done(1), "the first frame must open"),
        (SubscribeRequest::default(), "the first frame must open"),
        (opening(Open::default()), "a topic name must not be empty"),
        (
            opening(Open {
                window_records: 65_537,
                ..from_first(&topic)
            }),
            "window_records is 65537, at most 65536 are allowed",
        ),
        (
            opening(Open {
                window_bytes: (64 << 20) + 1,
                ..from_first(&topic)
            }),
            "window_bytes is 67108865, at most 67108864 are allowed",
        ),
        (
            opening(Open {
                cursor: Some(open::Cursor::Group(String::new())),
                ..from_first(&topic)
            }),
            "the cursor has 0 bytes, 1 to 1024 are allowed",
        ),
        (
            opening(Open {
                start: Some(open::Start::Last(false)),
                ..from_first(&topic)
            }),
            "last is 0, it must be true if it is given",
        ),
    ];
    for (request, text) in refused {
        let mut reader = gateway.subscribe().await;
        reader.say(request).await;
        let status = reader.end().await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, text)
        );
    }
    let mut reader = open(&gateway, from_first(&topic)).await;
    reader.say(opening(from_first(&topic))).await;
    let status = reader.end().await.unwrap_err();
    assert_eq!(status.message(), "only the first frame opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_client_can_read_come_in_frames_that_it_can_read() {
    let gateway = Gateway::start().await;
    let topic = unique("t");
    let of = |bytes: usize| Record {
        body: vec![7; bytes].into(),
        ..Record::default()
    };
    // The small one alone would leave room in its frame, but not for one that is nearly 4 MiB.
    let sizes = [250 << 10, (4 << 20) - 1_024, 0, 1];
    let batch = a_batch(1, &topic, sizes.map(of).to_vec());
    let mut publishes = gateway.publish().await;
    assert_eq!(publishes.ask(batch).await.error, None);
    let mut reader = open(&gateway, from_first(&topic)).await;
    assert_eq!(read(&mut reader, 4).await, [1, 2, 3, 4]);
}
