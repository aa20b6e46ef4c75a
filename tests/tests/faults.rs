//! Damage: flipped bits, cut files, failed syncs. It is reported, nothing wrong is served, and what is
//! whole is served on.

use flotilla_tests::admin;
use flotilla_tests::fault_tool::{
    MESSAGE_BYTES, fill, fill_all, numbers_of, options, start, stop, tool,
};
use flotilla_tests::lossyfs::{Disk, Mounted, SyncBehaviour};
use flotilla_tests::seed;
use flotilla_tests::server::{Options, Server};
use flotilla_tests::workdir::WorkDir;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TOPIC: &str = "damaged";
const COUNT: u64 = 2000;

fn read(server: &Server, last: u64) -> BTreeSet<u64> {
    numbers_of(&tool(
        server,
        "read",
        &[("--topic", &TOPIC), ("--last", &last)],
    ))
}

/// The log's segments, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a readable data directory") {
            let path = entry.expect("a readable data directory").path();
            if path.is_dir() {
                directories.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "data")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Where the body of a message begins: its segment and offset.
fn find_body(segments: &[PathBuf], number: u64) -> (PathBuf, usize) {
    let head = format!("1 {number} ");
    for segment in segments {
        let bytes = std::fs::read(segment).expect("a readable segment");
        let found = bytes
            .windows(head.len())
            .position(|window| window == head.as_bytes());
        if let Some(offset) = found {
            return (segment.clone(), offset);
        }
    }
    panic!("message {number} is in no segment");
}

fn flip_bit(segment: &Path, offset: usize, bit: u8) {
    let mut bytes = std::fs::read(segment).expect("a readable segment");
    bytes[offset] ^= 1 << bit;
    std::fs::write(segment, bytes).expect("a writable segment");
}

/// A stopped server's data: a topic of `COUNT` messages over several segments.
fn filled(work: &WorkDir) -> (Options, PathBuf) {
    let data = work.join("data");
    let options = options(work, &data);
    let server = start(&options);
    fill_all(&server, ("--topic", TOPIC), 1, COUNT);
    assert_eq!(read(&server, COUNT).len() as u64, COUNT);
    stop(server);
    assert!(segments(&data).len() >= 5, "{:?}", segments(&data));
    (options, data)
}

/// Log line, metric and admin endpoint all speak of damage.
fn assert_damage_reported(server: &Server) {
    let log = server.log();
    assert!(
        log.contains("damaged"),
        "the log says nothing of damage:\n{log}"
    );
    let ranges = admin::metric(server.admin(), "flotilla_log_damaged_ranges").expect("metrics");
    assert!(ranges >= 1.0, "the metric says {ranges} damaged ranges");
    let (code, body) = admin::get(server.admin(), "/api/v1/damage").expect("the admin port");
    assert_eq!(code, 200, "{body}");
    assert!(
        body.contains("segment") && body.contains("offset"),
        "{body}"
    );
}

#[test]
fn a_flipped_bit_costs_its_message_only() {
    let work = WorkDir::new("bitflip");
    let mut random = seed::random(seed::seed());
    let (options, data) = filled(&work);
    let segments = segments(&data);
    let mut damaged = BTreeSet::new();
    while damaged.len() < 5 {
        let number = random.random_range(1..COUNT);
        let (segment, offset) = find_body(&segments, number);
        flip_bit(
            &segment,
            offset + random.random_range(16..MESSAGE_BYTES as usize),
            random.random_range(0..8),
        );
        damaged.insert(number);
    }

    let server = start(&options);
    let read = read(&server, COUNT);
    let missing: BTreeSet<u64> = (1..=COUNT)
        .filter(|number| !read.contains(number))
        .collect();
    assert_eq!(missing, damaged);
    assert_damage_reported(&server);
    // It goes on where it was.
    fill_all(&server, ("--topic", TOPIC), COUNT + 1, 10);
    stop(server);
}

