//! Queues of the naive model.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::settings::QueueSettings;

use super::{Naive, OutboxEntry, Timer, bucket_of, find_duplicates, invalid, not_found};

const NANOS_PER_MS: u64 = 1_000_000;

pub struct Queue {
    pub object: ObjectId,
    pub settings: QueueSettings,
    pub next: u64,
    last_lease: u64,
    pub messages: BTreeMap<u64, Message>,
    pub delayed: BTreeMap<u64, Vec<Message>>,
    pub leases: BTreeMap<u64, Lease>,
    dedup: BTreeMap<DedupId, (u64, u64)>,
    pub totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub enqueued: u64,
    pub delivered: u64,
    pub acked: u64,
    pub returned: u64,
    pub expired: u64,
    pub dead_lettered: u64,
    pub purged: u64,
}

#[derive(Clone)]
pub struct Message {
    pub at: MessageRef,
    published: u64,
    expires: Option<(u64, u64)>,
    pub receive_count: u32,
    policy: QueuePolicy,
    moved_from: Option<Name>,
    pub lease: Option<u64>,
}

pub struct Lease {
    pub session: SessionId,
    pub held: BTreeSet<u64>,
    pub deadline: Option<u64>,
    armed: u64,
    pub order: u64,
}

impl Message {
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|(at, _)| at <= now)
    }
}

impl Queue {
    pub fn slots(&self) -> impl Iterator<Item = MessageRef> {
        self.all().map(|message| message.at)
    }

    fn all(&self) -> impl Iterator<Item = &Message> {
        self.messages
            .values()
            .chain(self.delayed.values().flatten())
    }

    pub fn bytes(&self) -> u64 {
        self.all().map(|message| u64::from(message.at.bytes)).sum()
    }

    pub fn available(&self) -> impl Iterator<Item = (u64, &Message)> {
        let all = self
            .messages
            .iter()
            .map(|(sequence, message)| (*sequence, message));
        all.filter(|(_, message)| message.lease.is_none())
    }

    pub fn drop_expired(&mut self, now: u64) {
        let before = self.messages.len();
        self.messages
            .retain(|_, message| message.lease.is_some() || !message.is_expired(now));
        self.totals.expired += (before - self.messages.len()) as u64;
    }

    pub fn shown(&self, sequence: u64, message: &Message) -> LeasedMessage {
        LeasedMessage {
            sequence: Sequence(sequence),
            at: message.at,
            published: WallTime(message.published),
            receive_count: message.receive_count + 1,
            expires: message.expires.map(|(_, wall)| WallTime(wall)),
            receive_count_max: self.limit(message),
            dead_letter: message.policy.dead_letter.clone(),
            moved_from: message.moved_from.clone(),
            ttl_ms: message.policy.ttl_ms,
            delay_ms: message.policy.delay_ms,
        }
    }

    fn limit(&self, message: &Message) -> u32 {
        match message.policy.receive_count_max {
            0 => self.settings.receive_count_max,
            own => own,
        }
    }

    fn push(&mut self, message: Message) {
        self.messages.insert(
            self.next,
            Message {
                lease: None,
                ..message
            },
        );
        self.next += 1;
    }
}

impl Naive {
    pub fn open_queue(&mut self, name: &Name) -> &mut Queue {
        if !self.queues.contains_key(name) {
            let queue = Queue {
                object: self.new_object(),
                settings: self.defaults.queue.clone(),
                next: 1,
                last_lease: 0,
                messages: BTreeMap::new(),
                delayed: BTreeMap::new(),
                leases: BTreeMap::new(),
                dedup: BTreeMap::new(),
                totals: Totals::default(),
            };
            self.queues.insert(name.clone(), queue);
        }
        self.queues.get_mut(name).unwrap()
    }

    fn queue_of(&mut self, object: ObjectId) -> Option<Name> {
        let found = self.queues.iter().find(|(_, queue)| queue.object == object);
        found.map(|(name, _)| name.clone())
    }

    fn wall_at(&self, time: u64) -> u64 {
        (self.wall + time.saturating_sub(self.time) * NANOS_PER_MS)
            .saturating_sub(self.time.saturating_sub(time) * NANOS_PER_MS)
    }

