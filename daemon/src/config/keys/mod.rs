//! The table of all keys: name, default, what is allowed, and where the value goes.
//!
//! A key's environment variable follows from its name. `docs/configuration.md` describes the same
//! table in the same order; a test holds the two together.

mod broker;
mod cluster;
mod kubemq;
mod node;
mod security;
mod storage;

use std::net::SocketAddr;
use std::time::Duration;

use super::ENVIRONMENT_PREFIX;
use super::field::{Field, Unit};
use super::sections::Config;

/// One key.
pub struct Key {
    /// `section.key`
    pub name: &'static str,
    /// As a user would write it.
    pub default: &'static str,
    /// How it is read.
    pub field: Field,
    /// Whether nobody is to see what it is set to.
    pub is_secret: bool,
}

impl Key {
    /// The part before the dot.
    pub fn section(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(section, _)| section)
    }

    /// The environment variable that sets it.
    pub fn environment(&self) -> String {
        let name = self.name.replace('.', "_").to_ascii_uppercase();
        format!("{ENVIRONMENT_PREFIX}{name}")
    }

    /// What errors show of a value: they end up in logs.
    pub fn shown(&self, text: &str) -> String {
        if self.is_secret && !text.is_empty() {
            return "…".to_owned();
        }
        text.to_owned()
    }
}

/// All keys, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Key> + Clone {
    [
        node::KEYS,
        security::KEYS,
        cluster::KEYS,
        storage::KEYS,
        broker::KEYS,
        kubemq::KEYS,
    ]
    .into_iter()
    .flatten()
}

/// The key of this name.
pub fn named(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Longest age that any key takes: far beyond use, and far from the end of the number space.
const AGE_MS_MAX: u64 = 36_500 * DAY_MS;

const UNLIMITED: &str = "unlimited";
const AUTO: &str = "auto";
const OFF: &str = "off";

const fn key(name: &'static str, default: &'static str, field: Field) -> Key {
    Key {
        name,
        default,
        field,
        is_secret: false,
    }
}

/// The same, but that nobody is to see what it is set to.
const fn secret(key: Key) -> Key {
    Key {
        is_secret: true,
        ..key
    }
}

const fn text(
    name: &'static str,
    default: &'static str,
    allowed: &'static str,
    set: fn(&mut Config, &str) -> bool,
) -> Key {
    key(name, default, Field::Text { allowed, set })
}

const fn flag(name: &'static str, default: &'static str, set: fn(&mut Config, bool)) -> Key {
    key(name, default, Field::Flag { set })
}

const fn amount(
    name: &'static str,
    default: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    set: fn(&mut Config, u64),
) -> Key {
    let field = Field::Amount {
        unit,
        min,
        max,
        set,
    };
    key(name, default, field)
}

/// An amount of at least 1 that can be switched off.
const fn limit(
    name: &'static str,
    default: &'static str,
    unit: Unit,
    max: u64,
    set: fn(&mut Config, Option<u64>),
) -> Key {
    let field = Field::AmountOr {
        word: UNLIMITED,
        unit,
        min: 1,
        max,
        set,
    };
    key(name, default, field)
}

/// An amount that the program chooses where nobody does.
const fn auto(
    name: &'static str,
    unit: Unit,
    min: u64,
    max: u64,
    set: fn(&mut Config, Option<u64>),
) -> Key {
    let field = Field::AmountOr {
        word: AUTO,
        unit,
        min,
        max,
        set,
    };
    key(name, AUTO, field)
}

/// A duration that can be switched off.
const fn period_or_off(
    name: &'static str,
    default: &'static str,
    min_ms: u64,
    max_ms: u64,
    set: fn(&mut Config, Option<u64>),
) -> Key {
    let field = Field::AmountOr {
        word: OFF,
        unit: Unit::Ms,
        min: min_ms,
        max: max_ms,
        set,
    };
    key(name, default, field)
}

const fn period(
    name: &'static str,
    default: &'static str,
    min_ms: u64,
    max_ms: u64,
    set: fn(&mut Config, Duration),
) -> Key {
    let field = Field::Period {
        min_ms,
        max_ms,
        set,
    };
    key(name, default, field)
}

const fn listener(
    name: &'static str,
    default: &'static str,
    set: fn(&mut Config, Option<SocketAddr>),
) -> Key {
    key(name, default, Field::Listener { set })
}

const fn not_served(name: &'static str, nothing: &'static str) -> Key {
    key(name, nothing, Field::NotServed { nothing })
}
