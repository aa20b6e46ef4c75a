//! Log lines on standard error, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Libraries that report at `info` what only their own authors need, such as each leader's every
/// step. They write warnings only, unless the filter names them.
const QUIET: [&str; 2] = ["actix_server", "openraft"];

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
    let quiet = QUIET.map(|target| (target, general.min(LevelFilter::WARN)));
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
        assert!(!enables("info", Level::INFO) && enables("info", Level::WARN));
        assert!(!enables("off", Level::ERROR));
        assert!(enables("warn,openraft=debug", Level::DEBUG));
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
