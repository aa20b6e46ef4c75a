//! Topics and cursors of the naive model.

use std::collections::BTreeMap;

use flotilla_model::ids::*;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::settings::TopicSettings;

use super::{Naive, bucket_of, find_duplicates, invalid, not_found};
use crate::naive::BUCKET_MS;

pub struct Topic {
    pub object: ObjectId,
    pub settings: TopicSettings,
    pub first: u64,
    pub next: u64,
    pub appends: Vec<Append>,
    pub cursors: BTreeMap<String, Cursor>,
    dedup: BTreeMap<DedupId, (u64, u64)>,
}

/// Neighbouring messages that are dropped together, except by count.
pub struct Append {
    pub slots: Vec<MessageRef>,
    pub first: u64,
    pub wall: u64,
    at: u64,
}

#[derive(Clone)]
pub struct Cursor {
    pub low_water: u64,
    pub settled: Vec<(Offset, Offset)>,
    pub moved_at: u64,
}

impl Append {
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.bytes)).sum()
    }
}

impl Topic {
    pub fn bytes(&self) -> u64 {
        self.appends.iter().map(Append::bytes).sum()
    }

    pub fn slots(&self) -> impl Iterator<Item = MessageRef> {
        self.appends
            .iter()
            .flat_map(|append| append.slots.iter().copied())
    }

    /// Where each retained message is, with its offset and wall time.
    pub fn messages(&self) -> impl Iterator<Item = (u64, MessageRef, u64)> {
        self.appends
            .iter()
            .flat_map(|append| {
                let offsets = append.first..;
                offsets
                    .zip(&append.slots)
                    .map(|(offset, slot)| (offset, *slot, append.wall))
            })
            .filter(|(offset, _, _)| *offset >= self.first)
    }

    pub fn enforce(&mut self, now: u64) {
        if let Some(most) = self.settings.retention_messages {
            self.first = self.first.max(self.next.saturating_sub(most));
        }
        while let Some(oldest) = self.appends.first() {
            let keep_ms = self.settings.retention_ms;
            let is_old = keep_ms.is_some_and(|ms| bucket_of(oldest.at + ms) * BUCKET_MS <= now);
            let is_much = self
                .settings
                .retention_bytes
                .is_some_and(|most| self.bytes() > most);
            if !is_old && !is_much && oldest.end() > self.first {
                break;
            }
            self.first = self.first.max(oldest.end());
            self.appends.remove(0);
        }
    }
}

impl Naive {
    fn open_topic(&mut self, name: &Name) -> &mut Topic {
        if !self.topics.contains_key(name) {
            let topic = Topic {
                object: self.new_object(),
                settings: self.defaults.topic.clone(),
                first: 1,
                next: 1,
                appends: Vec::new(),
                cursors: BTreeMap::new(),
                dedup: BTreeMap::new(),
            };
            self.topics.insert(name.clone(), topic);
        }
        self.topics.get_mut(name).unwrap()
    }

    pub fn append(
        &mut self,
        name: &Name,
        count: u32,
        ids: &[(u32, DedupId)],
        slot: u32,
    ) -> Outcome {
        let slots: Vec<MessageRef> = (slot..slot + count).map(|slot| self.slot(slot)).collect();
        let (now, wall) = (self.time, self.wall);
        let topic = self.open_topic(name);
        let window_ms = topic.settings.dedup_window_ms;
        let duplicates = find_duplicates(&topic.dedup, window_ms, now, ids);
        let first = topic.next;
        let mut offsets = Vec::new();
        for (place, at) in (0..).zip(slots) {
            offsets.push(topic.next);
            match duplicates.get(&place) {
                Some(Ok(offset)) => offsets[place as usize] = *offset,
                Some(Err(earlier)) => offsets[place as usize] = offsets[*earlier as usize],
                None => {
                    let joins = topic
                        .appends
                        .last()
                        .and_then(|last| last.slots.last())
                        .is_some_and(|last| last.index == at.index && last.slot + 1 == at.slot);
                    if !joins {
                        let first = topic.next;
                        topic.appends.push(Append {
                            slots: Vec::new(),
                            first,
                            wall,
                            at: now,
                        });
                    }
                    topic.appends.last_mut().unwrap().slots.push(at);
                    topic.next += 1;
                }
            }
        }
        for (place, id) in ids {
            if !duplicates.contains_key(place) {
                topic.dedup.insert(*id, (offsets[*place as usize], now));
            }
        }
        topic.enforce(now);
        Outcome::Appended {
            first: Offset(first),
            at: WallTime(wall),
            duplicates: duplicates
                .keys()
                .map(|place| (*place, Offset(offsets[*place as usize])))
                .collect(),
        }
    }

