//! Damage and shortage: flipped bits, cut files, failed syncs, full disks. What is damaged is
//! reported and nothing wrong is served; what is short is refused clearly and comes back by itself.

use flotilla_tests::admin;
use flotilla_tests::lossyfs::{Disk, Mounted, SyncBehaviour};
use flotilla_tests::python::{Sdk, run_script};
use flotilla_tests::seed;
use flotilla_tests::server::{Options, Server};
use flotilla_tests::tmpfs::Tmpfs;
use flotilla_tests::workdir::WorkDir;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOPIC: &str = "damaged";
const QUEUE: &str = "jobs";
const COUNT: u64 = 2000;
const MESSAGE_BYTES: u64 = 4096;

fn options(work: &WorkDir, data: &Path) -> Options {
    // Small segments: the messages of a test lie in many of them.
    Options::new(data, &work.join("server.log"))
        .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "1MiB")
        .set("FLOTILLA_STORAGE_RESERVE", "8MiB")
        .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "500ms")
}

fn start(options: &Options) -> Server {
    options.start().unwrap_or_else(|error| panic!("{error}"))
}

fn stop(server: Server) {
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}

/// Runs a job of `fault_tool.py`.
fn tool(server: &Server, job: &str, options: &[(&str, &dyn std::fmt::Display)]) -> Value {
    let address = server.kubemq().to_string();
    let mut arguments = vec![job.to_owned(), "--address".to_owned(), address];
    for (option, value) in options {
        arguments.extend([(*option).to_owned(), value.to_string()]);
    }
    let text = run_script(Sdk::V4_1_5, "fault_tool.py", &arguments);
    serde_json::from_str(&text).expect("the tool prints JSON")
}

/// Sends messages and gives the numbers that were acknowledged, and the refusals.
fn fill(server: &Server, channel: (&str, &str), first: u64, count: u64) -> (Vec<u64>, Vec<String>) {
    let answer = tool(
        server,
        "fill",
        &[
            (channel.0, &channel.1),
            ("--first", &first),
            ("--count", &count),
            ("--size", &MESSAGE_BYTES),
        ],
    );
    let acknowledged = answer["acknowledged"].as_array().expect("a list");
    let errors = answer["errors"].as_array().expect("a list");
    (
        acknowledged.iter().filter_map(Value::as_u64).collect(),
        errors
            .iter()
            .filter_map(|error| error.as_str().map(str::to_owned))
            .collect(),
    )
}

fn fill_all(server: &Server, channel: (&str, &str), first: u64, count: u64) {
    let (acknowledged, errors) = fill(server, channel, first, count);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(acknowledged.len() as u64, count);
}

/// The numbers that came, after checking that each is intact and at its place: the message with
/// number N has sequence N.
fn numbers_of(answer: &Value) -> BTreeSet<u64> {
    let seen = answer["seen"].as_array().expect("a list");
    let mut numbers = BTreeSet::new();
    for message in seen {
        assert_eq!(
            message["intact"],
            Value::Bool(true),
            "wrong bytes were served: {message}"
        );
        assert_eq!(message["sequence"], message["number"], "{message}");
        let number = message["number"].as_u64().expect("a number");
        assert!(numbers.insert(number), "message {number} came twice");
    }
    numbers
}

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

fn wait_until_accepted(server: &Server, channel: (&str, &str), first: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut number = first;
    loop {
        let (acknowledged, errors) = fill(server, channel, number, 1);
        number += 1;
        if acknowledged.len() == 1 {
            return number;
        }
        assert!(
            Instant::now() < deadline,
            "still refused: {errors:?}\n{}",
            server.log()
        );
    }
}

/// Below the reserve writes are refused clearly, while reads and removals go on; with space they
/// are taken again.
#[test]
fn a_full_disk_refuses_writes_until_space_returns() {
    let work = WorkDir::new("full");
    let tmpfs = Tmpfs::mount(&work.join("tmpfs"), 96 << 20).expect("mounting needs root");
    let ballast = tmpfs.path().join("ballast");
    std::fs::write(&ballast, vec![0; 40 << 20]).expect("an empty disk takes a file");
    let server = start(&options(&work, &tmpfs.path().join("data")));
    fill_all(&server, ("--queue", QUEUE), 1, 500);

    // More than there is space for: refused at some point, before the disk is full.
    let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), 1, 20_000);
    assert!(acknowledged.len() > 100, "refused early: {errors:?}");
    let refusal = errors.first().expect("a refusal");
    assert!(refusal.contains("space"), "{refusal}");
    assert!(tmpfs.free_bytes() > 0, "the reserve is used up");

    // Reads and removals go on.
    let last = *acknowledged.last().expect("some were acknowledged");
    assert_eq!(read(&server, last).len(), acknowledged.len());
    let purged = tool(&server, "purge", &[("--queue", &QUEUE)]);
    assert_eq!(purged["removed"].as_u64(), Some(500), "{purged}");

    std::fs::remove_file(&ballast).expect("the ballast is there");
    wait_until_accepted(&server, ("--queue", QUEUE), 501);
    stop(server);
}

/// When something else eats the reserve and the log itself finds no space, nothing acknowledged is
/// lost, and the server comes back by itself.
#[test]
fn a_disk_filled_by_others_loses_nothing() {
    let work = WorkDir::new("no-space");
    let tmpfs = Tmpfs::mount(&work.join("tmpfs"), 96 << 20).expect("mounting needs root");
    let server = start(&options(&work, &tmpfs.path().join("data")));
    fill_all(&server, ("--topic", TOPIC), 1, 1000);

    let ballast = tmpfs.path().join("ballast");
    tmpfs.fill(&ballast);
    assert_eq!(tmpfs.free_bytes(), 0);
    let (acknowledged, errors) = fill(&server, ("--topic", TOPIC), 1001, 2000);
    assert!(!errors.is_empty(), "nothing was refused on a full disk");
    let refused_first = 1001 + acknowledged.len() as u64;

    std::fs::remove_file(&ballast).expect("the ballast is there");
    let queue = "after";
    wait_until_accepted(&server, ("--queue", queue), 1);
    // A refused message may have been stored: one more tells where the end is.
    let end = wait_until_accepted(&server, ("--topic", TOPIC), 100_001) - 1;
    let answer = tool(&server, "read", &[("--topic", &TOPIC), ("--last", &end)]);
    let seen = answer["seen"].as_array().expect("a list");
    let numbers: Vec<u64> = seen
        .iter()
        .filter_map(|one| one["number"].as_u64())
        .collect();
    let expected: Vec<u64> = (1..refused_first).collect();
    assert_eq!(
        numbers[..expected.len()],
        expected,
        "acknowledged messages are missing"
    );
    assert!(seen.iter().all(|one| one["intact"] == Value::Bool(true)));
    let sequences: Vec<u64> = seen
        .iter()
        .filter_map(|one| one["sequence"].as_u64())
        .collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    stop(server);
}
