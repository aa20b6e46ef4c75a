//! Queues of the naive model.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::settings::QueueSettings;

use super::{Naive, Timer, bucket_of, find_duplicates};

const NANOS_PER_MS: u64 = 1_000_000;

pub struct Queue {
    pub object: ObjectId,
    pub settings: QueueSettings,
    pub next: u64,
    pub last_lease: u64,
    pub messages: BTreeMap<u64, Message>,
    pub delayed: BTreeMap<u64, Vec<Message>>,
    pub leases: BTreeMap<u64, Lease>,
    pub dedup: BTreeMap<DedupId, (u64, u64)>,
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
    pub published: u64,
    pub expires: Option<(u64, u64)>,
    pub receive_count: u32,
    pub policy: QueuePolicy,
    pub moved_from: Option<Name>,
    pub lease: Option<u64>,
}

pub struct Lease {
    pub session: SessionId,
    pub held: BTreeSet<u64>,
    pub deadline: Option<u64>,
    pub armed: u64,
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

    pub fn limit(&self, message: &Message) -> u32 {
        match message.policy.receive_count_max {
            0 => self.settings.receive_count_max,
            own => own,
        }
    }

    pub fn push(&mut self, message: Message) {
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

    pub fn queue_of(&mut self, object: ObjectId) -> Option<Name> {
        let found = self.queues.iter().find(|(_, queue)| queue.object == object);
        found.map(|(name, _)| name.clone())
    }

    pub fn wall_at(&self, time: u64) -> u64 {
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

    pub fn last_object_back(&mut self, object: ObjectId) {
        self.last_object = object.0 - 1;
    }

    pub fn arrive(
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
}
