//! The runtime of every group's Raft: tokio's, with the ticks of all groups at the same moments.
//!
//! A Raft ticks every few tens of milliseconds, and each would at moments of its own: a node at rest
//! would wake up for each of its groups alone. Here deadlines are put off to the next line of a grid
//! that all groups of the process share. They tick in one wake-up, and their heartbeats to a peer leave
//! in one piece.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, Instant, OptionalSend, TokioInstant};

/// Between two lines of the grid. Elections and heartbeats are late by at most this.
const GRID: Duration = Duration::from_millis(50);

/// Where the grid begins.
static ORIGIN: LazyLock<TokioInstant> = LazyLock::new(Instant::now);

/// The first line at or after a moment.
fn line_from(deadline: TokioInstant) -> TokioInstant {
    let origin = *ORIGIN;
    if deadline <= origin {
        return deadline;
    }
    let grid_micros = GRID.as_micros();
    let lines = (deadline - origin).as_micros().div_ceil(grid_micros);
    // A deadline hundreds of thousands of years away is none.
    let micros = u64::try_from(lines * grid_micros).unwrap_or(u64::MAX);
    origin + Duration::from_micros(micros)
}

/// Tokio, with deadlines on the grid.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: TokioInstant) -> Self::Sleep {
        TokioRuntime::sleep_until(line_from(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: TokioInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_to_the_next_line_and_no_further() {
        let origin = *ORIGIN;
        for (after_ms, line_ms) in [(1, 50), (30, 50), (50, 50), (51, 100), (149, 150)] {
            let deadline = origin + Duration::from_millis(after_ms);
            assert_eq!(
                line_from(deadline) - origin,
                Duration::from_millis(line_ms),
                "{after_ms} ms"
            );
        }
    }

    #[test]
    fn what_is_long_due_is_not_put_off() {
        let origin = *ORIGIN;
        assert_eq!(line_from(origin), origin);
        assert!(line_from(TokioInstant::now()) - TokioInstant::now() <= GRID);
    }
}
