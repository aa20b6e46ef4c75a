//! Why bytes or text from outside are refused.

/// The error of everything in this crate that reads what others wrote.
///
/// Names have their own, [`crate::name::NameError`], because clients see it; commands are refused
/// with a [`crate::outcome::Refusal`], because that is replicated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Written by a newer build, or not ours at all.
    #[error("{what} has format version {found}, this build knows up to {newest}")]
    Version {
        /// What was read.
        what: &'static str,
        /// The version it claims.
        found: u8,
        /// The newest one that this build reads.
        newest: u8,
    },
    /// For builds that know more than this one.
    #[error("{what} is of feature level {needed}, this node knows levels up to {known}")]
    FeatureLevel {
        /// What was read.
        what: &'static str,
        /// The level that is needed to understand it.
        needed: u16,
        /// The highest that this node knows.
        known: u16,
    },
    /// The bytes are not what they should be.
    #[error("{what} is malformed: {detail}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// Where it went wrong.
        detail: String,
    },
    /// More than is ever written.
    #[error("{what} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// A pattern that could never match, or whose meaning is unclear.
    #[error("pattern {pattern:?} is not valid: {reason}")]
    Pattern {
        /// What was given, shortened.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl ModelError {
    /// Malformed bytes, with the decoder's own words.
    pub(crate) fn malformed(what: &'static str, detail: impl ToString) -> Self {
        Self::Malformed {
            what,
            detail: detail.to_string(),
        }
    }
}
