//! What links and Raft cost when nothing happens.

use std::time::Duration;

use flotilla_storage::GroupId;

use super::introduce;
use super::raft_nodes::RaftNode;

const GROUPS: u32 = 33;

/// Seconds of processor time that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// Prints the cost; run with `--run-ignored only --no-capture`, best as a release build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for half a minute"]
async fn idle_cost_of_33_groups_on_three_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(RaftNode::start(dir.path(), number, GROUPS).await);
    }
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    for group in (1..=GROUPS).map(GroupId) {
        let first = group.0 as usize % 3;
        nodes[first].initialize(group, &[1, 2, 3]).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let led: usize = nodes
        .iter()
        .map(|node| {
            (1..=GROUPS)
                .filter(|group| node.leads(GroupId(*group)))
                .count()
        })
        .sum();
    assert_eq!(led, GROUPS as usize);
    let before = processor_seconds();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let used = (processor_seconds() - before) / 20.0 * 100.0;
    println!("three nodes together: {used:.1} % of a core");
    for node in nodes {
        node.stop().await;
    }
}
