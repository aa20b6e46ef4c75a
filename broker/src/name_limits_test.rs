//! The turn to make a name is used by whoever waits longest, whether it is looked after or not.

use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> NameLimits {
    NameLimits::new(&BrokerConfig::default())
}

/// The making of a name that ends once it may.
fn once(go: &Arc<Notify>) -> impl Future<Output = Result<(), BrokerError>> + Send + 'static {
    let go = Arc::clone(go);
    async move {
        go.notified().await;
        Ok(())
    }
}

/// Makes a name, which takes no longer than it must.
async fn make_one(limits: &NameLimits) {
    let runtime = Handle::current();
    let making = limits.in_turn(&runtime, async { Ok(()) });
    let made = tokio::time::timeout(PATIENCE, making).await;
    made.expect("it was held up").unwrap();
}

#[tokio::test]
async fn who_is_not_looked_after_holds_up_nobody() {
    let (limits, runtime) = (limits(), Handle::current());
    let go = Arc::new(Notify::new());
    let mut first = Box::pin(limits.in_turn(&runtime, once(&go)));
    let mut second = Box::pin(limits.in_turn(&runtime, async { Ok(()) }));
    // As a stream is polled once, whose client then does not read any more: one has the turn, and the
    // other is given it.
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    go.notify_one();
    make_one(&limits).await;
    // Both went on by themselves.
    assert!(first.await.is_ok() && second.await.is_ok());
}

#[tokio::test]
async fn names_are_made_one_at_a_time() {
    let (limits, runtime) = (limits(), Handle::current());
    let go = Arc::new(Notify::new());
    let mut first = Box::pin(limits.in_turn(&runtime, once(&go)));
    assert!(first.as_mut().now_or_never().is_none());
    let second = make_one(&limits);
    tokio::pin!(second);
    for _ in 0..100 {
        assert!(second.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    go.notify_one();
    second.await;
    assert!(first.await.is_ok());
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_up_its_turn() {
    let (limits, runtime) = (limits(), Handle::current());
    let mut first = Box::pin(limits.in_turn(&runtime, std::future::pending()));
    assert!(first.as_mut().now_or_never().is_none());
    let taken = async {
        while limits.making.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let taken = tokio::time::timeout(PATIENCE, taken).await;
    taken.expect("it did not take its turn");
    drop(first);
    make_one(&limits).await;
}
