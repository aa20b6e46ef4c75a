//! Credit, progress, and what a reader takes to the next leader.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_model::ids::{ObjectId, Offset, WallTime};
use flotilla_model::message::Message;

use crate::api::topic::TopicDelivery;
use crate::topic::buffer::{Buffer, Turn};
use crate::topic::run::Item;

fn items(offsets: impl IntoIterator<Item = u64>, bytes: u32) -> Vec<Item> {
    offsets
        .into_iter()
        .map(|offset| Item {
            delivery: TopicDelivery {
                offset: Offset(offset),
                at: WallTime(0),
                message: Message {
                    body: Bytes::from_static(b"x"),
                    ..Message::default()
                },
            },
            bytes,
        })
        .collect()
}

const OBJECT: ObjectId = ObjectId(1);

fn buffer(messages_max: u32, bytes_max: u64) -> Buffer {
    Buffer::new(messages_max, bytes_max, true)
}

async fn take(buffer: &Buffer) -> Vec<u64> {
    let taken = buffer.take().await.expect("not ended");
    taken
        .into_iter()
        .map(|delivery| delivery.offset.0)
        .collect()
}

#[tokio::test]
async fn credit_bounds_what_is_not_done() {
    let buffer = buffer(3, 1_000);
    let more = items(1..=5, 10);
    assert_eq!(buffer.fits(&more), 3);
    buffer.push(OBJECT, &more[..3]);
    assert_eq!(take(&buffer).await, [1, 2, 3]);
    assert_eq!(buffer.fits(&more[3..]), 0, "taking is not yet being done");
    buffer.done(Offset(2));
    assert_eq!(buffer.fits(&more[3..]), 2);
    assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
}

#[tokio::test]
async fn a_message_larger_than_the_credit_goes_alone() {
    let buffer = buffer(10, 100);
    let large = items(1..=2, 1_000);
    assert_eq!(buffer.fits(&large), 1);
    buffer.push(OBJECT, &large[..1]);
    assert_eq!(buffer.fits(&large[1..]), 0);
    take(&buffer).await;
    buffer.done(Offset(1));
    assert_eq!(buffer.fits(&large[1..]), 1);
}

#[tokio::test]
async fn what_is_still_in_the_buffer_cannot_be_done() {
    let buffer = buffer(10, 1_000);
    buffer.push(OBJECT, &items(1..=2, 1));
    take(&buffer).await;
    buffer.push(OBJECT, &items(3..=4, 1));
    buffer.done(Offset(4));
    assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
    assert_eq!(take(&buffer).await, [3, 4]);
}

#[tokio::test]
async fn messages_that_come_late_are_done_in_the_order_of_delivery() {
    let buffer = buffer(10, 1_000);
    buffer.push(OBJECT, &items([10, 11, 5, 6], 1));
    take(&buffer).await;
    buffer.done(Offset(11));
    assert_eq!(buffer.progress().finished, [(Offset(10), Offset(11))]);
    buffer.done(Offset(6));
    assert_eq!(buffer.progress().finished, [(Offset(5), Offset(6))]);

    buffer.push(OBJECT, &items([10, 11, 5, 6], 1));
    take(&buffer).await;
    buffer.done(Offset(5));
    let finished = buffer.progress().finished;
    assert_eq!(finished, [(Offset(10), Offset(11)), (Offset(5), Offset(5))]);
}

#[tokio::test]
async fn done_for_a_deleted_topic_says_nothing_about_its_successor() {
    let buffer = buffer(10, 1_000);
    buffer.push(OBJECT, &items(1..=5, 1));
    take(&buffer).await;
    buffer.reset(Offset(1));
    buffer.push(OBJECT, &items(1..=2, 1));
    buffer.done(Offset(5));
    assert!(buffer.progress().finished.is_empty());
    assert_eq!(take(&buffer).await, [1, 2]);
    buffer.done(Offset(2));
    assert_eq!(buffer.progress().finished, [(Offset(1), Offset(2))]);
}

#[tokio::test]
async fn a_reader_takes_what_it_holds_to_the_next_leader() {
    let buffer = buffer(10, 1_000);
    buffer.attach(Arc::default(), Some(OBJECT), Offset(1), false);
    buffer.push(OBJECT, &items(1..=6, 7));
    take(&buffer).await;
    buffer.push(OBJECT, &items(7..=8, 7));
    buffer.done(Offset(4));
    buffer.leave();
    assert_eq!(buffer.turn().await, Turn::Left);
    let resume = buffer.resume();
    assert_eq!((resume.object, resume.next), (Some(OBJECT), Offset(9)));
    let held: Vec<u64> = resume.held.iter().map(|(offset, _)| offset.0).collect();
    assert_eq!(held, [5, 6, 7, 8]);
    assert_eq!(resume.finished, [(Offset(1), Offset(4))]);
    // What becomes done in between is told to the next leader, and nothing twice.
    buffer.done(Offset(5));
    buffer.attach(Arc::default(), resume.object, resume.next, false);
    let progress = buffer.progress();
    assert_eq!(
        (progress.finished, progress.count),
        (vec![(Offset(5), Offset(5))], 1)
    );
    assert_eq!(take(&buffer).await, [7, 8], "nothing on the way is lost");
}

#[tokio::test]
async fn a_reader_elsewhere_finishes_by_count_what_was_sent_to_it() {
    let buffer = buffer(10, 1_000);
    buffer.hold(&[(Offset(3), 5), (Offset(4), 5)]);
    buffer.attach(Arc::default(), Some(OBJECT), Offset(5), false);
    buffer.push(OBJECT, &items(5..=6, 5));
    let epoch = buffer.epoch();
    buffer.finish(epoch, 3);
    let finished = buffer.progress().finished;
    assert_eq!(
        finished,
        [(Offset(3), Offset(4))],
        "not what was not sent yet"
    );
    let taken = buffer.take_away().await.expect("not left");
    assert_eq!((taken.deliveries.len(), taken.epoch), (2, epoch));
    buffer.reset(Offset(1));
    buffer.push(OBJECT, &items(1..=1, 5));
    let taken = buffer.take_away().await.expect("not left");
    buffer.finish(epoch, 2);
    assert!(buffer.progress().finished.is_empty(), "of before the reset");
    buffer.finish(taken.epoch, 1);
    assert_eq!(buffer.progress().finished, [(Offset(1), Offset(1))]);
}
