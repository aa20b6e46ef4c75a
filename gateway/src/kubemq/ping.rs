//! Ping: who answers, and since when.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::config::KubemqConfig;
use super::protocol::PingResult;

/// When the listener began to serve.
#[derive(Clone, Copy)]
pub struct Started {
    at_unix_seconds: i64,
    since: Instant,
}

impl Started {
    /// Just now.
    pub fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            // Clients take 0 for "unset", which a clock before 1970 must not give.
            at_unix_seconds: i64::try_from(since_epoch.as_secs())
                .unwrap_or(i64::MAX)
                .max(1),
            since: Instant::now(),
        }
    }
}

/// The answer; the time up comes from a clock that never runs backwards.
pub fn answer(config: &KubemqConfig, started: &Started) -> PingResult {
    PingResult {
        host: config.host.clone(),
        version: config.version.clone(),
        server_start_time: started.at_unix_seconds,
        server_up_time_seconds: i64::try_from(started.since.elapsed().as_secs())
            .unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_names_host_and_version_and_sane_times() {
        let answer = answer(&KubemqConfig::default(), &Started::now());
        assert_eq!(answer.host, "flotilla");
        assert_eq!(answer.version, "2.6.0");
        assert!(answer.server_start_time > 1_600_000_000);
        assert!(answer.server_up_time_seconds >= 0);
    }
}
