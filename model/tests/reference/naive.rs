//! The model of the model: what a shard must do, written with plain maps and lists.
//!
//! No pages, no tries, no records, no interning. Only the order in which timers of one moment fire
//! is written down as it is promised: by bucket, then in the order of arming.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::settings::*;

#[path = "naive_lease.rs"]
mod lease;
#[path = "naive_queue.rs"]
pub mod queue;
#[path = "naive_topic.rs"]
pub mod topic;

use queue::Queue;
use topic::Topic;

/// All times in these tests are multiples of this: then a timer fires exactly when it is due.
pub const BUCKET_MS: u64 = 50;
/// A life that no node reaches.
const NEVER: u64 = u64::MAX;

pub struct Naive {
    pub shard: ShardId,
    pub time: u64,
    pub wall: u64,
    pub index: LogIndex,
    pub defaults: ShardDefaults,
    pub topics: BTreeMap<Name, Topic>,
    pub queues: BTreeMap<Name, Queue>,
    pub outbox: BTreeMap<ShardId, BTreeMap<u64, OutboxEntry>>,
    outbox_last: BTreeMap<ShardId, u64>,
    origins: BTreeMap<NodeId, OriginHistory>,
    pub sessions: BTreeMap<SessionId, SessionLeases>,
    /// Leases of deleted queues that are listed until the graves are cleaned.
    buried: Vec<SessionId>,
    incarnation_first: BTreeMap<NodeId, u64>,
    timers: BTreeMap<(u64, u64), Timer>,
    last_object: u64,
    order: u64,
    slot_bytes: Vec<u32>,
    feature_level: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    pub queue: Name,
    pub at: MessageRef,
    pub policy: QueuePolicy,
    pub moved: Moved,
}

#[derive(Default)]
struct OriginHistory {
    incarnation: u64,
    outcomes: Vec<Vec<Outcome>>,
}

pub struct SessionLeases {
    since: u64,
    pub count: u64,
}

#[derive(Clone, Copy)]
pub enum Timer {
    Lease(ObjectId, u64),
    Delayed(ObjectId, u64),
}

