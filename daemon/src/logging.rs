//! Log lines on standard error, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Libraries that report what only their own authors need, and what is left of them unless the filter
/// names them. A Raft group warns of every message that a node which is down does not get, several a
/// second in each shard, and shows whole entries, other people's messages in them, when it is stopped.
const QUIET: [(&str, LevelFilter); 3] = [
    ("actix_server", LevelFilter::WARN),
    ("openraft", LevelFilter::ERROR),
    ("openraft::raft::raft_inner", LevelFilter::OFF),
];

/// Reads a level, or a filter such as `warn,flotilla_cluster=debug`.
///
/// Stricter than the library's own reader, which takes a misspelt level for the name of a part and
/// then logs nothing.
pub fn parse_level(text: &str) -> Option<Targets> {
    let level = |word: &str| -> Option<LevelFilter> {
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        word.parse().ok().filter(|_| is_word)
    };
    let mut general = LevelFilter::ERROR;
    let mut named = Vec::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("", _)) => return None,
            Some((target, word)) => named.push((target, level(word)?)),
            None => general = level(part)?,
        }
    }
    let quiet = QUIET.map(|(target, most)| (target, general.min(most)));
    // A part of a library is as loud as the library, where the filter names that one.
    let quiet = quiet.into_iter().filter(|(target, _)| {
        let is_within = |named: &str| {
            target
                .strip_prefix(named)
                .is_some_and(|rest| rest.starts_with("::"))
        };
        !named.iter().any(|(named, _)| is_within(named))
    });
    let targets = Targets::new().with_default(general).with_targets(quiet);
    // Added last, since the later one of two for the same part stands.
    Some(targets.with_targets(named))
}

/// Sends the log lines of the whole process to standard error.
pub fn start(log: &Log) {
    // The level was checked with the configuration.
    let filter =
        parse_level(&log.level).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_gives_each_part_its_level() {
        let filter = parse_level("warn,flotilla_cluster=debug,sled=off").unwrap();
        assert!(filter.would_enable("flotilla_broker", &Level::WARN));
        assert!(!filter.would_enable("flotilla_broker", &Level::INFO));
        assert!(filter.would_enable("flotilla_cluster::raft", &Level::DEBUG));
        assert!(!filter.would_enable("sled", &Level::ERROR));
    }

    #[test]
    fn chatty_libraries_are_quiet_unless_they_are_named() {
        let enables = |text: &str, level| {
            let filter = parse_level(text).unwrap();
            filter.would_enable("openraft::core", &level)
        };
        assert!(!enables("info", Level::WARN) && enables("info", Level::ERROR));
        assert!(!enables("off", Level::ERROR));
        assert!(enables("warn,openraft=debug", Level::DEBUG));
        let shows_entries = |text: &str| {
            let filter = parse_level(text).unwrap();
            filter.would_enable("openraft::raft::raft_inner", &Level::ERROR)
        };
        assert!(!shows_entries("debug"));
        assert!(shows_entries("info,openraft=error"));
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for bad in [
            "",
            "loud",
            "info,",
            "INFO",
            "3",
            "=info",
            "a=loud",
            "info debug",
        ] {
            assert!(parse_level(bad).is_none(), "{bad:?}");
        }
    }
}
