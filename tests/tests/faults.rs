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
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TOPIC: &str = "damaged";
const QUEUE: &str = "jobs";
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

/// Where the bodies of messages begin: number, segment and offset.
fn bodies(segments: &[PathBuf], count: u64) -> BTreeMap<u64, (PathBuf, usize)> {
    let mut found = BTreeMap::new();
    for segment in segments {
        let bytes = std::fs::read(segment).expect("a readable segment");
        for offset in 0..bytes.len() {
            if let Some(number) = number_at(&bytes[offset..]) {
                // Noise can look like a beginning; the numbers before it have been seen by then.
                found.entry(number).or_insert((segment.clone(), offset));
            }
        }
    }
    assert!((1..=count).all(|number| found.contains_key(&number)));
    found
}

/// The number of the message whose body begins here: producer 1, a space, the number, a space.
fn number_at(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.strip_prefix(b"1 ")?;
    let len = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if len == 0 || len > 4 || digits.get(len) != Some(&b' ') {
        return None;
    }
    let number: u64 = std::str::from_utf8(&digits[..len]).ok()?.parse().ok()?;
    (1..=COUNT).contains(&number).then_some(number)
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
    let bodies = bodies(&segments(&data), 100);
    let mut damaged = BTreeSet::new();
    while damaged.len() < 5 {
        let number = random.random_range(1..COUNT);
        let (segment, offset) = &bodies[&number];
        flip_bit(
            segment,
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
    let (last, _) = bodies(&segments, COUNT)[&COUNT].clone();
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
    let bodies = bodies(&segments, COUNT);
    let (cut, _) = bodies[&(COUNT / 2)].clone();
    let len = std::fs::metadata(&cut).expect("a segment").len();
    let held: BTreeSet<u64> = bodies
        .iter()
        .filter(|(_, (segment, _))| *segment == cut)
        .map(|(number, _)| *number)
        .collect();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&cut)
        .expect("a writable segment");
    file.set_len(len / 2).expect("a segment can be cut");
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

/// Without one entry of its log a shard cannot go on, and says so. The others are not its hostages.
#[test]
fn a_shard_that_cannot_be_replayed_leaves_the_others_in_service() {
    let work = WorkDir::new("replay");
    let data = work.join("data");
    // No checkpoint: the log alone knows what happened.
    let options = options(&work, &data).set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "1d");
    let server = start(&options);
    fill_all(&server, ("--topic", TOPIC), 1, 100);
    let others: Vec<String> = (0..8).map(|number| format!("other-{number}")).collect();
    for other in &others {
        fill_all(&server, ("--queue", other), 1001, 3);
    }
    server.kill().expect("a running server can be killed");
    let (segment, offset) = bodies(&segments(&data), 100)[&50].clone();
    let bytes = std::fs::read(&segment).expect("a readable segment");
    let frame = (0..offset)
        .rev()
        .find(|at| bytes[*at..].starts_with(b"FLg1"))
        .expect("a frame around the message");
    // In the header of the entry: what was asked for is lost, not only a message.
    flip_bit(&segment, frame + 20, 3);

    let server = start(&options);
    assert!(server.log().contains("degraded: shard"), "{}", server.log());
    let (code, body) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 503, "{body}");
    assert_damage_reported(&server);
    let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), 101, 1);
    assert_eq!(acknowledged, Vec::<u64>::new());
    assert!(errors[0].contains("unavailable"), "{errors:?}");
    let served = others.iter().filter(|other| {
        let (acknowledged, errors) = fill(&server, ("--queue", other), 1004, 1);
        if acknowledged.is_empty() {
            assert!(errors[0].contains("unavailable"), "{errors:?}");
            return false;
        }
        let seen = &tool(&server, "drain", &[("--queue", other)])["seen"];
        assert_eq!(seen.as_array().map(Vec::len), Some(4), "{seen}");
        true
    });
    // Eight names spread over four shards, of which one is gone.
    assert!(served.count() >= 4);
    stop(server);
}

/// After a failed sync nobody knows what is on the disk: nothing more is acknowledged, readiness says
/// why, and only a new start, which reads what is really there, serves again.
#[test]
fn a_failed_sync_ends_writes_and_says_why() {
    let work = WorkDir::new("failed-sync");
    let mountpoint = work.join("mount");
    std::fs::create_dir(&mountpoint).expect("the work directory takes new directories");
    let mounted = Mounted::new(Disk::new(SyncBehaviour::Honest), &mountpoint)
        .expect("mounting needs root and /dev/fuse");
    let options = options(&work, &mountpoint.join("data"));
    let server = start(&options);
    fill_all(&server, ("--topic", TOPIC), 1, 100);
    fill_all(&server, ("--queue", QUEUE), 1, 5);
    let (code, _) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 200);

    let refused = |first| {
        let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), first, 10);
        assert_eq!(acknowledged, Vec::<u64>::new());
        assert!(!errors.is_empty());
    };
    mounted.disk().set_syncs(SyncBehaviour::Fails);
    refused(101);
    // A later sync that succeeds proves nothing about the pages of the failed one.
    mounted.disk().set_syncs(SyncBehaviour::Honest);
    refused(111);
    let (code, body) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 503, "{body}");
    // The log or its index meets the failing disk first; the reason is the disk's answer.
    let reason = "Input/output error";
    assert!(body.contains(reason), "{body}");
    let (code, _) = admin::get(server.admin(), "/healthz").expect("the admin port");
    assert_eq!(code, 200, "the process itself is well");
    assert!(server.log().contains(reason), "{}", server.log());
    // What is stored can still be read.
    let peeked = numbers_of(&tool(&server, "peek", &[("--queue", &QUEUE)]));
    assert_eq!(peeked, (1..=5).collect());
    server.kill().expect("a running server can be killed");

    let server = start(&options);
    fill_all(&server, ("--topic", TOPIC), 121, 1);
    let answer = tool(&server, "read", &[("--topic", &TOPIC), ("--last", &121)]);
    let seen = answer["seen"].as_array().expect("a list");
    let numbers: Vec<u64> = seen
        .iter()
        .filter_map(|one| one["number"].as_u64())
        .collect();
    assert_eq!(numbers[..100], (1..=100).collect::<Vec<_>>());
    assert!(seen.iter().all(|one| one["intact"] == true));
    stop(server);
    mounted.unmount().expect("nothing uses the mount any more");
}
