//! What the operating system says of this process.

use std::time::Duration;

use crate::Failure;

/// Of every Linux that Rust supports.
const CLOCK_TICKS_PER_SECOND: u64 = 100;

/// Processor time used so far, in user and kernel.
pub fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the name in parentheses, which may contain spaces.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64, Failure> {
        let field = fields.next().ok_or("too few fields in /proc/self/stat")?;
        Ok(field.parse()?)
    };
    let total = ticks()? + ticks()?;
    Ok(Duration::from_millis(
        total * 1_000 / CLOCK_TICKS_PER_SECOND,
    ))
}

/// Memory in use now.
pub fn resident_mb() -> Result<f64, Failure> {
    status_mb("VmRSS:")
}

/// The most memory that was in use since the start.
pub fn highest_resident_mb() -> Result<f64, Failure> {
    status_mb("VmHWM:")
}

fn status_mb(key: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("no such line in /proc/self/status")?;
    Ok(kib.parse::<f64>()? * 1_024.0 / 1e6)
}
