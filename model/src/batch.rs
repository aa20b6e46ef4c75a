//! Merging what many callers ask for into one proposal.
//!
//! A thousand single publishes to a topic become one `Append`: one command to apply, one index
//! record. A message joins the last command for its name, wherever that is in the batch, as long as
//! nothing stands in between that could notice: commands that touch the name, or names at large.
//! So each caller sees its own commands happen in the order in which it gave them.

use std::collections::HashMap;

use bytes::Bytes;

use crate::command::{Command, ENTRY_COMMANDS_MAX, Settlement};
use crate::name::{Kind, Name};

/// Most bytes of a batch, unless it is a single command.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most slots of a batch, unless it is a single command.
pub const BATCH_SLOTS_MAX: usize = 4_096;

/// About how many bytes a command has beside its names and lists.
const COMMAND_BYTES: usize = 64;
/// About how many bytes a message costs beside its own.
const SLOT_BYTES: usize = 16;

/// Where a caller finds the answer to its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The command of the batch, and so the outcome.
    pub command: u32,
    /// The place of the caller's first message in that command.
    pub first_place: u32,
    /// How many messages the caller gave.
    pub count: u32,
}

/// A command that the batch did not take; both parts are given back.
#[derive(Debug)]
pub struct NotTaken {
    /// The command.
    pub command: Command,
    /// Its messages.
    pub payload: Vec<Bytes>,
    /// Why.
    pub reason: NotTakenReason,
}

/// Why a batch did not take a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTakenReason {
    /// It would exceed the batch's bounds: finish this batch and push again.
    #[error("the batch is full")]
    Full,
    /// The command takes another number of messages than came with it.
    #[error("the command is for {slots} messages and came with {payloads}")]
    PayloadMismatch {
        /// How many it takes.
        slots: u64,
        /// How many there are.
        payloads: usize,
    },
}

/// Collects commands and their messages.
#[derive(Debug)]
pub struct ProposalBuilder {
    bytes_max: usize,
    entries: Vec<(Command, Vec<Bytes>)>,
    /// The command that a message for a name may still join.
    open: HashMap<Name, usize>,
    slots: usize,
    bytes: usize,
}

impl Default for ProposalBuilder {
    fn default() -> Self {
        Self::with_bytes_max(BATCH_BYTES_MAX)
    }
}

impl ProposalBuilder {
    /// An empty batch with the usual bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that is full at another number of bytes.
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            entries: Vec::new(),
            open: HashMap::new(),
            slots: 0,
            bytes: 0,
        }
    }

    /// How many commands the batch has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes the entry will have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a command with the messages that it takes. A batch without commands takes any single
    /// one, however large.
    pub fn push(&mut self, command: Command, payload: Vec<Bytes>) -> Result<Ticket, Box<NotTaken>> {
        let not_taken = |command, payload, reason| {
            Err(Box::new(NotTaken {
                command,
                payload,
                reason,
            }))
        };
        let (slots, payloads) = (command.slot_count(), payload.len());
        if slots != payloads as u64 {
            let reason = NotTakenReason::PayloadMismatch { slots, payloads };
            return not_taken(command, payload, reason);
        }
        let bytes = cost(&command) + payload.iter().map(|p| p.len() + SLOT_BYTES).sum::<usize>();
        let is_over = self.bytes + bytes > self.bytes_max
            || self.slots + payloads > BATCH_SLOTS_MAX
            || self.entries.len() >= ENTRY_COMMANDS_MAX;
        if is_over && !self.entries.is_empty() {
            return not_taken(command, payload, NotTakenReason::Full);
        }
        self.bytes += bytes;
        self.slots += payloads;
        Ok(self.place(command, payload))
    }

    /// The batch, which is empty afterwards: its commands, and all messages in the order in which
    /// the commands take them.
    pub fn finish(&mut self) -> (Vec<Command>, Vec<Bytes>) {
        let mut slots = Vec::with_capacity(self.slots);
        let mut commands = Vec::with_capacity(self.entries.len());
        for (command, payload) in self.entries.drain(..) {
            commands.push(command);
            slots.extend(payload);
        }
        self.open.clear();
        self.slots = 0;
        self.bytes = 0;
        (commands, slots)
    }

    fn place(&mut self, command: Command, payload: Vec<Bytes>) -> Ticket {
        let count = payload.len() as u32;
        match mergeable_name(&command) {
            Some(name) => {
                if let Some(found) = self.open_command(name) {
                    let (into, slots) = &mut self.entries[found];
                    let first_place = slots.len() as u32;
                    merge(into, command, first_place);
                    slots.extend(payload);
                    return Ticket {
                        command: found as u32,
                        first_place,
                        count,
                    };
                }
                self.open.insert(name.clone(), self.entries.len());
            }
            None => self.close_names(&command),
        }
        self.entries.push((command, payload));
        Ticket {
            command: (self.entries.len() - 1) as u32,
            first_place: 0,
            count,
        }
    }

    fn open_command(&self, name: &Name) -> Option<usize> {
        // Bursts are for one name: the last command is the likely one, and cheaper to compare with
        // than a name is to hash.
        let last = self.entries.len().checked_sub(1)?;
        if mergeable_name(&self.entries[last].0) == Some(name) {
            return Some(last);
        }
        self.open.get(name).copied()
    }

    /// Keeps later messages behind a command that could notice them.
    fn close_names(&mut self, command: &Command) {
        match command {
            Command::Append { .. } | Command::Enqueue { .. } => {}
            Command::Settle {
                how: Settlement::Ack,
                ..
            }
            | Command::ExtendLease { .. } => {}
            Command::Lease { queue: name, .. }
            | Command::Purge { queue: name }
            | Command::OpenCursor { topic: name, .. }
            | Command::AdvanceCursor { topic: name, .. }
            | Command::ResetCursor { topic: name, .. }
            | Command::DeleteCursor { topic: name, .. }
            | Command::ConfigureTopic { topic: name, .. }
            | Command::ConfigureQueue { queue: name, .. }
            | Command::Delete { name } => {
                self.open.remove(name);
            }
            // What comes back may become available here, or be a dead letter anywhere.
            Command::Settle { .. }
            | Command::EndSession { .. }
            | Command::EndOldSessions { .. } => {
                self.open.retain(|name, _| name.kind() != Kind::Queue);
            }
            Command::SetDefaults { .. } | Command::ConfirmOutbox { .. } => self.open.clear(),
        }
    }
}