    pub fn enqueue(
        &mut self,
        name: &Name,
        runs: &[EnqueueRun],
        ids: &[(u32, DedupId)],
        slot: u32,
    ) -> Outcome {
        let (now, wall) = (self.time, self.wall);
        let is_new = !self.queues.contains_key(name);
        let before = self.new_object();
        self.last_object_back(before);
        let policies: Vec<&EnqueueRun> = runs
            .iter()
            .flat_map(|run| std::iter::repeat_n(run, run.count as usize))
            .collect();
        let slots: Vec<MessageRef> = (slot..)
            .take(policies.len())
            .map(|slot| self.slot(slot))
            .collect();
        let queue = self.open_queue(name);
        let window_ms = queue.settings.dedup_window_ms;
        let duplicates = find_duplicates(&queue.dedup, window_ms, now, ids);
        let new = (0..policies.len()).filter(|place| !duplicates.contains_key(&(*place as u32)));
        let new: Vec<usize> = new.collect();
        let bytes: u64 = new.iter().map(|place| u64::from(slots[*place].bytes)).sum();
        let stored = queue.all().count() as u64;
        let full = [
            (
                stored,
                new.len() as u64,
                queue.settings.messages_max,
                "messages",
            ),
            (queue.bytes(), bytes, queue.settings.bytes_max, "bytes"),
        ];
        let is_move = runs.iter().any(|run| run.moved.is_some());
        for (stored, more, allowed, unit) in full {
            if let Some(allowed) = allowed.filter(|allowed| stored + more > *allowed)
                && more > 0
                && !is_move
            {
                if is_new {
                    self.queues.remove(name);
                    self.last_object_back(before);
                }
                let unit = unit.to_owned();
                return Outcome::Refused(Refusal::QueueFull {
                    stored,
                    allowed,
                    unit,
                });
            }
        }
        let first = queue.next;
        queue.totals.enqueued += new.len() as u64;
        for (place, id) in ids {
            if !duplicates.contains_key(place) {
                queue.dedup.insert(*id, (first, now));
            }
        }
        for place in new {
            let run = policies[place];
            let kept = run.moved.as_ref().and_then(|moved| moved.expiry);
            let from = run.moved.as_ref().map(|moved| moved.from.clone());
            self.arrive(name, slots[place], run.policy.clone(), from, kept);
        }
        Outcome::Enqueued {
            at: WallTime(wall),
            duplicates: duplicates.into_keys().collect(),
        }
    }

    fn last_object_back(&mut self, object: ObjectId) {
        self.last_object = object.0 - 1;
    }

    fn arrive(
        &mut self,
        name: &Name,
        at: MessageRef,
        policy: QueuePolicy,
        moved_from: Option<Name>,
        kept: Option<(u64, WallTime)>,
    ) {
        let now = self.time;
        let due = now + policy.delay_ms;
        let published = self.wall_at(due);
        let retention_ms = self.open_queue(name).settings.retention_ms;
        let ends = [policy.ttl_ms, retention_ms]
            .into_iter()
            .flatten()
            .map(|ms| due + ms)
            .min();
        let mut expires = ends.map(|end| (end, self.wall_at(end)));
        if let Some((left_ms, wall)) = kept
            && expires.is_none_or(|(end, _)| now + left_ms < end)
        {
            expires = Some((now + left_ms, wall.0));
        }
        let message = Message {
            at,
            published,
            expires,
            receive_count: 0,
            policy,
            moved_from,
            lease: None,
        };
        let queue = self.open_queue(name);
        if due == now {
            queue.push(message);
            return;
        }
        let (object, bucket) = (queue.object, bucket_of(due));
        let is_new = !queue.delayed.contains_key(&bucket);
        queue.delayed.entry(bucket).or_default().push(message);
        if is_new {
            self.arm(Timer::Delayed(object, bucket), bucket);
        }
    }

    pub fn fire_delayed(&mut self, object: ObjectId, bucket: u64) {
        if let Some(name) = self.queue_of(object) {
            let queue = self.open_queue(&name);
            for message in queue.delayed.remove(&bucket).unwrap_or_default() {
                queue.push(message);
            }
        }
    }

