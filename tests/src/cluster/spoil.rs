//! Damage to the files of a node that does not run.

use rand::Rng;
use rand::rngs::StdRng;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Flipped bits: so many that some are in what is needed.
const FLIPS: usize = 24;

/// A file of the log, and how many bytes of it were written: it may be longer.
struct Segment {
    path: PathBuf,
    written: u64,
}

/// Flips bits in all parts of a log.
pub fn flip_bits(data: &Path, random: &mut StdRng) {
    let segments = segments(data);
    for _ in 0..FLIPS {
        let segment = &segments[random.random_range(0..segments.len())];
        let at = random.random_range(0..segment.written);
        let file = open(&segment.path);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it was written");
        byte[0] ^= 1 << random.random_range(0..8);
        file.write_all_at(&byte, at).expect("it can be written");
    }
}

/// Removes a file of a log, but not the only one, or cuts the largest.
pub fn lose_files(data: &Path, random: &mut StdRng) {
    let segments = segments(data);
    let largest = segments.iter().max_by_key(|segment| segment.written);
    let largest = largest.expect("a log has a file");
    if segments.len() > 1 && random.random_bool(0.5) {
        fs::remove_file(&largest.path).expect("it can be removed");
    } else {
        let length = largest.written / 2;
        open(&largest.path).set_len(length).expect("it can be cut");
    }
}

fn open(path: &Path) -> File {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.expect("a file of the log can be opened")
}

/// The files that something was written to.
fn segments(data: &Path) -> Vec<Segment> {
    let listed = fs::read_dir(data.join("log")).expect("a node has a log");
    let paths = listed.map(|entry| entry.expect("it can be listed").path());
    let segments = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "data"))
        .filter_map(|path| {
            let bytes = fs::read(&path).expect("it can be read");
            let last = bytes.iter().rposition(|byte| *byte != 0)?;
            let written = last as u64 + 1;
            Some(Segment { path, written })
        });
    segments.collect()
}
