//! Full disks: writes are refused clearly, reads and removals go on, and writes come back by themselves.

use flotilla_tests::fault_tool::{fill, fill_all, options, start, stop, tool, wait_until_accepted};
use flotilla_tests::server::Server;
use flotilla_tests::tmpfs::Tmpfs;
use flotilla_tests::workdir::WorkDir;
use serde_json::Value;

const TOPIC: &str = "events";
const QUEUE: &str = "jobs";

fn read(server: &Server, last: u64) -> Value {
    tool(server, "read", &[("--topic", &TOPIC), ("--last", &last)])
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
    assert!(refusal.contains("storage is full"), "{refusal}");
    assert!(tmpfs.free_bytes() > 0, "the reserve is used up");

    // Reads and removals go on.
    let last = *acknowledged.last().expect("more than a hundred");
    let answer = read(&server, last);
    let seen = answer["seen"].as_array().expect("a list");
    assert!(seen.iter().all(|one| one["intact"] == Value::Bool(true)));
    let stored: Vec<(u64, u64)> = seen
        .iter()
        .filter_map(|one| Some((one["sequence"].as_u64()?, one["number"].as_u64()?)))
        .collect();
    // Where space came back for a moment, messages behind a refused one were taken.
    let expected: Vec<(u64, u64)> = (1..).zip(acknowledged).collect();
    assert_eq!(stored, expected);
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
    let answer = read(&server, end);
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
