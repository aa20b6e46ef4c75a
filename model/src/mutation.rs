//! Promises that a build for development can be made to break.
//!
//! A test that watches over promises means something only if it fails when one is broken. A build with
//! debug assertions, as tests run it, can be told, once and before it does anything, to leave one check
//! out. In a release nothing can be chosen, and the compiler removes the questions.

use std::fmt;
use std::str::FromStr;
#[cfg(debug_assertions)]
use std::sync::OnceLock;

/// A check that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Whether a majority has stored an entry: nodes that cannot be reached count as if they had.
    Quorum,
    /// Whether a proposal was applied before.
    Dedup,
    /// Whether another consumer holds a message.
    Lease,
}

const ALL: [Mutation; 3] = [Mutation::Quorum, Mutation::Dedup, Mutation::Lease];

/// A name that no check has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of quorum, dedup and lease")]
pub struct UnknownMutation {
    given: String,
}

#[cfg(debug_assertions)]
static CHOSEN: OnceLock<Mutation> = OnceLock::new();

/// Leaves a check out from now on. The first choice of a process stays.
#[cfg(debug_assertions)]
pub fn choose(mutation: Mutation) {
    // A second choice would make parts of one process differ.
    CHOSEN.get_or_init(|| mutation);
}

/// Whether this check is left out.
#[cfg(debug_assertions)]
pub fn is_chosen(mutation: Mutation) -> bool {
    CHOSEN.get() == Some(&mutation)
}

/// Never: this build keeps its promises.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is_chosen(_mutation: Mutation) -> bool {
    false
}

impl fmt::Display for Mutation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Quorum => "quorum",
            Self::Dedup => "dedup",
            Self::Lease => "lease",
        })
    }
}

impl FromStr for Mutation {
    type Err = UnknownMutation;

    fn from_str(name: &str) -> Result<Self, UnknownMutation> {
        let found = ALL.into_iter().find(|one| one.to_string() == name);
        found.ok_or_else(|| UnknownMutation {
            given: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_found_by_its_name_and_no_other_is() {
        for one in ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert!("quorums".parse::<Mutation>().is_err());
    }
}
