//! Where a value came from, so that an error can send the user to the right place.

use std::fmt;
use std::path::PathBuf;

/// The source of one configuration value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file given with `--config`.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A command line flag, as it is typed.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("by default"),
            Self::File(path) => write!(f, "in file {}", path.display()),
            Self::Environment(name) => write!(f, "in environment variable {name}"),
            Self::Flag(flag) => write!(f, "by flag {flag}"),
        }
    }
}
