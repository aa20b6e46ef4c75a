//! A consumer's session: it owns leases, and gives back what it holds when it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::{Command, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence, SessionId, ShardId};
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;
use flotilla_model::query;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::api::queue::{QueueDelivery, Receive, Received, Settled};
use crate::convert::unexpected;
use crate::core::{Core, check_kind};
use crate::ingress::Work;
use crate::queue::actor::{Look, Wait};
use crate::queue::deliver::{self, Answer};
use crate::wake::Wake;

/// Messages of one lease at most: what the shard's `Lease` command allows.
const LEASE_MESSAGES_MAX: u32 = 4_096;
/// Longer waits are cut to this.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Between looks at a queue that says it has something and then shows nothing.
const PEEK_PAUSE: Duration = Duration::from_millis(20);

/// Holds leases for one consumer. When it is dropped, all it holds goes back in the background.
pub struct Session {
    core: Arc<Core>,
    id: SessionId,
    /// Shards that may hold something for it.
    touched: Mutex<BTreeSet<ShardId>>,
}

impl Session {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        core.metrics.session_opened();
        Self {
            id: core.next_session(),
            core,
            touched: Mutex::new(BTreeSet::new()),
        }
    }

    /// Receives messages, which the session then holds under one lease.
    ///
    /// May be dropped at any time: messages that were on their way go back to their place.
    pub async fn receive(&self, receive: Receive) -> Result<Received, BrokerError> {
        self.core.check_open()?;
        check_kind(&receive.queue, Kind::Queue)?;
        if !(1..=LEASE_MESSAGES_MAX).contains(&receive.messages_max) {
            return Err(BrokerError::InvalidRequest {
                what: format!(
                    "messages_max is {}, 1 to {LEASE_MESSAGES_MAX} are allowed",
                    receive.messages_max
                ),
            });
        }
        self.touch(&receive.queue);
        let wait = Wait {
            session: self.id,
            messages_max: receive.messages_max,
            bytes_max: receive.bytes_max,
            deadline: deadline(receive.wait),
            fill: receive.fill,
            visibility_ms: receive.visibility.map(to_ms),
        };
        let mut expired = 0;
        loop {
            let (mut received, spoilt) = self.wait_once(&receive.queue, &wait).await?.accept();
            expired += received.expired;
            if spoilt && Instant::now() < wait.deadline {
                continue;
            }
            received.expired = expired;
            let messages = received.messages.len() as u64;
            let bytes = received.messages.iter().map(body_bytes).sum();
            let metrics = &self.core.metrics;
            metrics.delivered(Kind::Queue, &receive.queue, messages, bytes);
            return Ok(received);
        }
    }

    async fn wait_once(&self, queue: &Name, wait: &Wait) -> Result<Answer, BrokerError> {
        let core = &self.core;
        let start = |wake| core.start_queue(queue, wake);
        let answer = core.queues.call(queue, start, || wait.clone()).await??;
        let wake = core.queues.get(queue).map(|live| live.wake);
        Waiting { answer, wake }.answer(core).await
    }

    /// Ends the hold on messages of a lease.
    pub async fn settle(
        &self,
        queue: &Name,
        lease: LeaseId,
        which: Selection,
        how: Settlement,
    ) -> Result<Settled, BrokerError> {
        self.core.check_open()?;
        let command = Command::Settle {
            queue: queue.clone(),
            session: self.id,
            lease,
            which,
            how,
        };
        match self.run(queue, command).await? {
            Outcome::Settled {
                count,
                not_held,
                remaining,
            } => Ok(Settled {
                count,
                not_held,
                remaining,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Restarts the visibility timer of a lease.
    pub async fn extend(
        &self,
        queue: &Name,
        lease: LeaseId,
        visibility: Duration,
    ) -> Result<(), BrokerError> {
        self.core.check_open()?;
        let command = Command::ExtendLease {
            queue: queue.clone(),
            session: self.id,
            lease,
            visibility_ms: to_ms(visibility),
        };
        match self.run(queue, command).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// What the session still holds under a lease; nothing if the lease is over.
    pub async fn held(&self, queue: &Name, lease: LeaseId) -> Result<Vec<Sequence>, BrokerError> {
        let (shard, _) = self.core.shard_for(queue);
        let found = shard
            .read(|records| query::lease_get(records, queue, lease))
            .await?;
        Ok(found
            .filter(|found| found.session == self.id)
            .map_or_else(Vec::new, |found| found.sequences))
    }

    /// Gives back all that is held, and returns when that is done.
    pub async fn end(self) {
        let touched = std::mem::take(&mut *self.touched.lock());
        for shard in touched {
            let command = Command::EndSession { session: self.id };
            let ended = self
                .core
                .ingress(shard)
                .run(vec![Work::control(command)])
                .await;
            if let Err(error) = ended {
                tracing::warn!(%shard, %error, "a session's end will be told in the background");
                self.touched.lock().insert(shard);
            }
        }
    }

    async fn run(&self, queue: &Name, command: Command) -> Result<Outcome, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        let (_, ingress) = self.core.shard_for(queue);
        let reply = ingress.run(vec![Work::control(command)]).await?;
        Ok(reply.outcome(0)?.0.clone())
    }

    fn touch(&self, queue: &Name) {
        self.touched
            .lock()
            .insert(self.core.cluster.shard_of(queue));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.metrics.session_closed();
        for shard in std::mem::take(self.touched.get_mut()) {
            let command = Command::EndSession { session: self.id };
            let what = "end of a session";
            self.core.run_in_background(shard, what, vec![command]);
        }
    }
}

/// Waits for an answer; dropped before, it lets the actor know at once.
struct Waiting {
    answer: oneshot::Receiver<Result<Answer, BrokerError>>,
    wake: Option<Arc<Wake>>,
}

impl Waiting {
    async fn answer(mut self, core: &Core) -> Result<Answer, BrokerError> {
        let answer = (&mut self.answer).await;
        self.wake = None;
        answer.unwrap_or_else(|_| Err(core.gone("the delivery")))
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

/// Shows available messages without taking them; waits only while there are none.
pub(crate) async fn peek(
    core: &Arc<Core>,
    queue: &Name,
    messages_max: u32,
    bytes_max: u64,
    wait: Duration,
) -> Result<Vec<QueueDelivery>, BrokerError> {
    core.check_open()?;
    check_kind(queue, Kind::Queue)?;
    let messages_max = messages_max.clamp(1, LEASE_MESSAGES_MAX) as usize;
    let until = deadline(wait);
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
        let (shard, _) = core.shard_for(queue);
        let mut found = shard
            .read(|records| query::queue_peek(records, queue, messages_max))
            .await?;
        let mut bytes = 0;
        let fitting = found.iter().take_while(|message| {
            let first = bytes == 0;
            bytes += u64::from(message.at.bytes);
            first || bytes <= bytes_max
        });
        let fitting = fitting.count();
        found.truncate(fitting);
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

fn deadline(wait: Duration) -> Instant {
    Instant::now() + wait.min(WAIT_MAX)
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn body_bytes(delivery: &QueueDelivery) -> u64 {
    delivery.message.body.len() as u64
}