/// Anywhere means headers and tables too: more may be lost then, but nothing wrong is served, and
/// what lies elsewhere is there.
#[test]
fn flipped_bits_anywhere_never_give_wrong_messages() {
    let work = WorkDir::new("bitflips");
    let mut random = seed::random(seed::seed());
    let (options, data) = filled(&work);
    let segments = segments(&data);
    // The newest one holds the end of the log, the last message among it.
    let (last, _) = find_body(&segments, COUNT);
    let sealed: Vec<PathBuf> = segments.into_iter().filter(|path| *path < last).collect();
    for _ in 0..20 {
        let segment = sealed.choose(&mut random).expect("several segments");
        let len = std::fs::metadata(segment).expect("a segment").len() as usize;
        flip_bit(
            segment,
            random.random_range(0..len),
            random.random_range(0..8),
        );
    }

    let server = start(&options);
    let read = read(&server, COUNT);
    // A window of messages was one write; 20 flips can take at most 20 of those.
    let missing = COUNT - read.len() as u64;
    assert!(missing <= 20 * 64, "{missing} messages are gone");
    assert_damage_reported(&server);
    fill_all(&server, ("--topic", TOPIC), COUNT + 1, 10);
    stop(server);
}

#[test]
fn a_cut_segment_costs_what_it_held() {
    let work = WorkDir::new("cut");
    let (options, data) = filled(&work);
    let segments = segments(&data);
    let (cut, _) = find_body(&segments, COUNT / 2);
    let bytes = std::fs::read(&cut).expect("a readable segment");
    let held: BTreeSet<u64> = (1..=COUNT)
        .filter(|number| {
            let head = format!("1 {number} ");
            bytes
                .windows(head.len())
                .any(|window| window == head.as_bytes())
        })
        .collect();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&cut)
        .expect("a writable segment");
    file.set_len(bytes.len() as u64 / 2)
        .expect("a segment can be cut");
    drop(file);

    let server = start(&options);
    let read = read(&server, COUNT);
    let missing: BTreeSet<u64> = (1..=COUNT)
        .filter(|number| !read.contains(number))
        .collect();
    assert!(!missing.is_empty());
    assert!(
        missing.is_subset(&held),
        "messages of other segments are gone"
    );
    assert!(
        missing.len() < held.len(),
        "the first half of the cut segment is gone too"
    );
    assert_damage_reported(&server);
    fill_all(&server, ("--topic", TOPIC), COUNT + 1, 10);
    stop(server);
}

/// After a failed sync nobody knows what is on the disk: writes end, with the reason, and reads go
/// on.
#[test]
fn a_failed_sync_ends_writes_and_says_why() {
    let work = WorkDir::new("failed-sync");
    let mountpoint = work.join("mount");
    std::fs::create_dir(&mountpoint).expect("the work directory takes new directories");
    let mounted = Mounted::new(Disk::new(SyncBehaviour::Honest), &mountpoint)
        .expect("mounting needs root and /dev/fuse");
    let server = start(&options(&work, &mountpoint.join("data")));
    fill_all(&server, ("--topic", TOPIC), 1, 100);
    let (code, _) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 200);

    mounted.disk().set_syncs(SyncBehaviour::Fails);
    let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), 101, 10);
    assert_eq!(
        acknowledged,
        Vec::<u64>::new(),
        "acknowledged without a sync"
    );
    assert!(!errors.is_empty());
    // A later sync that succeeds proves nothing about the pages of the failed one.
    mounted.disk().set_syncs(SyncBehaviour::Honest);
    let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), 111, 10);
    assert_eq!(
        acknowledged,
        Vec::<u64>::new(),
        "the failed sync was forgotten"
    );
    assert!(
        errors.iter().any(|error| error.contains("sync")),
        "{errors:?}"
    );

    let (code, body) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("sync"), "{body}");
    let (code, _) = admin::get(server.admin(), "/healthz").expect("the admin port");
    assert_eq!(code, 200, "the process itself is well");
    let read = read(&server, 100);
    assert_eq!(read.len(), 100);
    server.kill().expect("a running server can be killed");
    mounted.unmount().expect("nothing uses the mount any more");
}
