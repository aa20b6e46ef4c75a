//! From a command to the part of the model that does it.

use std::sync::Arc;

use crate::command::Command;
use crate::ids::ShardId;
use crate::name::Kind;
use crate::objects::{self, check_name, not_found};
use crate::outcome::{Change, Outcome, Refusal};
use crate::overlay::Work;
use crate::queue::Wanted;
use crate::record::Grave;
use crate::records::NeedsKeys;
use crate::settings::ShardDefaults;
use crate::{cursor, level, metadata, outbox, queue, session, topic};

/// Runs a command, or the next step of it: no outcome means that it has to be called again, with
/// the progress that it left.
pub(crate) fn run_command(
    work: &mut Work<'_>,
    command: &Command,
    first_slot: u32,
    progress: &mut u64,
) -> Result<Option<Outcome>, NeedsKeys> {
    if let Err(refusal) = level::check(work, command) {
        return Ok(Some(Outcome::Refused(refusal)));
    }
    let outcome = match command {
        Command::Append {
            topic,
            count,
            dedup,
        } => topic::append(work, topic, *count, dedup, first_slot)?,
        Command::Enqueue { queue, runs, dedup } => {
            queue::enqueue(work, queue, runs, dedup, first_slot)?
        }
        Command::Lease {
            queue,
            session,
            messages_max,
            bytes_max,
            visibility_ms,
        } => {
            let wanted = Wanted {
                session: *session,
                messages_max: *messages_max,
                bytes_max: *bytes_max,
                visibility_ms: *visibility_ms,
            };
            queue::lease(work, queue, &wanted)?
        }
        Command::Settle {
            queue,
            session,
            lease,
            which,
            how,
        } => queue::settle(work, queue, *session, *lease, which, how)?,
        Command::ExtendLease {
            queue,
            session,
            lease,
            visibility_ms,
        } => queue::extend(work, queue, *session, *lease, *visibility_ms)?,
        Command::Purge { queue } => return queue::purge_step(work, queue, progress),
        Command::EndSession { session } => {
            let is_done = session::end(work, Grave::Session(*session), progress)?;
            return Ok(is_done.then_some(Outcome::Done));
        }
        Command::WithdrawSession { session } => {
            let is_done = session::end(work, Grave::UnheardSession(*session), progress)?;
            return Ok(is_done.then_some(Outcome::Done));
        }
        Command::EndOldSessions { node, incarnation } => {
            let is_done = session::end_old(work, *node, *incarnation, progress)?;
            return Ok(is_done.then_some(Outcome::Done));
        }
        Command::OpenCursor {
            topic,
            cursor,
            start,
        } => cursor::open(work, topic, cursor, *start)?,
        Command::AdvanceCursor {
            topic,
            cursor,
            low_water,
            settled,
        } => cursor::advance(work, topic, cursor, *low_water, settled)?,
        Command::ResetCursor { topic, cursor, to } => cursor::reset(work, topic, cursor, *to)?,
        Command::DeleteCursor { topic, cursor } => cursor::delete(work, topic, cursor)?,
        Command::ConfigureTopic { topic, settings } => topic::configure(work, topic, settings)?,
        Command::ConfigureQueue { queue, settings } => queue::configure(work, queue, settings)?,
        Command::Delete { name } => delete(work, name)?,
        Command::SetDefaults { defaults } => set_defaults(work, defaults),
        Command::ConfirmOutbox { target, upto } => {
            return outbox::confirm_step(work, *target, *upto);
        }
        Command::RaiseFeatureLevel { to } if work.shard != ShardId::METADATA => {
            level::raise(work, *to)
        }
        Command::ForgetNode { node } => {
            let is_done = session::forget_node(work, *node, progress)?;
            return Ok(is_done.then_some(Outcome::Done));
        }
        Command::RegisterNode { .. }
        | Command::SetNodeState { .. }
        | Command::SetPlacement { .. }
        | Command::SetReplicas { .. }
        | Command::RaiseFeatureLevel { .. } => metadata::run(work, command)?,
    };
    Ok(Some(outcome))
}

fn delete(work: &mut Work<'_>, name: &crate::name::Name) -> Result<Outcome, NeedsKeys> {
    let checked = match name.kind() {
        kind @ (Kind::Signal | Kind::Request | Kind::Command) => Err(Refusal::Invalid {
            what: format!("a {kind} stores nothing that could be deleted"),
        }),
        kind => check_name(name, kind),
    };
    if let Err(refusal) = checked {
        return Ok(Outcome::Refused(refusal));
    }
    Ok(match objects::delete(work, name)? {
        true => Outcome::Done,
        false => Outcome::Refused(not_found(name)),
    })
}

fn set_defaults(work: &mut Work<'_>, defaults: &ShardDefaults) -> Outcome {
    let dead_letter = defaults.queue.dead_letter.as_ref();
    let checked = match defaults.shard_count {
        0 => Err(Refusal::Invalid {
            what: "there must be at least one shard".to_owned(),
        }),
        _ => dead_letter.map_or(Ok(()), |to| check_name(to, Kind::Queue)),
    };
    match checked {
        Ok(()) => {
            work.meta.defaults = Arc::new(defaults.clone());
            if work.shard == ShardId::METADATA {
                work.note(Change::Metadata);
            }
            Outcome::Done
        }
        Err(refusal) => Outcome::Refused(refusal),
    }
}
