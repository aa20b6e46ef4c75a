//! Leases and settlements of the naive model.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;

use super::queue::{Lease, Message};
use super::{Naive, OutboxEntry, Timer, bucket_of, invalid, not_found};

impl Naive {
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
        let due = match how {
            Settlement::Withdraw { pause_ms } | Settlement::Postpone { pause_ms } => now + pause_ms,
            _ => now,
        };
        let wall_due = self.wall_at(due);
        let queue = self.queues.get_mut(name).unwrap();
        let mut to_tail = Vec::new();
        let mut waiting = Vec::new();
        let mut departing = Vec::new();
        for Sequence(sequence) in chosen {
            let mut message = queue.messages.remove(sequence).unwrap();
            let is_withdrawn = matches!(how, Settlement::Withdraw { .. });
            message.receive_count -= u32::from(is_withdrawn);
            let limit = queue.limit(&message);
            let is_last = limit != 0 && message.receive_count >= limit;
            match how {
                Settlement::Ack => queue.totals.acked += 1,
                Settlement::Move { to } => departing.push((message, Some(to.clone()), false)),
                _ if message.is_expired(now) => queue.totals.expired += 1,
                _ if is_last && !is_withdrawn => {
                    let own = message.policy.dead_letter.clone();
                    let to = own.or(queue.settings.dead_letter.clone());
                    queue.totals.dead_lettered += 1;
                    departing.push((message, to, true));
                }
                _ if due > now => waiting.push(Message {
                    published: wall_due,
                    ..message
                }),
                Settlement::Return | Settlement::Postpone { .. } => to_tail.push(Message {
                    published: wall,
                    ..message
                }),
                Settlement::Release | Settlement::Withdraw { .. } => {
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
        let (object, bucket) = (queue.object, bucket_of(due));
        let is_first = !waiting.is_empty() && !queue.delayed.contains_key(&bucket);
        if !waiting.is_empty() {
            queue.delayed.entry(bucket).or_default().extend(waiting);
        }
        let state = queue.leases.get_mut(&lease).unwrap();
        chosen.iter().for_each(|sequence| {
            state.held.remove(&sequence.0);
        });
        if state.held.is_empty() {
            let session = state.session;
            queue.leases.remove(&lease);
            self.session_loses(session);
        }
        if is_first {
            self.arm(Timer::Delayed(object, bucket), bucket);
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
