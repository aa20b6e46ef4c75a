//! What the bench ran on, and what it measured.

use serde::Serialize;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of the data.
    pub file_system: String,
    /// The load average of the last minute when the bench began: other work disturbs the figures.
    pub load_before: f64,
    /// Of the source tree where the bench runs, with `+` if it was changed since; the build of Flotilla that is
    /// measured may be another one.
    pub commit: String,
    pub unix_seconds: u64,
}

impl Machine {
    /// What there is to be known; what is not known is told as such.
    pub fn look(data: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes(&read("/proc/meminfo")),
            kernel: or_unknown(read("/proc/sys/kernel/osrelease").trim()),
            file_system: file_system(&read("/proc/self/mounts"), data),
            load_before: first_number(&read("/proc/loadavg")),
            commit: commit(),
            unix_seconds: now.map_or(0, |since| since.as_secs()),
        }
    }
}

fn or_unknown(text: &str) -> String {
    match text {
        "" => "unknown".to_owned(),
        known => known.to_owned(),
    }
}

/// The first line `name : value`.
fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    });
    or_unknown(value.unwrap_or_default())
}

fn memory_bytes(meminfo: &str) -> u64 {
    let total = field(meminfo, "MemTotal");
    let kilobytes = total.strip_suffix(" kB").and_then(|text| text.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}

fn first_number(text: &str) -> f64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The type of the file system with the longest mount point that holds a path.
fn file_system(mounts: &str, path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    let longest = holding.max_by_key(|(length, _)| *length);
    or_unknown(longest.map_or("", |(_, kind)| kind))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "+",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /nowhere/fast tmpfs rw 0 0\n";
        let kind = |path| file_system(mounts, Path::new(path));
        assert_eq!(kind("/nowhere/fast/data"), "tmpfs");
        assert_eq!(kind("/nowhere/else"), "ext4");
        assert_eq!(file_system("", Path::new("/")), "unknown");
    }

    #[test]
    fn memory_and_processor_are_read_from_the_kernels_lists() {
        assert_eq!(
            memory_bytes("MemFree: 1 kB\nMemTotal:   2048 kB\n"),
            2 << 20
        );
        let processors = "processor : 0\nmodel name\t: Fast One\nmodel name : Other\n";
        assert_eq!(field(processors, "model name"), "Fast One");
        assert_eq!(field("", "model name"), "unknown");
    }
}