impl Naive {
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            time: 0,
            wall: 0,
            index: LogIndex(0),
            defaults: ShardDefaults {
                shard_count: 1,
                topic: TopicSettings::default(),
                queue: QueueSettings::default(),
            },
            topics: BTreeMap::new(),
            queues: BTreeMap::new(),
            outbox: BTreeMap::new(),
            outbox_last: BTreeMap::new(),
            origins: BTreeMap::new(),
            sessions: BTreeMap::new(),
            buried: Vec::new(),
            incarnation_first: BTreeMap::new(),
            timers: BTreeMap::new(),
            last_object: 0,
            order: 0,
            slot_bytes: Vec::new(),
            feature_level: 1,
        }
    }

    pub fn apply(
        &mut self,
        index: LogIndex,
        head: &EntryHead,
        slot_bytes: &[u32],
    ) -> Vec<Vec<Outcome>> {
        self.index = index;
        self.time = self.time.max(head.now.0);
        self.wall = head.wall.0;
        self.slot_bytes = slot_bytes.to_vec();
        self.fire_timers();
        for session in std::mem::take(&mut self.buried) {
            self.session_loses(session);
        }
        head.proposals
            .iter()
            .map(|proposal| self.propose(proposal))
            .collect()
    }

    fn propose(&mut self, proposal: &Proposal) -> Vec<Outcome> {
        let Origin::Node { node, incarnation } = proposal.origin else {
            panic!("these tests propose from nodes");
        };
        let history = self.origins.entry(node).or_default();
        let mut last = history.outcomes.len() as u64;
        if incarnation > history.incarnation {
            last = 0;
        }
        let got = proposal.sequence;
        let gap = Outcome::Refused(Refusal::OriginGap { last, got });
        if incarnation < history.incarnation {
            return vec![gap; proposal.commands.len()];
        }
        if got != last + 1 {
            let is_kept = got >= 1 && got <= last && last - got < 64;
            return match is_kept {
                true => history.outcomes[got as usize - 1].clone(),
                false => vec![gap; proposal.commands.len()],
            };
        }
        if incarnation > history.incarnation {
            *history = OriginHistory {
                incarnation,
                outcomes: Vec::new(),
            };
        }
        let mut slot = proposal.first_slot;
        let mut outcomes = Vec::new();
        for command in &proposal.commands {
            outcomes.push(self.command(command, slot));
            slot += command.slot_count() as u32;
        }
        let history = self.origins.get_mut(&node).unwrap();
        if history.incarnation < NEVER {
            history.outcomes.push(outcomes.clone());
        }
        outcomes
    }

    fn command(&mut self, command: &Command, slot: u32) -> Outcome {
        match command.clone() {
            Command::Append {
                topic,
                count,
                dedup,
            } => self.append(&topic, count, &dedup, slot),
            Command::Enqueue { queue, runs, dedup } => self.enqueue(&queue, &runs, &dedup, slot),
            Command::Lease {
                queue,
                session,
                messages_max,
                bytes_max,
                visibility_ms,
            } => self.lease(&queue, session, messages_max, bytes_max, visibility_ms),
            Command::Settle {
                how: Settlement::Withdraw { .. } | Settlement::Postpone { .. },
                ..
            } if self.feature_level < 3 => {
                let present = self.feature_level;
                invalid(&format!(
                    "the command is of feature level 3, the group of level {present}"
                ))
            }
            Command::Settle {
                queue,
                session,
                lease,
                which,
                how,
            } => self.settle(&queue, session, lease, &which, &how),
            Command::ExtendLease {
                queue,
                session,
                lease,
                visibility_ms,
            } => self.extend(&queue, session, lease, visibility_ms),
            Command::Purge { queue } => self.purge(&queue),
            Command::EndSession { session } => {
                self.end_session(session, &Settlement::Release);
                Outcome::Done
            }
            Command::WithdrawSession { .. } if self.feature_level < 4 => {
                let present = self.feature_level;
                invalid(&format!(
                    "the command is of feature level 4, the group of level {present}"
                ))
            }
            Command::WithdrawSession { session } => {
                self.end_session(session, &Settlement::Withdraw { pause_ms: 0 });
                Outcome::Done
            }
            Command::EndOldSessions { node, incarnation } => {
                self.end_old_sessions(node, incarnation)
            }
            Command::ForgetNode { .. } if self.feature_level < 2 => {
                invalid("the command is of feature level 2, the group of level 1")
            }
            Command::ForgetNode { node } => {
                let forgotten = OriginHistory {
                    incarnation: NEVER,
                    outcomes: Vec::new(),
                };
                self.origins.insert(node, forgotten);
                self.end_old_sessions(node, NEVER)
            }
            Command::RaiseFeatureLevel { to } => {
                let present = self.feature_level;
                if to < present {
                    return invalid(&format!(
                        "the feature level is {present}, it cannot go down to {to}"
                    ));
                }
                self.feature_level = to;
                Outcome::Done
            }
            Command::OpenCursor {
                topic,
                cursor,
                start,
            } => self.open_cursor(&topic, &cursor, start),
            Command::AdvanceCursor {
                topic,
                cursor,
                low_water,
                settled,
            } => self.advance_cursor(&topic, &cursor, low_water, &settled),
            Command::ResetCursor { topic, cursor, to } => self.reset_cursor(&topic, &cursor, to),
            Command::DeleteCursor { topic, cursor } => self.delete_cursor(&topic, &cursor),
            Command::ConfigureTopic { topic, settings } => self.configure_topic(&topic, settings),
            Command::ConfigureQueue { queue, settings } => {
                self.open_queue(&queue).settings = settings;
                Outcome::Done
            }
            Command::Delete { name } => self.delete(&name),
            Command::SetDefaults { defaults } => {
                self.defaults = defaults;
                Outcome::Done
            }
            Command::ConfirmOutbox { target, upto } => self.confirm_outbox(target, upto),
            Command::RegisterNode { .. }
            | Command::SetNodeState { .. }
            | Command::SetPlacement { .. }
            | Command::SetReplicas { .. } => {
                Outcome::Refused(Refusal::NotMetadata { shard: self.shard })
            }
        }
    }

    fn end_old_sessions(&mut self, node: NodeId, incarnation: u64) -> Outcome {
        let floor = self.incarnation_first.entry(node).or_default();
        *floor = incarnation.max(*floor);
        loop {
            let old = self
                .sessions
                .iter()
                .filter(|(id, _)| id.node == node && id.incarnation < incarnation)
                .min_by_key(|(_, leases)| leases.since);
            let Some((id, _)) = old else {
                return Outcome::Done;
            };
            self.end_session(*id, &Settlement::Release);
        }
    }

    fn delete(&mut self, name: &Name) -> Outcome {
        if self.topics.remove(name).is_some() {
            return Outcome::Done;
        }
        match self.queues.remove(name) {
            Some(queue) => {
                self.buried
                    .extend(queue.leases.values().map(|lease| lease.session));
                Outcome::Done
            }
            None => not_found(name),
        }
    }

    fn confirm_outbox(&mut self, target: ShardId, upto: u64) -> Outcome {
        let Some(last) = self.outbox_last.get(&target) else {
            return Outcome::Done;
        };
        if upto > *last {
            return invalid(&format!("the outbox has no item {upto} yet"));
        }
        self.outbox
            .entry(target)
            .or_default()
            .retain(|id, _| *id > upto);
        Outcome::Done
    }

    fn fire_timers(&mut self) {
        while let Some((at, timer)) = self.timers.pop_first() {
            if at.0 * BUCKET_MS > self.time {
                self.timers.insert(at, timer);
                break;
            }
            match timer {
                Timer::Lease(object, lease) => self.fire_lease(object, lease, at.0),
                Timer::Delayed(object, bucket) => self.fire_delayed(object, bucket),
            }
        }
        let now = self.time;
        for queue in self.queues.values_mut() {
            queue.drop_expired(now);
        }
        for topic in self.topics.values_mut() {
            topic.enforce(now);
            let idle_ms = topic.settings.cursor_idle_ms;
            topic
                .cursors
                .retain(|_, cursor| cursor.moved_at + idle_ms > now);
        }
    }

    pub fn arm(&mut self, timer: Timer, bucket: u64) {
        self.order += 1;
        self.timers.insert((bucket, self.order), timer);
    }

    pub fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub fn new_object(&mut self) -> ObjectId {
        self.last_object += 1;
        ObjectId(self.last_object)
    }

    pub fn is_over(&self, session: SessionId) -> bool {
        let floor = self.incarnation_first.get(&session.node);
        floor.is_some_and(|floor| session.incarnation < *floor)
    }

    pub fn session_gains(&mut self, session: SessionId) {
        let since = self.next_order();
        self.sessions
            .entry(session)
            .or_insert(SessionLeases { since, count: 0 })
            .count += 1;
    }

    pub fn session_loses(&mut self, session: SessionId) {
        let leases = self.sessions.get_mut(&session).unwrap();
        leases.count -= 1;
        if leases.count == 0 {
            self.sessions.remove(&session);
        }
    }

    fn end_session(&mut self, session: SessionId, how: &Settlement) {
        let mut leases: Vec<(u64, Name, u64)> = Vec::new();
        for (name, queue) in &self.queues {
            for (id, lease) in &queue.leases {
                if lease.session == session {
                    leases.push((lease.order, name.clone(), *id));
                }
            }
        }
        leases.sort();
        for (_, name, lease) in leases {
            self.end_lease(&name, lease, how);
        }
        self.buried.retain(|other| *other != session);
        self.sessions.remove(&session);
    }

    pub fn slot(&self, slot: u32) -> MessageRef {
        MessageRef {
            index: self.index,
            slot,
            bytes: self.slot_bytes[slot as usize],
        }
    }

    pub fn push_outbox(&mut self, target: ShardId, entry: OutboxEntry) {
        let last = self.outbox_last.entry(target).or_default();
        *last += 1;
        self.outbox.entry(target).or_default().insert(*last, entry);
    }

    /// Every slot that something refers to.
    pub fn live(&self) -> BTreeSet<MessageRef> {
        let topics = self.topics.values().flat_map(Topic::slots);
        let queues = self.queues.values().flat_map(Queue::slots);
        let outbox = self
            .outbox
            .values()
            .flat_map(|items| items.values().map(|item| item.at));
        topics.chain(queues).chain(outbox).collect()
    }
}

pub fn bucket_of(due: u64) -> u64 {
    due.div_ceil(BUCKET_MS)
}

pub fn not_found(name: &Name) -> Outcome {
    Outcome::Refused(Refusal::NotFound {
        what: name.to_string(),
    })
}

pub fn invalid(what: &str) -> Outcome {
    Outcome::Refused(Refusal::Invalid {
        what: what.to_owned(),
    })
}

/// Which places are duplicates, and what their originals got; `None`: an earlier place.
pub fn find_duplicates(
    seen: &BTreeMap<DedupId, (u64, u64)>,
    window_ms: u64,
    now: u64,
    ids: &[(u32, DedupId)],
) -> BTreeMap<u32, Result<u64, u32>> {
    let mut found = BTreeMap::new();
    for (number, (place, id)) in ids.iter().enumerate() {
        let stored = seen.get(id).filter(|(_, at)| at + window_ms > now);
        let earlier = ids[..number].iter().find(|(_, other)| other == id);
        if let Some((value, _)) = stored {
            found.insert(*place, Ok(*value));
        } else if let Some((first, _)) = earlier {
            found.insert(*place, Err(*first));
        }
    }
    found
}
