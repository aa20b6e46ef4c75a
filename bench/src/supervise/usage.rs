//! Processor time and memory of processes with all their children, from `/proc`.

use crate::BenchError;
use std::collections::BTreeMap;

/// The parts of `/proc/PID/stat` that count here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Nobody has asked yet how it ended: there is nothing left of it but this line.
    has_ended: bool,
    /// Of the process and of its children that ended and were waited for.
    ticks: u64,
}

/// Processor time of processes and everything that descends from them, of user and kernel since their
/// start, ended children included.
pub fn cpu_seconds(roots: &[u32]) -> Result<f64, BenchError> {
    let table = process_table()?;
    let family = family(&table, roots);
    let ticks = family.iter().map(|pid| table[pid].ticks);
    Ok(ticks.sum::<u64>() as f64 / ticks_per_second())
}

/// Resident memory of the same; what several of them share is counted once. To find it out the kernel walks
/// through all of their pages and holds them up meanwhile: not for the time that is measured.
pub fn resident_bytes(roots: &[u32]) -> Result<u64, BenchError> {
    let family = family_of(roots)?;
    Ok(family.into_iter().map(resident_bytes_of).sum())
}

/// Processes that are there, with everything that descends from them.
pub fn family_of(roots: &[u32]) -> Result<Vec<u32>, BenchError> {
    Ok(family(&process_table()?, roots))
}

/// Whether a process is there and has not ended.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.has_ended)
}

/// Processor time of this process, all threads together.
pub fn own_cpu_seconds() -> f64 {
    // SAFETY: all zeros is a valid rusage, and getrusage writes one.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut used);
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

fn process_table() -> Result<BTreeMap<u32, Stat>, BenchError> {
    let failed = || BenchError::io("read /proc");
    let mut table = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").map_err(failed())? {
        let name = entry.map_err(failed())?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = stat(pid)
        {
            table.insert(pid, stat);
        }
    }
    Ok(table)
}

/// None of a process that is gone.
fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The roots that are there and all that descends from them, each once.
fn family(table: &BTreeMap<u32, Stat>, roots: &[u32]) -> Vec<u32> {
    let mut members: Vec<u32> = Vec::new();
    let mut waiting: Vec<u32> = roots.to_vec();
    while let Some(pid) = waiting.pop() {
        if members.contains(&pid) || !table.contains_key(&pid) {
            continue;
        }
        members.push(pid);
        let children = table.iter().filter(|(_, stat)| stat.parent == pid);
        waiting.extend(children.map(|(child, _)| *child));
    }
    members
}

/// The name of the program comes second, in parentheses, and may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // proc(5): field 3, the first one after the name, is the state, where Z and X have ended; field 4 is the
    // parent, 14 to 17 are utime, stime, cutime and cstime.
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        has_ended: matches!(*fields.first()?, "Z" | "X"),
        ticks,
    })
}

/// The proportional set size where the kernel tells it, so that memory shared by a family of processes
/// is counted once; 0 for a process that has ended.
fn resident_bytes_of(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let kilobytes = rollup.ok().and_then(|text| parse_pss(&text));
    let pages = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    match kilobytes {
        Some(kilobytes) => kilobytes * 1024,
        None => pages().unwrap_or(0) * page_bytes(),
    }
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf touches no memory.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf touches no memory.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_is_stepped_over() {
        let text = "77 (a (b) 1 c) S 5 77 77 0 -1 4194304 9 0 0 0 30 12 7 1 20 0 1 0 100 1 1";
        let stat = Stat {
            parent: 5,
            has_ended: false,
            ticks: 50,
        };
        assert_eq!(parse_stat(text), Some(stat));
        let ended = parse_stat(&text.replace(" S ", " Z ")).expect("it is a whole line");
        assert!(ended.has_ended);
        assert_eq!(parse_stat("77 (cut off) S 5"), None);
    }

    #[test]
    fn a_family_is_the_roots_and_all_descendants_once() {
        let stat = |parent| Stat {
            parent,
            has_ended: false,
            ticks: 0,
        };
        let table = BTreeMap::from([
            (1, stat(0)),
            (10, stat(1)),
            (11, stat(10)),
            (12, stat(11)),
            (20, stat(1)),
        ]);
        let mut members = family(&table, &[10, 11, 99]);
        members.sort_unstable();
        assert_eq!(members, [10, 11, 12]);
    }

    #[test]
    fn shared_memory_is_counted_by_the_proportional_size() {
        let text = "00400000-7fff [rollup]\nRss:    2048 kB\nPss:     1024 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(parse_pss(text), Some(1024));
    }

    #[test]
    fn this_process_is_found_with_its_memory() {
        let own = std::process::id();
        assert!(resident_bytes(&[own]).expect("/proc is there") > 0);
        assert!(runs(own));
    }
}
