//! Feature levels: from which level on there is what.
//!
//! | level | new |
//! |---|---|
//! | 1 | everything that the first build had |
//! | 2 | shards know their level (`RaiseFeatureLevel` reaches them) and clear what a removed node left (`ForgetNode`); nodes give up groups that moved away |
//! | 3 | messages that no consumer got come back uncounted (`Withdraw`), or after a pause (`Postpone`) |
//! | 4 | so does all that was leased under a session and reached nobody (`WithdrawSession`) |
//!
//! A level is raised first for the cluster, by group 0, when no node is left that could not follow,
//! then in each shard by an entry of the shard's own log: so all replicas begin with what is new at the
//! same entry. An entry carries the level that is needed to apply it, see [`crate::format`]; a build
//! that does not know that level stops the group there instead of coming to another state.

use crate::command::{Command, EntryHead, Settlement};
use crate::format::FEATURE_LEVEL_FIRST;
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Work;

/// The level of [`Command::ForgetNode`].
const FORGETTING: u16 = 2;
/// The level of [`Settlement::Withdraw`] and [`Settlement::Postpone`].
const WITHDRAWING: u16 = 3;
/// The level of [`Command::WithdrawSession`].
const WITHDRAWING_SESSIONS: u16 = 4;

impl Command {
    /// The level that a group must have before the command is proposed there.
    pub fn feature_level(&self) -> u16 {
        match self {
            Self::ForgetNode { .. } => FORGETTING,
            Self::Settle { how, .. } => how.feature_level(),
            Self::WithdrawSession { .. } => WITHDRAWING_SESSIONS,
            _ => FEATURE_LEVEL_FIRST,
        }
    }

    /// The level that a node must know to apply the command: one that does not know what a group is
    /// raised to must not go on with it.
    fn level_to_apply(&self) -> u16 {
        match self {
            Self::RaiseFeatureLevel { to } => (*to).max(FEATURE_LEVEL_FIRST),
            other => other.feature_level(),
        }
    }
}

impl Settlement {
    /// The level that a group must have before messages are settled so.
    pub fn feature_level(&self) -> u16 {
        match self {
            Self::Withdraw { .. } | Self::Postpone { .. } => WITHDRAWING,
            _ => FEATURE_LEVEL_FIRST,
        }
    }
}

impl EntryHead {
    /// The level that a node must know to apply the entry.
    pub fn feature_level(&self) -> u16 {
        let commands = self
            .proposals
            .iter()
            .flat_map(|proposal| &proposal.commands);
        commands
            .map(Command::level_to_apply)
            .fold(FEATURE_LEVEL_FIRST, u16::max)
    }
}

/// Refuses a command that the group is not ready for. It is a mistake of the proposer, which every
/// replica that knows the command finds alike.
pub(crate) fn check(work: &Work<'_>, command: &Command) -> Result<(), Refusal> {
    let (present, needed) = (work.meta.feature_level, command.feature_level());
    if needed <= present {
        return Ok(());
    }
    Err(Refusal::Invalid {
        what: format!("the command is of feature level {needed}, the group of level {present}"),
    })
}

/// Raises a shard to the level of the cluster.
pub(crate) fn raise(work: &mut Work<'_>, to: u16) -> Outcome {
    let present = work.meta.feature_level;
    if to < present {
        return Outcome::Refused(Refusal::Invalid {
            what: cannot_go_down(present, to),
        });
    }
    work.meta.feature_level = to;
    Outcome::Done
}

/// Why a level is not lowered.
pub(crate) fn cannot_go_down(present: u16, to: u16) -> String {
    format!("the feature level is {present}, it cannot go down to {to}")
}