/// The name of a command that takes messages. One of the wrong kind is left alone, to be refused.
fn mergeable_name(command: &Command) -> Option<&Name> {
    match command {
        Command::Append { topic, .. } if topic.kind() == Kind::Topic => Some(topic),
        Command::Enqueue { queue, .. } if queue.kind() == Kind::Queue => Some(queue),
        _ => None,
    }
}

/// Adds the messages of `from` to a command for the same name that has `places` of them.
fn merge(into: &mut Command, from: Command, places: u32) {
    match (into, from) {
        (
            Command::Append { count, dedup, .. },
            Command::Append {
                count: more,
                dedup: ids,
                ..
            },
        ) => {
            *count += more;
            dedup.extend(ids.into_iter().map(|(place, id)| (places + place, id)));
        }
        (
            Command::Enqueue { runs, dedup, .. },
            Command::Enqueue {
                runs: more,
                dedup: ids,
                ..
            },
        ) => {
            for run in more {
                match runs.last_mut() {
                    Some(last) if last.policy == run.policy && last.moved == run.moved => {
                        last.count += run.count;
                    }
                    _ => runs.push(run),
                }
            }
            dedup.extend(ids.into_iter().map(|(place, id)| (places + place, id)));
        }
        // A topic's name is never a queue's: their kinds differ.
        (into, from) => unreachable!("{into:?} and {from:?} have different names"),
    }
}