    pub fn lease(
        &mut self,
        name: &Name,
        session: SessionId,
        messages_max: u32,
        bytes_max: u64,
        visibility_ms: Option<u64>,
    ) -> Outcome {
        if self.is_over(session) {
            return invalid("the session's node has started again since");
        }
        let now = self.time;
        let Some(queue) = self.queues.get_mut(name) else {
            return Outcome::Leased {
                lease: LeaseId(0),
                messages: Vec::new(),
                expired: 0,
            };
        };
        let (mut taken, mut bytes, mut gone) = (Vec::new(), 0, Vec::new());
        for (sequence, message) in queue.available() {
            // An expired one is only met on the way to one that is wanted.
            if taken.len() == messages_max as usize {
                break;
            }
            if message.is_expired(now) {
                gone.push(sequence);
                continue;
            }
            bytes += u64::from(message.at.bytes);
            if !taken.is_empty() && bytes > bytes_max {
                break;
            }
            taken.push(queue.shown(sequence, message));
        }
        queue
            .messages
            .retain(|sequence, _| !gone.contains(sequence));
        queue.totals.expired += gone.len() as u64;
        let expired = gone.len() as u32;
        if taken.is_empty() {
            return Outcome::Leased {
                lease: LeaseId(0),
                messages: taken,
                expired,
            };
        }
        queue.last_lease += 1;
        let (object, lease) = (queue.object, queue.last_lease);
        for message in &taken {
            let held = queue.messages.get_mut(&message.sequence.0).unwrap();
            held.lease = Some(lease);
            held.receive_count += 1;
        }
        queue.totals.delivered += taken.len() as u64;
        let held = taken.iter().map(|message| message.sequence.0).collect();
        let deadline = visibility_ms.map(|ms| now + ms);
        let armed = deadline.map_or(0, bucket_of);
        if deadline.is_some() {
            self.arm(Timer::Lease(object, lease), armed);
        }
        self.session_gains(session);
        let order = self.next_order();
        let state = Lease {
            session,
            held,
            deadline,
            armed,
            order,
        };
        self.open_queue(name).leases.insert(lease, state);
        Outcome::Leased {
            lease: LeaseId(lease),
            messages: taken,
            expired,
        }
    }

    fn held_by(&self, name: &Name, session: SessionId, lease: LeaseId) -> Result<&Lease, Outcome> {
        let Some(queue) = self.queues.get(name) else {
            return Err(not_found(name));
        };
        let found = queue
            .leases
            .get(&lease.0)
            .filter(|found| found.session == session);
        found.ok_or(Outcome::Refused(Refusal::StaleLease { lease }))
    }

