//! What the system knows about this process, read from `/proc` when metrics are asked for.

use std::fs;

/// Memory, time and files of the process. What cannot be read is missing, not zero.
#[derive(Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// Memory in use, bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time so far, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// Open files and sockets.
    pub open_files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// Reads the facts of now.
pub fn read() -> ProcessFacts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ProcessFacts {
        resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1_024),
        threads: field(&status, "Threads:"),
        cpu_seconds: cpu_seconds(&stat),
        open_files: fs::read_dir("/proc/self/fd")
            .ok()
            // One of them is the listing itself.
            .map(|files| (files.count() as u64).saturating_sub(1)),
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The command name may hold spaces, hence the search for its last bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    /// The unit of these fields on every Linux that Rust supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_all_facts() {
        let facts = read();
        assert!(facts.resident_bytes.unwrap() > 100_000);
        assert!(facts.threads.unwrap() >= 1);
        assert!(facts.open_files.unwrap() >= 3);
        assert!(facts.cpu_seconds.unwrap() >= 0.0);
    }

    #[test]
    fn times_are_found_behind_an_odd_command_name() {
        let stat = "7 (a b) c) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }
}
