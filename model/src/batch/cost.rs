//! How large a command is in an entry's head, about.

use crate::command::{Command, Selection, Settlement};
use crate::name::Name;

/// About how many bytes a command has beside its names and lists.
const COMMAND_BYTES: usize = 64;
/// About how many bytes a run of an [`Command::Enqueue`] has beside its names.
const RUN_BYTES: usize = 64;

/// About how many bytes a command takes in the entry's head.
pub fn cost(command: &Command) -> usize {
    let name = |name: &Name| name.namespace().len() + name.text().len();
    let lists = match command {
        Command::Append { topic, dedup, .. } => name(topic) + dedup.len() * 20,
        Command::Enqueue { queue, runs, dedup } => {
            let policies: usize = runs
                .iter()
                .map(|run| {
                    let target = run.policy.dead_letter.as_ref().map_or(0, name);
                    RUN_BYTES + target + run.moved.as_ref().map_or(0, |moved| name(&moved.from))
                })
                .sum();
            name(queue) + policies + dedup.len() * 20
        }
        Command::Settle {
            queue, which, how, ..
        } => {
            let sequences = match which {
                Selection::All => 0,
                Selection::Sequences(list) => list.len() * 9,
            };
            let target = match how {
                Settlement::Move { to } => name(to),
                Settlement::Ack
                | Settlement::Return
                | Settlement::Release
                | Settlement::Withdraw { .. }
                | Settlement::Postpone { .. } => 0,
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
        Command::RegisterNode {
            name,
            address,
            zone,
            ..
        } => name.len() + address.len() + zone.len(),
        Command::SetPlacement { replicas, .. } => replicas.len() * 9,
        Command::SetNodeState { .. }
        | Command::SetReplicas { .. }
        | Command::RaiseFeatureLevel { .. }
        | Command::ForgetNode { .. }
        | Command::EndSession { .. }
        | Command::WithdrawSession { .. }
        | Command::EndOldSessions { .. }
        | Command::ConfirmOutbox { .. } => 0,
    };
    COMMAND_BYTES + lists
}