/// About how many bytes a command takes in the entry's head.
fn cost(command: &Command) -> usize {
    let name = |name: &Name| name.namespace().len() + name.text().len();
    let lists = match command {
        Command::Append { topic, dedup, .. } => name(topic) + dedup.len() * 20,
        Command::Enqueue { queue, runs, dedup } => {
            let policies: usize = runs
                .iter()
                .map(|run| {
                    let target = run.policy.dead_letter.as_ref().map_or(0, name);
                    32 + target + run.moved.as_ref().map_or(0, |moved| name(&moved.from))
                })
                .sum();
            name(queue) + policies + dedup.len() * 20
        }
        Command::Settle {
            queue, which, how, ..
        } => {
            let sequences = match which {
                crate::command::Selection::All => 0,
                crate::command::Selection::Sequences(list) => list.len() * 9,
            };
            let target = match how {
                Settlement::Move { to } => name(to),
                Settlement::Ack | Settlement::Return | Settlement::Release => 0,
            };
            name(queue) + sequences + target
        }
        Command::Lease { queue, .. }
        | Command::ExtendLease { queue, .. }
        | Command::Purge { queue } => name(queue),
        Command::OpenCursor { topic, cursor, .. }
        | Command::ResetCursor { topic, cursor, .. }
        | Command::DeleteCursor { topic, cursor } => name(topic) + cursor.len(),
        Command::AdvanceCursor {
            topic,
            cursor,
            settled,
            ..
        } => name(topic) + cursor.len() + settled.len() * 18,
        Command::ConfigureTopic { topic, .. } => name(topic),
        Command::ConfigureQueue { queue, settings } => {
            name(queue) + settings.dead_letter.as_ref().map_or(0, name)
        }
        Command::Delete { name: deleted } => name(deleted),
        Command::SetDefaults { defaults } => {
            128 + defaults.queue.dead_letter.as_ref().map_or(0, name)
        }
        Command::EndSession { .. }
        | Command::EndOldSessions { .. }
        | Command::ConfirmOutbox { .. } => 0,
    };
    COMMAND_BYTES + lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{EnqueueRun, QueuePolicy};
    use crate::ids::{DedupId, NodeId, SessionId};

    fn append(topic: &str, payload: &[&'static str]) -> (Command, Vec<Bytes>) {
        let command = Command::Append {
            topic: Name::topic(topic).unwrap(),
            count: payload.len() as u32,
            dedup: vec![(0, DedupId::of(payload[0].as_bytes()))],
        };
        (command, bytes(payload))
    }

    fn enqueue(queue: &str, delay_ms: u64, payload: &[&'static str]) -> (Command, Vec<Bytes>) {
        let policy = QueuePolicy {
            delay_ms,
            ..QueuePolicy::default()
        };
        let run = EnqueueRun {
            count: payload.len() as u32,
            policy,
            moved: None,
        };
        let command = Command::Enqueue {
            queue: Name::queue(queue).unwrap(),
            runs: vec![run],
            dedup: Vec::new(),
        };
        (command, bytes(payload))
    }

    fn bytes(payload: &[&'static str]) -> Vec<Bytes> {
        payload
            .iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect()
    }

    fn push(builder: &mut ProposalBuilder, (command, payload): (Command, Vec<Bytes>)) -> Ticket {
        builder.push(command, payload).unwrap()
    }

    #[test]
    fn single_publishes_to_one_topic_become_one_command() {
        let mut builder = ProposalBuilder::new();
        for place in 0..1_024 {
            let ticket = push(&mut builder, append("t", &["x"]));
            assert_eq!(
                ticket,
                Ticket {
                    command: 0,
                    first_place: place,
                    count: 1
                }
            );
        }
        let (commands, slots) = builder.finish();
        assert_eq!((commands.len(), slots.len()), (1, 1_024));
        let Command::Append { count, dedup, .. } = &commands[0] else {
            panic!("{commands:?}");
        };
        assert_eq!(*count, 1_024);
        assert!(dedup.iter().map(|(place, _)| *place).eq(0..1_024));
    }

    #[test]
    fn messages_lie_in_the_order_in_which_commands_take_them() {
        let mut builder = ProposalBuilder::new();
        push(&mut builder, append("a", &["a0", "a1"]));
        push(&mut builder, enqueue("a", 0, &["q0"]));
        assert_eq!(push(&mut builder, append("a", &["a2"])).first_place, 2);
        push(&mut builder, enqueue("a", 9, &["q1"]));
        assert_eq!(
            push(&mut builder, enqueue("a", 9, &["q2", "q3"])),
            Ticket {
                command: 1,
                first_place: 2,
                count: 2
            }
        );
        let (commands, slots) = builder.finish();
        assert_eq!(slots, bytes(&["a0", "a1", "a2", "q0", "q1", "q2", "q3"]));
        let Command::Enqueue { runs, .. } = &commands[1] else {
            panic!("{commands:?}");
        };
        let counts: Vec<u32> = runs.iter().map(|run| run.count).collect();
        assert_eq!(counts, [1, 3]);
        assert!(builder.is_empty() && builder.bytes() == 0);
    }

    #[test]
    fn nothing_overtakes_a_command_that_could_notice() {
        let mut builder = ProposalBuilder::new();
        push(&mut builder, enqueue("q", 0, &["1"]));
        push(&mut builder, append("t", &["1"]));
        let purge = Command::Purge {
            queue: Name::queue("q").unwrap(),
        };
        push(&mut builder, (purge, Vec::new()));
        assert_eq!(push(&mut builder, enqueue("q", 0, &["2"])).command, 3);
        assert_eq!(push(&mut builder, append("t", &["2"])).command, 1);
        let session = SessionId {
            node: NodeId(1),
            incarnation: 1,
            number: 1,
        };
        push(&mut builder, (Command::EndSession { session }, Vec::new()));
        assert_eq!(push(&mut builder, enqueue("q", 0, &["3"])).command, 5);
        assert_eq!(push(&mut builder, append("t", &["3"])).command, 1);
    }

    #[test]
    fn a_full_batch_gives_the_command_back() {
        let mut builder = ProposalBuilder::with_bytes_max(1_000);
        let big = |length: usize| {
            let (command, _) = append("t", &["x"]);
            (command, vec![Bytes::from(vec![0; length])])
        };
        push(&mut builder, big(100_000));
        let (command, payload) = big(1);
        let back = builder.push(command.clone(), payload.clone()).unwrap_err();
        assert_eq!(back.reason, NotTakenReason::Full);
        assert_eq!((back.command, back.payload), (command, payload));
        builder.finish();
        push(&mut builder, big(1));
    }

    #[test]
    fn a_command_with_too_few_messages_is_not_taken() {
        let (command, _) = append("t", &["x"]);
        let back = ProposalBuilder::new()
            .push(command, Vec::new())
            .unwrap_err();
        let mismatch = NotTakenReason::PayloadMismatch {
            slots: 1,
            payloads: 0,
        };
        assert_eq!(back.reason, mismatch);
    }

    #[test]
    fn the_number_of_messages_is_bounded() {
        let mut builder = ProposalBuilder::new();
        let taken = (0..BATCH_SLOTS_MAX + 5)
            .map_while(|_| {
                let (command, payload) = enqueue("q", 0, &[""]);
                builder.push(command, payload).ok()
            })
            .count();
        assert_eq!(taken, BATCH_SLOTS_MAX);
    }
}
