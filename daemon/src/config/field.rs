//! One kind of value per variant: how its text is read, checked, and described to the user.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::sections::Config;
use super::units::{format_duration_ms, format_size, parse_duration_ms, parse_size};

/// What a key's value is and where in [`Config`] it goes.
pub enum Field {
    /// Text that the setter accepts or not.
    Text {
        /// What it accepts, in words.
        allowed: &'static str,
        /// Whether it was accepted.
        set: fn(&mut Config, &str) -> bool,
    },
    /// `true` or `false`.
    Flag { set: fn(&mut Config, bool) },
    /// An amount in a range, both ends included.
    Amount {
        unit: Unit,
        min: u64,
        max: u64,
        set: fn(&mut Config, u64),
    },
    /// A duration in a range, for settings that keep it as one.
    Period {
        min_ms: u64,
        max_ms: u64,
        set: fn(&mut Config, Duration),
    },
    /// An amount in a range, or a word instead of it.
    AmountOr {
        word: &'static str,
        unit: Unit,
        min: u64,
        max: u64,
        set: fn(&mut Config, Option<u64>),
    },
    /// An address to listen on, or nothing.
    Listener {
        set: fn(&mut Config, Option<SocketAddr>),
    },
    /// Texts by key, written as JSON; in a TOML file a table of them does as well.
    Texts {
        /// What is accepted, in words.
        allowed: &'static str,
        /// The names of key and text in the JSON objects.
        members: (&'static str, &'static str),
        /// Takes it, or says what is wrong.
        set: fn(&mut Config, &str) -> Result<(), String>,
    },
    /// Named for later builds but not served by this one: only the value that asks for nothing.
    NotServed { nothing: &'static str },
}

/// What an amount counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things; written without a unit.
    Count,
    /// Written as a size.
    Bytes,
    /// Milliseconds, written as a duration.
    Ms,
    /// Seconds, written as a duration; for protocols that know no shorter time.
    Seconds,
}

impl Unit {
    fn parse(self, text: &str) -> Option<u64> {
        match self {
            // `+5` would parse as a number, but nobody writes it on purpose.
            Self::Count => text.parse().ok().filter(|_| !text.starts_with('+')),
            Self::Bytes => parse_size(text),
            Self::Ms => parse_duration_ms(text),
            Self::Seconds => parse_duration_ms(text)
                .filter(|ms| ms.is_multiple_of(1_000))
                .map(|ms| ms / 1_000),
        }
    }

    fn format(self, amount: u64) -> String {
        match self {
            Self::Count => amount.to_string(),
            Self::Bytes => format_size(amount),
            Self::Ms => format_duration_ms(amount),
            Self::Seconds => format_duration_ms(amount.saturating_mul(1_000)),
        }
    }

    /// "a size from 4KiB to 1GiB", as errors and the documentation say it.
    fn range(self, min: u64, max: u64) -> String {
        let (what, units) = match self {
            Self::Count => ("a whole number", ""),
            Self::Bytes => ("a size", " with its unit (B, KiB, MiB, GiB, TiB)"),
            Self::Ms => ("a duration", " with its unit (ms, s, m, h, d)"),
            Self::Seconds => ("whole seconds", " with their unit (s, m, h, d)"),
        };
        let min = self.format(min);
        match max {
            u64::MAX => format!("{what} of at least {min}{units}"),
            _ => format!("{what} from {min} to {}{units}", self.format(max)),
        }
    }
}

impl Field {
    /// Reads `text` into the configuration; `Err` says what is allowed instead.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let done = match self {
            Self::Text { set, .. } => set(config, text).then_some(()),
            Self::Flag { set } => text.parse().ok().map(|flag| set(config, flag)),
            Self::Amount {
                unit,
                min,
                max,
                set,
            } => within(*unit, text, *min, *max).map(|amount| set(config, amount)),
            Self::Period {
                min_ms,
                max_ms,
                set,
            } => within(Unit::Ms, text, *min_ms, *max_ms)
                .map(|ms| set(config, Duration::from_millis(ms))),
            Self::AmountOr {
                word,
                unit,
                min,
                max,
                set,
            } => or_word(text, word, within(*unit, text, *min, *max))
                .map(|amount| set(config, amount)),
            Self::Listener { set } => {
                or_word(text, "", parse_address(text)).map(|address| set(config, address))
            }
            Self::Texts { allowed, set, .. } => {
                return set(config, text).map_err(|problem| format!("{allowed} ({problem})"));
            }
            Self::NotServed { nothing } => (text == *nothing).then_some(()),
        };
        done.ok_or_else(|| self.allowed())
    }

    /// What a user may write, as errors and the documentation say it.
    pub fn allowed(&self) -> String {
        match self {
            Self::Text { allowed, .. } | Self::Texts { allowed, .. } => (*allowed).to_owned(),
            Self::Flag { .. } => "true or false".to_owned(),
            Self::Amount { unit, min, max, .. } => unit.range(*min, *max),
            Self::Period { min_ms, max_ms, .. } => Unit::Ms.range(*min_ms, *max_ms),
            Self::AmountOr {
                word,
                unit,
                min,
                max,
                ..
            } => format!("{word}, or {}", unit.range(*min, *max)),
            Self::Listener { .. } => {
                "an IP address and port such as 127.0.0.1:50000, [::1]:50000 or localhost:50000 \
                 (port 0: any free one), or \"\" for off"
                    .to_owned()
            }
            Self::NotServed { nothing } => {
                format!("only {nothing:?}, because it is not served by this build")
            }
        }
    }
}

/// The value if there is one, `Some(None)` for the word, `None` for neither.
fn or_word<T>(text: &str, word: &str, value: Option<T>) -> Option<Option<T>> {
    match value {
        None if text == word => Some(None),
        value => value.map(Some),
    }
}

fn within(unit: Unit, text: &str, min: u64, max: u64) -> Option<u64> {
    unit.parse(text)
        .filter(|amount| (min..=max).contains(amount))
}

/// Reads `IP:port`; `localhost` is the only host name, since it needs no resolver.
fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}
