//! Carries messages that moved to a queue of another shard, exactly once.
//!
//! The source shard's state holds them, numbered per target. The leader's pump offers them to the
//! target in that order, under the origin of the *shard*: whoever leads it after a restart repeats the
//! same numbers, and the target applies each once. Then the source is told to forget them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::command::{Command, EnqueueRun};
use flotilla_model::ids::{Origin, ShardId};
use flotilla_model::outcome::{Outcome, Refusal};
use flotilla_model::query::{self, OutboxItem};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

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

/// Shards that one pump sends to at a time: each may hold a batch in memory.
const TARGETS_MAX: usize = 4;

pub(crate) struct OutboxPump {
    pub source: Shard,
    pub shards: Arc<[Shard]>,
}

/// Where the pump is with each of the other shards.
#[derive(Default)]
struct Targets {
    /// Those for which something may be there that was not looked at yet.
    wanted: BTreeSet<ShardId>,
    /// Those that are being sent to.
    busy: BTreeSet<ShardId>,
    /// Those that are not tried before that.
    waiting: BTreeMap<ShardId, Instant>,
}

impl Targets {
    /// Whether a shard is to be sent to now. It is no longer wanted then.
    fn take(&mut self, shard: ShardId, now: Instant) -> bool {
        let is_free = self.busy.len() < TARGETS_MAX
            && !self.busy.contains(&shard)
            && self.waiting.get(&shard).is_none_or(|until| *until <= now);
        let is_taken = is_free && self.wanted.remove(&shard);
        if is_taken {
            self.busy.insert(shard);
            self.waiting.remove(&shard);
        }
        is_taken
    }

    /// When the next one that waits can be sent to, unless one that is being sent to must be done with before.
    fn wake_at(&self) -> Option<Instant> {
        let next = self.waiting.values().min().copied();
        next.filter(|_| self.busy.len() < TARGETS_MAX)
    }
}

impl OutboxPump {
    pub async fn run(self) {
        let mut role = self.source.replica().role.subscribe();
        let pump = &self;
        let mut targets = Targets::default();
        // What has to wait for some shards holds up no other.
        let mut sending = FuturesUnordered::new();
        self.want_all(&mut targets);
        loop {
            if *role.borrow_and_update() == Role::Leader {
                let now = Instant::now();
                let free = self.shards.iter().filter(|to| targets.take(to.id(), now));
                for target in free {
                    sending.push(async move { (target.id(), pump.send_all(target).await) });
                }
            } else {
                // The next leader goes on with it.
                sending.clear();
                targets = Targets::default();
                self.want_all(&mut targets);
            }
            tokio::select! {
                () = self.source.replica().outbox_wake.notified() => self.want_all(&mut targets),
                changed = role.changed() => if changed.is_err() { return },
                Some((to, sent)) = sending.next() => {
                    targets.busy.remove(&to);
                    if let Err(error) = sent {
                        // Not each time that something else is moved: it may be damaged, and is read at all
                        // nodes then.
                        let until = Instant::now() + self.pause_after(to, &error);
                        targets.waiting.insert(to, until);
                        targets.wanted.insert(to);
                    }
                }
                () = sleep_until(targets.wake_at()) => {}
            }
        }
    }

    fn want_all(&self, targets: &mut Targets) {
        let others = self.shards.iter().map(Shard::id);
        let own = self.source.id();
        targets.wanted.extend(others.filter(|shard| *shard != own));
    }

    fn pause_after(&self, target: ShardId, error: &ClusterError) -> Duration {
        let shard = self.source.id();
        match error {
            ClusterError::Unread { .. } | ClusterError::Absent { .. } => {
                tracing::error!(%shard, %target, %error, "moves wait for a node that can read them");
                DAMAGE_PAUSE
            }
            _ => {
                tracing::debug!(%shard, %target, %error, "outbox waits");
                RETRY_PAUSE
            }
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
        if items.is_empty() {
            return Ok(false);
        }
        if target.leader().is_none() {
            // Those that have one need not wait for its deadline.
            return Err(ClusterError::Unavailable {
                reason: format!("{to} has no leader"),
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_sent_to_once_at_a_time_and_when_it_is_wanted() {
        let now = Instant::now();
        let (one, two) = (ShardId(1), ShardId(2));
        let mut targets = Targets::default();
        assert!(!targets.take(one, now), "nothing is there");
        targets.wanted.extend([one, two]);
        assert!(targets.take(one, now));
        targets.wanted.insert(one);
        assert!(!targets.take(one, now), "it is being sent to");
        assert!(targets.take(two, now));
        targets.busy.clear();
        assert!(targets.take(one, now), "it was wanted meanwhile");
        assert!(!targets.take(two, now), "it was not");
    }

    #[test]
    fn one_that_failed_waits_and_then_has_no_one_busy_looping_for_it() {
        let now = Instant::now();
        let later = now + RETRY_PAUSE;
        let failed = ShardId(1);
        let mut targets = Targets::default();
        targets.wanted.insert(failed);
        targets.waiting.insert(failed, later);
        assert!(!targets.take(failed, now));
        assert_eq!(targets.wake_at(), Some(later));
        targets.busy.extend((2..).map(ShardId).take(TARGETS_MAX));
        assert!(!targets.take(failed, later), "there is no room for it");
        assert_eq!(targets.wake_at(), None);
        targets.busy.clear();
        assert!(targets.take(failed, later));
        assert_eq!(targets.wake_at(), None);
    }
}
