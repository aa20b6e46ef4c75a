//! What one stream asks another is answered, whatever becomes of either.

use std::hint;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

use super::*;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::QueuesDownstreamRequestType as Type;

fn two_desks() -> (Desk, Desk) {
    let holders = Arc::<Holders>::default();
    let desk = || Desk::new(Arc::clone(&holders), Caller::default());
    (desk(), desk())
}

fn a_request(id: &str) -> QueuesDownstreamRequest {
    QueuesDownstreamRequest {
        request_id: id.to_owned(),
        request_type_data: Type::AckAll as i32,
        ref_transaction_id: "t".to_owned(),
        ..QueuesDownstreamRequest::default()
    }
}

fn a_failure(request: &QueuesDownstreamRequest) -> Option<Outgoing> {
    let origin = crate::kubemq::downstream::reply::Origin::of(request);
    Some(origin.error(&RequestError::TransactionUnknown))
}

async fn heard(desk: &mut Desk) -> Asked {
    desk.hear().await;
    desk.next().unwrap()
}

#[test]
fn a_transaction_is_found_by_its_own_client_and_while_it_is_open() {
    let (holding, asking) = two_desks();
    let listed = holding.list("t", "me".to_owned());
    let other = holding.list("u", "me".to_owned());
    assert!(asking.find("t", "me").is_some());
    assert!(asking.find("t", "you").is_none());
    assert!(asking.find("t", "").is_none());
    assert!(asking.find("T", "me").is_none());
    drop(listed);
    assert!(asking.find("t", "me").is_none());
    assert!(asking.find("u", "me").is_some());
    drop(other);
    assert_eq!(holding.holders.len(), 0);
}

#[tokio::test]
async fn the_answer_goes_to_who_asked_and_success_says_nothing() {
    let (mut holding, asking) = two_desks();
    let _listed = holding.list("t", "me".to_owned());
    let holder = asking.find("t", "me").unwrap();
    let asked = tokio::spawn(async move {
        let failed = Arc::clone(&holder).ask(a_request("one"), 1).await.unwrap();
        let done = holder.ask(a_request("two"), 1).await.unwrap();
        (failed, done)
    });
    let Asked { request, mut asker } = heard(&mut holding).await;
    asker.tell(a_failure(&request));
    asker.done();
    heard(&mut holding).await.asker.done();
    let (failed, done) = asked.await.unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].ref_request_id, "one");
    assert!(failed[0].is_error);
    assert_eq!(done, []);
}

#[test]
fn a_request_waits_with_no_more_than_what_is_needed() {
    let mut request = QueuesDownstreamRequest {
        client_id: "c".to_owned(),
        channel: "x".repeat(1_000),
        re_queue_channel: "target".to_owned(),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        ..a_request("one")
    };
    request.sequence_range = (1..=1_000).collect();
    let kept = needed(request.clone(), 3);
    assert_eq!(kept.sequence_range, [1, 2, 3, 4]);
    let expected = QueuesDownstreamRequest {
        re_queue_channel: "target".to_owned(),
        sequence_range: vec![1, 2, 3, 4],
        ..a_request("one")
    };
    assert_eq!(kept, expected);
    let long = QueuesDownstreamRequest {
        re_queue_channel: "x".repeat(NAME_BYTES_MAX + 1),
        ..request.clone()
    };
    assert_eq!(needed(long, 3).re_queue_channel, "");
    assert_eq!(needed(request, usize::MAX).sequence_range.len(), 1_000);
}

#[tokio::test]
async fn what_does_not_fit_the_mailbox_waits_with_those_who_ask() {
    let (mut holding, asking) = two_desks();
    let _listed = holding.list("t", "me".to_owned());
    let holder = asking.find("t", "me").unwrap();
    let count = 3 * WAITING_MAX;
    let mut asked = Vec::new();
    for number in 0..count {
        let holder = Arc::clone(&holder);
        let request = a_request(&number.to_string());
        asked.push(tokio::spawn(async move { holder.ask(request, 1).await }));
    }
    while holder.mailbox.capacity() > 0 {
        yield_now().await;
    }
    assert_eq!(holding.asked.len(), WAITING_MAX);
    for _ in 0..count {
        heard(&mut holding).await.asker.done();
    }
    for one in asked {
        assert_eq!(one.await.unwrap(), Some(Replies::new()));
    }
}

#[tokio::test]
async fn a_stream_with_much_under_way_for_others_hears_more_when_some_of_it_is_over() {
    let (mut holding, asking) = two_desks();
    let _listed = holding.list("t", "me".to_owned());
    let holder = asking.find("t", "me").unwrap();
    let asked = tokio::spawn(async move { holder.ask(a_request("one"), 1).await });
    for _ in 0..UNDER_WAY_MAX {
        holding.begin();
    }
    while holding.asked.is_empty() {
        yield_now().await;
    }
    assert_eq!(holding.hear().now_or_never(), None);
    holding.end();
    heard(&mut holding).await.asker.done();
    assert_eq!(asked.await.unwrap(), Some(Replies::new()));
}

#[tokio::test]
async fn whoever_asks_a_stream_that_ends_is_not_left_waiting() {
    let (mut holding, asking) = two_desks();
    let listed = holding.list("t", "me".to_owned());
    let holder = asking.find("t", "me").unwrap();
    let ask = |id: &str| {
        let (holder, request) = (Arc::clone(&holder), a_request(id));
        tokio::spawn(async move { holder.ask(request, 1).await })
    };
    let heard = ask("heard");
    holding.hear().await;
    let waiting = ask("waiting");
    while holding.asked.is_empty() {
        yield_now().await;
    }
    let mut rest = holding.rest();
    let ids: Vec<&str> = rest.iter().map(|one| &*one.request.request_id).collect();
    assert_eq!(ids, ["heard", "waiting"]);
    assert_eq!(ask("late").await.unwrap(), None);
    // One is carried out yet, the other one not any more.
    rest.remove(0).asker.done();
    drop(rest);
    assert_eq!(heard.await.unwrap(), Some(Replies::new()));
    assert_eq!(waiting.await.unwrap(), None);
    drop(listed);
    drop(holding);
    assert!(asking.find("t", "me").is_none());
    assert_eq!(holder.ask(a_request("gone"), 1).await, None);
}

/// What is put into a mailbox while that is emptied for the last time stays in it.
#[test]
fn whoever_asks_in_the_moment_in_which_a_stream_ends_is_not_left_waiting() {
    let runtime = Arc::new(Runtime::new().unwrap());
    for round in 0..2_000_u32 {
        let (mut holding, asking) = two_desks();
        let listed = holding.list("t", "me".to_owned());
        let holder = asking.find("t", "me").unwrap();
        let together = Arc::new(Barrier::new(2));
        let (tell, told) = std::sync::mpsc::channel();
        let asker = thread::spawn({
            let (together, runtime) = (Arc::clone(&together), Arc::clone(&runtime));
            move || {
                together.wait();
                let answer = runtime.block_on(holder.ask(a_request("one"), 1));
                tell.send(answer).unwrap();
            }
        });
        together.wait();
        // Now a little earlier, now a little later.
        for _ in 0..round % 200 {
            hint::spin_loop();
        }
        for one in holding.rest() {
            one.asker.done();
        }
        drop((holding, listed));
        let answer = told.recv_timeout(Duration::from_secs(60));
        assert!(answer.is_ok(), "round {round}: nobody answers");
        asker.join().unwrap();
    }
}
