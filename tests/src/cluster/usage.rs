//! What a process uses, as the kernel counts it.

use std::io;
use std::time::Duration;

/// What a process has used and uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub processor: Duration,
    pub resident_bytes: u64,
}

impl Usage {
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status).ok_or_else(|| io::Error::other(format!("{stat:?}")))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name in parentheses may hold anything, spaces too.
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |index: usize| fields.split_whitespace().nth(index)?.parse::<u64>().ok();
        let (user, system) = (field(11)?, field(12)?);
        let resident = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let resident_kib: u64 = resident.split_whitespace().nth(1)?.parse().ok()?;
        // SAFETY: it only reads a constant of the system.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
        Some(Self {
            processor: Duration::from_millis((user + system) * 1000 / ticks),
            resident_bytes: resident_kib * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_more_and_more_of_a_processor() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("this process");
        let mut sum = 0_u64;
        let mut now = before;
        while now.processor < before.processor + Duration::from_millis(50) {
            sum = (0..100_000).fold(sum, |sum, number| sum ^ std::hint::black_box(number));
            now = Usage::of(pid).expect("this process");
        }
        assert!(now.resident_bytes > 1 << 20, "{sum} {now:?}");
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t  12 kB\n").expect("both files");
        assert_eq!(usage.resident_bytes, 12 * 1024);
        assert!(usage.processor > Duration::ZERO);
    }
}
