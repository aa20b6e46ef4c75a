//! Carries messages that moved to a queue of another shard, exactly once.
//!
//! The source shard's state holds them, numbered per target. The leader's pump offers them to the
//! target in that order, under the origin of the *shard*: whoever leads it after a restart repeats the
//! same numbers, and the target applies each once. Then the source is told to forget them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::command::{Command, EnqueueRun};
use flotilla_model::ids::{Origin, ShardId};
use flotilla_model::outcome::{Outcome, Refusal};
use flotilla_model::query::{self, OutboxItem};

use crate::error::ClusterError;
use crate::observer::Role;
use crate::pending::{ForeignProposal, no_operation};
use crate::replica::Counters;
use crate::shard::Shard;

/// Items offered in one entry, at most; fewer when they are large.
const ITEMS_MAX: usize = 256;
const BYTES_MAX: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(30);
/// After a target or the source did not take a batch.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// After a message was found damaged or missing that another replica may have.
const DAMAGE_PAUSE: Duration = Duration::from_secs(5);

/// The shards that are not tried before that.
type Waiting = BTreeMap<ShardId, Instant>;

pub(crate) struct OutboxPump {
    pub source: Shard,
    pub shards: Arc<[Shard]>,
}

impl OutboxPump {
    pub async fn run(self) {
        let mut role = self.source.replica().role.subscribe();
        let mut waiting = Waiting::new();
        loop {
            if *role.borrow_and_update() == Role::Leader {
                self.empty(&mut waiting).await;
            } else {
                // The next leader goes on with it.
                waiting.clear();
            }
            let wake_at = waiting.values().min().copied();
            tokio::select! {
                () = self.source.replica().outbox_wake.notified() => {}
                changed = role.changed() => if changed.is_err() { return },
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Sends what there is to every other shard, but to those that wait. What cannot be read for one of
    /// them holds up no other.
    async fn empty(&self, waiting: &mut Waiting) {
        let shard = self.source.id();
        for target in self.shards.iter().filter(|target| target.id() != shard) {
            if !self.source.is_leader() {
                return;
            }
            let to = target.id();
            // Not each time that something else is moved: it may be damaged, and is read at all nodes then.
            if waiting
                .get(&to)
                .is_some_and(|until| Instant::now() < *until)
            {
                continue;
            }
            let Err(error) = self.send_all(target).await else {
                waiting.remove(&to);
                continue;
            };
            let pause = match &error {
                ClusterError::Unread { .. } | ClusterError::Absent { .. } => {
                    tracing::error!(%shard, target = %to, %error, "moves wait for a node that can read them");
                    DAMAGE_PAUSE
                }
                _ => {
                    tracing::debug!(%shard, target = %to, %error, "outbox waits");
                    RETRY_PAUSE
                }
            };
            waiting.insert(to, Instant::now() + pause);
        }
    }

    async fn send_all(&self, target: &Shard) -> Result<(), ClusterError> {
        while self.send_some(target).await? {}
        Ok(())
    }

    /// Whether there was something to send.
    async fn send_some(&self, target: &Shard) -> Result<bool, ClusterError> {
        let replica = self.source.replica();
        let to = target.id();
        let mut items = replica
            .read(|records| query::outbox_pending(records, to, ITEMS_MAX))
            .await?;
        cut_to_bytes(&mut items);
        let mut last = None;
        let mut slots = Vec::with_capacity(items.len());
        let mut proposals = Vec::with_capacity(items.len());
        for item in items {
            let payload = match self.payload(to, &item).await {
                Ok(payload) => payload,
                // What comes before it goes first: only those behind it must wait for it.
                Err(_) if last.is_some() => break,
                Err(error) => return Err(error),
            };
            last = Some(item.id);
            proposals.push(proposal(self.source.id(), item, payload.is_some()));
            slots.extend(payload);
        }
        let Some(last) = last else {
            return Ok(false);
        };
        let outcomes = target
            .propose_foreign(proposals, slots, Instant::now() + DEADLINE)
            .await?;
        let mut sent = 0;
        for outcome in outcomes.iter().filter_map(|outcomes| outcomes.first()) {
            match outcome {
                // The target is ahead of what it remembers: it had this one long ago.
                Outcome::Refused(Refusal::OriginGap { last, got }) if last >= got => {}
                Outcome::Refused(refusal @ Refusal::OriginGap { .. }) => {
                    return Err(ClusterError::Unavailable {
                        reason: refusal.to_string(),
                    });
                }
                Outcome::Refused(refusal) => self.drop_item(to, &refusal.to_string()),
                _ => sent += 1,
            }
        }
        Counters::add(&replica.counters.outbox_sent, sent);
        let confirm = Command::ConfirmOutbox {
            target: to,
            upto: last,
        };
        self.source
            .propose(vec![confirm], Vec::new(), Instant::now() + DEADLINE)
            .await?;
        Ok(true)
    }

    /// `None` for a message whose bytes no replica has any more: it must not hold up the rest.
    async fn payload(&self, to: ShardId, item: &OutboxItem) -> Result<Option<Bytes>, ClusterError> {
        let slots = item.at.slot..item.at.slot.saturating_add(1);
        let error = match self.source.read_slots(item.at.index, slots).await {
            Ok(mut payload) => return Ok(payload.pop()),
            Err(error) => error,
        };
        let is_lost = match error {
            // It is so on all of them.
            ClusterError::Corrupt { .. } => true,
            // This node may only lack what the others have.
            ClusterError::Absent { .. } => self.source.replica().is_alone(),
            _ => false,
        };
        if !is_lost {
            return Err(error);
        }
        self.drop_item(to, &error.to_string());
        Ok(None)
    }

    fn drop_item(&self, to: ShardId, reason: &str) {
        Counters::add(&self.source.replica().counters.outbox_dropped, 1);
        tracing::error!(
            source = %self.source.id(),
            target = %to,
            reason,
            "a message could not be moved and is lost"
        );
    }
}

fn cut_to_bytes(items: &mut Vec<OutboxItem>) {
    let mut bytes = 0;
    let fitting = items
        .iter()
        .take_while(|item| {
            bytes += u64::from(item.at.bytes);
            bytes <= BYTES_MAX
        })
        .count();
    // One goes whatever its size.
    items.truncate(fitting.max(1));
}

fn proposal(source: ShardId, item: OutboxItem, has_payload: bool) -> ForeignProposal {
    let command = if has_payload {
        Command::Enqueue {
            queue: item.queue,
            runs: vec![EnqueueRun {
                count: 1,
                policy: item.policy,
                moved: Some(item.moved),
            }],
            dedup: Vec::new(),
        }
    } else {
        no_operation()
    };
    ForeignProposal {
        origin: Origin::Shard(source),
        sequence: item.id,
        commands: vec![command],
        slot_count: u32::from(has_payload),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
