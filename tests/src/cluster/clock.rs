//! A wall clock that a test moves, of one server only.

use crate::server::Options;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Made of `clock.c` by the build.
const LIBRARY: &str = concat!(env!("OUT_DIR"), "/clock.so");

/// The wall clock of one server: its time is the machine's plus an offset.
pub struct Clock {
    path: PathBuf,
    offset: File,
}

impl Clock {
    /// A clock with its offset in a file of a directory.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join("clock.offset");
        let clock = Self {
            offset: File::create(&path)?,
            path,
        };
        clock.set_offset_ms(0)?;
        Ok(clock)
    }

    /// Makes a server live by this clock.
    pub fn give_to(&self, options: Options) -> Options {
        options
            .set("LD_PRELOAD", LIBRARY)
            .set("TEST_CLOCK_FILE", &self.path)
    }

    /// Moves it, at once.
    pub fn set_offset_ms(&self, offset_ms: i64) -> io::Result<()> {
        let offset_ns = offset_ms.saturating_mul(1_000_000);
        self.offset.write_all_at(&offset_ns.to_ne_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{SystemTime, UNIX_EPOCH};

    fn seconds(clock: &Clock) -> u64 {
        let output = Command::new("date")
            .arg("+%s")
            .env("LD_PRELOAD", LIBRARY)
            .env("TEST_CLOCK_FILE", &clock.path)
            .output()
            .expect("`date` runs");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().expect("a number of seconds")
    }

    #[test]
    fn a_program_lives_by_the_clock_that_was_moved() {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Clock::new(directory.path()).expect("a C compiler");
        let now = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970")
        };
        assert!(seconds(&clock).abs_diff(now().as_secs()) < 30);
        clock.set_offset_ms(-86_400_000).expect("the file");
        assert!(seconds(&clock).abs_diff(now().as_secs() - 86_400) < 30);
        clock.set_offset_ms(3_600_000).expect("the file");
        assert!(seconds(&clock).abs_diff(now().as_secs() + 3_600) < 30);
    }
}
