//! The configuration: what can be set, from where, and what holds when nobody says anything.
//!
//! ```text
//!   defaults  ->  --config FILE  ->  FLOTILLA_SECTION_KEY  ->  flags      (the later one wins)
//!       \______________\____________________\____________________/
//!                                 |
//!                  one text per key, with its origin            (layers)
//!                                 |
//!                  read and checked by the key's field          (keys, field, units)
//!                                 |
//!                              Config  ->  checks between keys  (checks)
//! ```
//!
//! Every source speaks the same language, one text per key, so that a value is valid or not
//! wherever it comes from. [`keys`] is the only list of keys.

mod address;
mod checks;
mod field;
mod keys;
mod layers;
mod origin;
mod routes_file;
mod sections;
mod units;

#[cfg(test)]
mod docs_test;
#[cfg(test)]
mod security_test;
#[cfg(test)]
mod tests;

pub use checks::listeners;
pub use layers::{FlagValue, Layers};
pub use origin::Origin;
pub use sections::{Authentication, Authorization, Config, Log, LogFormat, TlsFiles};
pub use units::{format_duration_ms, format_size};

/// Every environment variable of the program begins with this.
pub const ENVIRONMENT_PREFIX: &str = "FLOTILLA_";

/// Names the configuration file when no flag does; not a key, since a file cannot name itself.
pub const ENVIRONMENT_FILE: &str = "FLOTILLA_CONFIG";
