//! Room is used by whoever waits longest, whether it is looked after or not.

use std::task::Waker;

use flotilla_model::name::Name;

use super::*;

const ROOM_BYTES: u64 = 8 * ROOM_UNIT_BYTES;

fn an_ingress(wait_max: Duration) -> Arc<ShardIngress> {
    Arc::new(ShardIngress::new(ROOM_BYTES, wait_max))
}

/// Takes more than half of the room.
fn large(mark: u8) -> Vec<Work> {
    let topic = Name::topic("t").unwrap();
    vec![Work {
        command: Command::Append {
            topic,
            count: 1,
            dedup: Vec::new(),
        },
        slots: vec![vec![mark; ROOM_BYTES as usize * 5 / 8].into()],
    }]
}

fn marks(taken: &[Submission]) -> Vec<u8> {
    taken.iter().map(|one| one.works[0].slots[0][0]).collect()
}

fn take_all(ingress: &ShardIngress) -> Vec<Submission> {
    ingress.take_while(|_| true)
}

/// As a stream is polled once, whose client then does not read any more.
fn poll_once<F: Future>(future: Pin<&mut F>) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.poll(&mut context).is_pending());
}

async fn until(is_so: impl Fn() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    reached.expect("it did not happen in time");
}

async fn until_depth(ingress: &ShardIngress, depth: usize) {
    until(|| ingress.depth() == depth).await;
}

async fn until_free(ingress: &ShardIngress, units: usize) {
    until(|| ingress.payload_room.available_permits() == units).await;
}

#[tokio::test]
async fn who_is_not_looked_after_uses_the_room_that_comes_free() {
    let ingress = an_ingress(Duration::from_secs(3_600));
    let first = ingress.submit(large(1)).await.unwrap();
    let mut second = Box::pin(ingress.submit(large(2)));
    poll_once(second.as_mut());
    let held = take_all(&ingress);
    assert_eq!(marks(&held), [1]);
    drop((held, first));
    until_depth(&ingress, 1).await;
    let held = take_all(&ingress);
    assert_eq!(marks(&held), [2]);
    drop(held);
    // The room is free again, while the second one still has not looked.
    let third = tokio::time::timeout(Duration::from_secs(20), ingress.submit(large(3)));
    assert!(third.await.unwrap().is_ok());
    assert!(second.await.is_ok());
}

#[tokio::test]
async fn who_is_not_looked_after_waits_no_longer_than_configured() {
    let ingress = an_ingress(Duration::from_millis(20));
    let _first = ingress.submit(large(1)).await.unwrap();
    let free = ingress.payload_room.available_permits();
    let mut second = Box::pin(ingress.submit(large(2)));
    poll_once(second.as_mut());
    // What is free belongs to the one who waits, until it ceases to.
    until_free(&ingress, free).await;
    drop(take_all(&ingress));
    assert!(ingress.try_submit(large(3)).is_ok());
    assert!(matches!(second.await, Err(BrokerError::Busy { .. })));
    assert_eq!(marks(&take_all(&ingress)), [3]);
}

#[tokio::test]
async fn who_waits_goes_in_the_order_of_the_calls() {
    let ingress = an_ingress(Duration::from_secs(3_600));
    let _first = ingress.submit(large(1)).await.unwrap();
    let mut calls: Vec<_> = (2..6)
        .map(|mark| Box::pin(ingress.submit(large(mark))))
        .collect();
    for call in &mut calls {
        poll_once(call.as_mut());
    }
    for mark in 1..6 {
        until_depth(&ingress, 1).await;
        assert_eq!(marks(&take_all(&ingress)), [mark]);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_submits_nothing_and_holds_nothing() {
    let ingress = an_ingress(Duration::from_secs(3_600));
    let _first = ingress.submit(large(1)).await.unwrap();
    let mut second = Box::pin(ingress.submit(large(2)));
    poll_once(second.as_mut());
    drop(second);
    drop(take_all(&ingress));
    until_free(&ingress, ingress.payload_units_max as usize).await;
    assert_eq!(ingress.depth(), 0);
}

/// Closing refuses newcomers alone: who has its room by then comes into the list after the end.
#[tokio::test]
async fn what_waits_at_the_end_and_what_comes_after_it_is_answered() {
    let ingress = an_ingress(Duration::from_secs(3_600));
    let works = || {
        let name = Name::topic("t").unwrap();
        vec![Work::control(Command::Delete { name })]
    };
    let (waits, late) = (works(), works());
    let waits = ingress.submit(waits).await.unwrap();
    let measure = Measure::of(&late);
    let (room, units) = ingress.room_for(&measure);
    let room = Arc::clone(room).try_acquire_many_owned(units).unwrap();
    let gone = BrokerError::Unavailable {
        reason: "the actor ended".to_owned(),
    };
    ingress.end(&gone);
    let late = ingress.push(late, measure, room);
    for pending in [waits, late] {
        let answer = tokio::time::timeout(Duration::from_secs(20), pending).await;
        let answer = answer.expect("it was not answered");
        assert_eq!(answer.map(|_| ()), Err(gone.clone()));
    }
    assert_eq!(ingress.depth(), 0);
    let room = ingress.control_room.available_permits();
    assert_eq!(room, CONTROL_SUBMISSIONS_MAX);
    let refused = ingress.submit(works()).await.map(|_| ());
    assert_eq!(refused, Err(BrokerError::ShuttingDown));
}