    pub fn settle(
        &mut self,
        name: &Name,
        session: SessionId,
        lease: LeaseId,
        which: &Selection,
        how: &Settlement,
    ) -> Outcome {
        let held = match self.held_by(name, session, lease) {
            Ok(found) => found.held.clone(),
            Err(refused) => return refused,
        };
        let asked: Vec<Sequence> = match which {
            Selection::All => held.iter().copied().map(Sequence).collect(),
            Selection::Sequences(list) => list.clone(),
        };
        let (chosen, not_held): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|sequence| held.contains(&sequence.0));
        let remaining = held.len() - chosen.len();
        self.end_hold(name, lease.0, &chosen, how);
        Outcome::Settled {
            count: chosen.len() as u32,
            not_held,
            remaining: remaining as u32,
        }
    }

    pub fn extend(&mut self, name: &Name, session: SessionId, lease: LeaseId, ms: u64) -> Outcome {
        let armed = match self.held_by(name, session, lease) {
            Ok(found) => found.armed,
            Err(refused) => return refused,
        };
        let deadline = self.time + ms;
        let bucket = bucket_of(deadline);
        let object = self.open_queue(name).object;
        let is_earlier = armed == 0 || bucket < armed;
        if is_earlier {
            self.arm(Timer::Lease(object, lease.0), bucket);
        }
        let found = self.open_queue(name).leases.get_mut(&lease.0).unwrap();
        found.deadline = Some(deadline);
        if is_earlier {
            found.armed = bucket;
        }
        Outcome::Done
    }

    pub fn fire_lease(&mut self, object: ObjectId, lease: u64, bucket: u64) {
        let Some(name) = self.queue_of(object) else {
            return;
        };
        let now = self.time;
        let Some(found) = self.open_queue(&name).leases.get_mut(&lease) else {
            return;
        };
        let Some(deadline) = found.deadline.filter(|_| found.armed == bucket) else {
            return;
        };
        if deadline <= now {
            self.end_lease(&name, lease, &Settlement::Return);
        } else {
            found.armed = bucket_of(deadline);
            self.arm(Timer::Lease(object, lease), bucket_of(deadline));
        }
    }

    pub fn end_lease(&mut self, name: &Name, lease: u64, how: &Settlement) {
        let held = &self.open_queue(name).leases[&lease].held;
        let all: Vec<Sequence> = held.iter().copied().map(Sequence).collect();
        self.end_hold(name, lease, &all, how);
    }

    fn end_hold(&mut self, name: &Name, lease: u64, chosen: &[Sequence], how: &Settlement) {
        let (now, wall) = (self.time, self.wall);
        let queue = self.queues.get_mut(name).unwrap();
        let mut to_tail = Vec::new();
        let mut departing = Vec::new();
        for Sequence(sequence) in chosen {
            let message = queue.messages.remove(sequence).unwrap();
            let limit = queue.limit(&message);
            let is_last = limit != 0 && message.receive_count >= limit;
            match how {
                Settlement::Ack => queue.totals.acked += 1,
                Settlement::Move { to } => departing.push((message, Some(to.clone()), false)),
                Settlement::Return | Settlement::Release if message.is_expired(now) => {
                    queue.totals.expired += 1;
                }
                Settlement::Return | Settlement::Release if is_last => {
                    let own = message.policy.dead_letter.clone();
                    let to = own.or(queue.settings.dead_letter.clone());
                    queue.totals.dead_lettered += 1;
                    departing.push((message, to, true));
                }
                Settlement::Return => to_tail.push(Message {
                    published: wall,
                    ..message
                }),
                Settlement::Release => {
                    queue.messages.insert(
                        *sequence,
                        Message {
                            lease: None,
                            ..message
                        },
                    );
                }
            }
        }
        queue.totals.returned += to_tail.len() as u64;
        to_tail.into_iter().for_each(|message| queue.push(message));
        let state = queue.leases.get_mut(&lease).unwrap();
        chosen.iter().for_each(|sequence| {
            state.held.remove(&sequence.0);
        });
        if state.held.is_empty() {
            let session = state.session;
            queue.leases.remove(&lease);
            self.session_loses(session);
        }
        for (message, to, is_dead) in departing {
            if let Some(to) = to {
                self.depart(name, message, &to, is_dead);
            }
        }
    }

    fn depart(&mut self, from: &Name, message: Message, to: &Name, is_dead: bool) {
        let (policy, kept) = if is_dead {
            let left = message
                .expires
                .map(|(at, wall)| (at - self.time, WallTime(wall)));
            (QueuePolicy::default(), left)
        } else {
            (message.policy, None)
        };
        let target = to.shard(self.defaults.shard_count);
        if target == self.shard {
            self.arrive(to, message.at, policy, Some(from.clone()), kept);
            self.open_queue(to).totals.enqueued += 1;
        } else {
            let moved = Moved {
                from: from.clone(),
                expiry: kept,
            };
            let entry = OutboxEntry {
                queue: to.clone(),
                at: message.at,
                policy,
                moved,
            };
            self.push_outbox(target, entry);
        }
    }

    pub fn purge(&mut self, name: &Name) -> Outcome {
        let Some(queue) = self.queues.get_mut(name) else {
            return not_found(name);
        };
        let before = queue.messages.len();
        queue.messages.retain(|_, message| message.lease.is_some());
        let purged = (before - queue.messages.len()) as u64;
        queue.totals.purged += purged;
        Outcome::Purged(purged)
    }
}
