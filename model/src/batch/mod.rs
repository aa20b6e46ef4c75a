//! Merging what many callers ask for into one proposal.
//!
//! A thousand single publishes to a topic become one `Append`: one command to apply, one index
//! record. A message joins the last command for its name, wherever that is in the batch, as long as
//! nothing stands in between that could notice: commands that touch the name, or names at large.
//! So each caller sees its own commands happen in the order in which it gave them.

mod cost;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;

pub use self::cost::cost;
use crate::command::{Command, ENTRY_COMMANDS_MAX, Settlement};
use crate::name::{Kind, Name};

/// Most bytes of a batch, unless it is a single command.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Most slots of a batch, unless it is a single command.
pub const BATCH_SLOTS_MAX: usize = 4_096;

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
            | Command::WithdrawSession { .. }
            | Command::EndOldSessions { .. }
            | Command::ForgetNode { .. } => {
                self.open.retain(|name, _| name.kind() != Kind::Queue);
            }
            Command::SetDefaults { .. }
            | Command::ConfirmOutbox { .. }
            | Command::RegisterNode { .. }
            | Command::SetNodeState { .. }
            | Command::SetPlacement { .. }
            | Command::SetReplicas { .. }
            | Command::RaiseFeatureLevel { .. } => self.open.clear(),
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
