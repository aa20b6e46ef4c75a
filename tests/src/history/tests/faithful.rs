//! Random histories of a server that keeps every promise: none may be accused.

use super::*;
use crate::history::{Fault, QueueHistory, Read, Settle, Settlement, TopicHistory};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

const ROUNDS: u64 = 300;
const ALLOWED: u32 = 3;

/// A queue, its consumers, and what they write down.
struct Server {
    random: StdRng,
    now_ms: u64,
    history: QueueHistory,
    dead: QueueHistory,
    available: BTreeMap<u64, (Name, u32)>,
    next_sequence: u64,
    next_hold: u64,
    sent: u64,
    /// By consumer.
    held: BTreeMap<u32, Held>,
    /// Whether answers get lost on their way.
    loses_answers: bool,
}

struct Held {
    hold: HoldId,
    messages: Vec<(u64, Name, u32)>,
}

impl Server {
    fn new(seed: u64) -> Self {
        let history = QueueHistory {
            was_drained: true,
            receive_count_max: Some(ALLOWED),
            dead_letter: Some("dead".to_owned()),
            ..QueueHistory::default()
        };
        let dead = QueueHistory {
            was_drained: true,
            ..QueueHistory::default()
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            now_ms: 0,
            history,
            dead,
            available: BTreeMap::new(),
            next_sequence: 1,
            next_hold: 1,
            sent: 0,
            held: BTreeMap::new(),
            loses_answers: seed % 2 == 1,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn store(&mut self, name: Name, count: u32) {
        self.available.insert(self.next_sequence, (name, count));
        self.next_sequence += 1;
    }

    fn send(&mut self) {
        let batch = self.random.random_range(1..5);
        let acknowledged = self.chance(90);
        let is_stored = acknowledged || self.chance(50);
        let producer = self.random.random_range(1..4);
        for _ in 0..batch {
            self.sent += 1;
            let mut sent = send(producer, self.sent, self.now_ms);
            sent.acknowledged = acknowledged;
            if is_stored {
                self.store(sent.name, 0);
            }
            self.history.sends.push(sent);
        }
        self.now_ms += 3;
    }

    fn lease(&mut self, consumer: u32) {
        let hold = HoldId(self.next_hold);
        self.next_hold += 1;
        let mut messages = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            if let Some((sequence, (name, count))) = self.available.pop_first() {
                messages.push((sequence, name, count + 1));
            }
        }
        if self.loses_answers && self.chance(10) {
            return self.release(messages);
        }
        for (sequence, name, count) in &messages {
            let mut receipt = receipt(hold.0, self.now_ms, *sequence, *name, *count);
            receipt.consumer = consumer;
            self.history.receipts.push(receipt);
        }
        if !messages.is_empty() {
            self.held.insert(consumer, Held { hold, messages });
        }
    }

    fn settle(&mut self, consumer: u32) {
        let Some(Held { hold, messages }) = self.held.remove(&consumer) else {
            return;
        };
        if self.chance(10) {
            // The server knows first, and others may have the messages before the consumer knows.
            let noticed_ms = self.now_ms + self.random.random_range(0..400);
            self.history.lost.insert(hold, ms(noticed_ms));
            return self.release(messages);
        }
        let settlement = match self.chance(40) {
            true => Settlement::Reject,
            false => Settlement::Acknowledge,
        };
        let is_confirmed = self.chance(90);
        self.history.settles.push(Settle {
            hold,
            settlement,
            invoked: ms(self.now_ms),
            confirmed: is_confirmed.then_some(ms(self.now_ms + 1)),
        });
        if !is_confirmed && self.chance(50) {
            return self.release(messages);
        }
        if settlement == Settlement::Reject {
            for (_, name, count) in messages {
                match count < ALLOWED {
                    true => self.store(name, count),
                    false => self.die(name),
                }
            }
        }
    }

    fn release(&mut self, messages: Vec<(u64, Name, u32)>) {
        for (sequence, name, count) in messages {
            match count < ALLOWED {
                true => {
                    self.available.insert(sequence, (name, count));
                }
                false => self.die(name),
            }
        }
    }

    fn die(&mut self, name: Name) {
        let sequence = self.dead.drained.len() as u64 + 1;
        // Received much later.
        let receipt = receipt(1_000_000 + sequence, 10_000_000, sequence, name, 1);
        self.dead.drained.push(receipt);
    }

    fn run(mut self) -> History {
        for _ in 0..ROUNDS {
            self.now_ms += self.random.random_range(1..20);
            let consumer = self.random.random_range(1..4);
            if self.chance(30) {
                self.send();
            } else if self.held.contains_key(&consumer) {
                self.settle(consumer);
            } else {
                self.lease(consumer);
            }
        }
        for consumer in 1..4 {
            self.settle(consumer);
        }
        self.now_ms += 1_000;
        while let Some((sequence, (name, count))) = self.available.pop_first() {
            let drained = receipt(2_000_000, self.now_ms, sequence, name, count + 1);
            self.history.drained.push(drained);
        }
        let mut history = History::default();
        if self.loses_answers {
            history.faults.push(Fault {
                what: "all the time".to_owned(),
                nodes: vec![1],
                from: ms(0),
                until: ms(self.now_ms),
            });
        }
        *history.queue("queue") = self.history;
        *history.queue("dead") = self.dead;
        history
    }
}

#[test]
fn a_queue_of_a_faithful_server_passes_whatever_happens() {
    for seed in 0..200 {
        let history = Server::new(seed).run();
        assert_eq!(violations(&history), [], "seed {seed}");
    }
}

/// Sends that overlap, each stored at some moment between its call and its answer, or, without an
/// acknowledgement, at any time later or never.
fn topic(seed: u64) -> TopicHistory {
    let mut random = StdRng::seed_from_u64(seed);
    let mut topic = TopicHistory::default();
    let mut stored: Vec<(u64, Name)> = Vec::new();
    for producer in 1..5 {
        let mut now = random.random_range(0..50);
        for number in 1..50 {
            let acknowledged = random.random_range(0..10) > 0;
            let took = random.random_range(2..100);
            if acknowledged {
                stored.push((now + random.random_range(1..took), name(producer, number)));
            } else if random.random_range(0..2) == 0 {
                stored.push((now + random.random_range(1..2_000), name(producer, number)));
            }
            topic.sends.push(Send {
                name: name(producer, number),
                invoked: ms(now),
                answered: ms(now + took),
                acknowledged,
            });
            now += took + random.random_range(0..5);
        }
    }
    stored.sort_by_key(|(at, _)| *at);
    for (reader, from, whole) in [(1, 1, true), (2, 1, true), (3, 1, false), (4, 20, false)] {
        let read = (1..).zip(&stored).skip(from - 1);
        topic.reads.extend(read.map(|(sequence, (at, name))| Read {
            reader: HoldId(reader),
            from: from as u64,
            node: 1,
            at: ms(at + 1),
            sequence,
            name: *name,
            intact: true,
            whole,
        }));
    }
    topic
}

#[test]
fn a_topic_of_a_faithful_server_passes_however_sends_overlap() {
    for seed in 0..200 {
        let mut history = History::default();
        *history.topic("topic") = topic(seed);
        assert_eq!(violations(&history), [], "seed {seed}");
    }
}