    pub fn configure_topic(&mut self, name: &Name, settings: TopicSettings) -> Outcome {
        let now = self.time;
        let topic = self.open_topic(name);
        topic.settings = settings;
        topic.enforce(now);
        Outcome::Done
    }

    pub fn open_cursor(&mut self, name: &Name, cursor: &str, start: Offset) -> Outcome {
        let now = self.time;
        let topic = self.open_topic(name);
        let existed = topic.cursors.contains_key(cursor);
        let low_water = start.0.max(1);
        let new = Cursor {
            low_water,
            settled: Vec::new(),
            moved_at: now,
        };
        let cursor = topic.cursors.entry(cursor.to_owned()).or_insert(new);
        cursor.moved_at = now;
        Outcome::CursorOpened {
            low_water: Offset(cursor.low_water),
            settled: cursor.settled.clone(),
            existed,
        }
    }

    fn with_cursor(
        &mut self,
        name: &Name,
        cursor: &str,
        change: impl FnOnce(&mut Cursor, u64) -> Outcome,
    ) -> Outcome {
        let now = self.time;
        let Some(topic) = self.topics.get_mut(name) else {
            return not_found(name);
        };
        let Some(found) = topic.cursors.get_mut(cursor) else {
            let what = format!("cursor {cursor:?}");
            return Outcome::Refused(Refusal::NotFound { what });
        };
        let outcome = change(found, topic.next);
        if outcome == Outcome::Done {
            found.moved_at = now;
        }
        outcome
    }

    pub fn advance_cursor(
        &mut self,
        name: &Name,
        cursor: &str,
        low_water: Offset,
        settled: &[(Offset, Offset)],
    ) -> Outcome {
        self.with_cursor(name, cursor, |cursor, next| {
            let ordered = settled.windows(2).all(|pair| pair[0].1 < pair[1].0)
                && settled.iter().all(|(first, last)| first <= last);
            if !ordered {
                return invalid("at most 64 ascending settled ranges can be given");
            }
            if low_water.0 > next || settled.iter().any(|(_, last)| last.0 >= next) {
                return invalid(&format!(
                    "nothing at or after offset {next} can be done yet"
                ));
            }
            let is_done = |offset: u64| {
                offset < low_water.0
                    || settled
                        .iter()
                        .any(|(first, last)| (first.0..=last.0).contains(&offset))
            };
            cursor.low_water = cursor.low_water.max(low_water.0);
            while is_done(cursor.low_water) {
                cursor.low_water += 1;
            }
            cursor.settled = settled.to_vec();
            cursor
                .settled
                .retain(|(first, _)| first.0 > cursor.low_water);
            Outcome::Done
        })
    }

    pub fn reset_cursor(&mut self, name: &Name, cursor: &str, to: Offset) -> Outcome {
        self.with_cursor(name, cursor, |cursor, next| {
            cursor.low_water = to.0.clamp(1, next);
            cursor.settled.clear();
            Outcome::Done
        })
    }

    pub fn delete_cursor(&mut self, name: &Name, cursor: &str) -> Outcome {
        let outcome = self.with_cursor(name, cursor, |_, _| Outcome::Done);
        if outcome == Outcome::Done {
            self.topics.get_mut(name).unwrap().cursors.remove(cursor);
        }
        outcome
    }
}
