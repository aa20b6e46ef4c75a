//! Receiving and peeking on the node that leads the queue's shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::LeaseId;
use flotilla_model::name::Name;
use flotilla_model::query;
use tokio::sync::oneshot;

use crate::api::queue::QueueDelivery;
use crate::core::Core;
use crate::fault::Fault;
use crate::queue::actor::{Look, Wait};
use crate::queue::deliver::{self, Answer};
use crate::wake::Wake;

/// Messages of one lease at most: what the shard's `Lease` command allows.
pub(crate) const LEASE_MESSAGES_MAX: u32 = 4_096;
/// Longer waits are cut to this.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Between looks at a queue that says it has something and then shows nothing.
const PEEK_PAUSE: Duration = Duration::from_millis(20);

/// When a wait that begins now is over.
pub(crate) fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(WAIT_MAX)
}

/// Has the queue's actor serve a receiver.
pub(crate) async fn receive_here(
    core: &Arc<Core>,
    queue: &Name,
    wait: &Wait,
) -> Result<Answer, Fault> {
    check_seat(core, queue)?;
    let start = |wake| core.start_queue(queue, wake);
    let answer = core.queues.call(queue, start, || wait.clone()).await??;
    let wake = core.queues.get(queue).map(|live| live.wake);
    Waiting { answer, wake }.answer(core).await
}

/// Shows available messages without taking them; waits only while there are none.
pub(crate) async fn peek_here(
    core: &Arc<Core>,
    queue: &Name,
    messages_max: u32,
    bytes_max: u64,
    until: Instant,
) -> Result<Vec<QueueDelivery>, Fault> {
    let messages_max = messages_max.clamp(1, LEASE_MESSAGES_MAX) as usize;
    let mut rounds = 0;
    loop {
        if rounds > 0 {
            // Counted as available but not to be shown, such as messages that have just expired.
            let pause = until
                .saturating_duration_since(Instant::now())
                .min(PEEK_PAUSE);
            tokio::time::sleep(pause).await;
        }
        rounds += 1;
        check_seat(core, queue)?;
        let (shard, _) = core.shard_for(queue);
        core.confirm_leadership(shard).await?;
        let mut found = shard
            .read(|records| query::queue_peek(records, queue, shard.now(), messages_max))
            .await?;
        let mut bytes = 0;
        let fitting = found.iter().take_while(|message| {
            let first = bytes == 0;
            bytes += u64::from(message.at.bytes);
            first || bytes <= bytes_max
        });
        let fitting = fitting.count();
        found.truncate(fitting);
        // A message may be gone because another receiver took it, which is no damage.
        let (deliveries, _) = deliver::read(core, queue, LeaseId(0), found).await?;
        if !deliveries.is_empty() || Instant::now() >= until {
            return Ok(deliveries);
        }
        let start = |wake| core.start_queue(queue, wake);
        let look = || Look { deadline: until };
        let answer = core.queues.call(queue, start, look).await??;
        let wake = core.queues.get(queue).map(|live| live.wake);
        let before = Instant::now();
        Waiting { answer, wake }.answer(core).await?;
        if before.elapsed() > PEEK_PAUSE {
            rounds = 0;
        }
    }
}

fn check_seat(core: &Core, queue: &Name) -> Result<(), Fault> {
    core.check_open()?;
    if core.serves(core.shard_for(queue).0) {
        Ok(())
    } else {
        Err(Fault::Moved)
    }
}

/// Waits for an answer; dropped before, it lets the actor know at once.
struct Waiting {
    answer: oneshot::Receiver<Result<Answer, Fault>>,
    wake: Option<Arc<Wake>>,
}

impl Waiting {
    async fn answer(mut self, core: &Core) -> Result<Answer, Fault> {
        let answer = (&mut self.answer).await;
        self.wake = None;
        answer.unwrap_or_else(|_| Err(core.gone("the delivery").into()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(wake) = &self.wake {
            self.answer.close();
            wake.ring();
        }
    }
}
