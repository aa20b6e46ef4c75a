//! Snapshots over the links, to nodes that lack the log behind them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_storage::GroupId;
use flotilla_storage::testing::FaultyDisk;

use super::raft_nodes::{PAUSE, RaftNode, Writer, converges, message};
use super::{eventually, introduce};

const GROUP: GroupId = GroupId(1);
/// Large enough that a snapshot of some has many chunks.
const MESSAGE_BYTES: usize = 256 << 10;

/// A group on nodes 1 to `voters` with a log that begins behind some messages.
async fn filled(
    dir: &std::path::Path,
    voters: u64,
    messages: usize,
) -> (Vec<RaftNode>, Writer, Vec<Bytes>) {
    let mut nodes = Vec::new();
    for number in 1..=voters {
        nodes.push(RaftNode::start(dir, number, 1).await);
    }
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    let voters: Vec<u64> = (1..=voters).collect();
    nodes[0].initialize(GROUP, &voters).await;
    let writer = Writer::new(GROUP);
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    let mut written = Vec::new();
    for number in 0..messages {
        let message = message(number, MESSAGE_BYTES);
        writer.append_somewhere(&everyone, message.clone()).await;
        written.push(message);
    }
    for node in &nodes {
        converges(node, GROUP, &written).await;
        node.checkpoint_and_purge(GROUP).await;
    }
    (nodes, writer, written)
}

async fn join(dir: &std::path::Path, nodes: &mut Vec<RaftNode>, number: u64) {
    nodes.push(RaftNode::start(dir, number, 1).await);
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
}

async fn leader(nodes: &[RaftNode]) -> &RaftNode {
    eventually("someone leads", async || {
        nodes.iter().find(|node| node.leads(GROUP))
    })
    .await
}

async fn add_learner(leader: &RaftNode, number: u64) {
    let raft = leader.raft(GROUP);
    raft.add_learner(number, crate::types::Peer::default(), false)
        .await
        .unwrap();
}

/// Chunks that lie ready at a node for a transfer that is under way or was broken off.
fn chunks_staged(node: &RaftNode) -> Option<u64> {
    node.net.links.chunks_left(GROUP)
}

async fn staging_bytes(dir: &std::path::Path, number: u64) -> u64 {
    let dir = dir.join(format!("node-{number}"));
    let mut bytes = 0;
    let mut open = vec![dir];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "import")
            {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
    }
    bytes
}

async fn stop(nodes: Vec<RaftNode>) {
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_gets_a_snapshot_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, writer, mut written) = filled(dir.path(), 1, 24).await;
    join(dir.path(), &mut nodes, 2).await;
    add_learner(&nodes[0], 2).await;
    for number in 24..60 {
        let message = message(number, 1_000);
        assert!(writer.append(&nodes[0], message.clone()).await);
        written.push(message);
        tokio::time::sleep(PAUSE / 4).await;
    }
    converges(&nodes[1], GROUP, &written).await;
    assert_eq!(staging_bytes(dir.path(), 2).await, 0);
    nodes[0].add_voters(GROUP, &[2]).await;
    // It holds all by itself.
    let second = nodes.remove(1);
    let address = second.net.address;
    second.stop().await;
    let listener = eventually("the port is free", async || {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
    let second = RaftNode::start_on(listener, dir.path(), 2, 1).await;
    nodes.push(second);
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    converges(&nodes[1], GROUP, &written).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, _writer, written) = filled(dir.path(), 1, 40).await;
    join(dir.path(), &mut nodes, 2).await;
    nodes[0].net.links.set_snapshot_rate(4 << 20);
    add_learner(&nodes[0], 2).await;
    eventually("half of it is there", async || {
        (staging_bytes(dir.path(), 2).await > 4 << 20).then_some(())
    })
    .await;
    nodes[1].net.links.cut(NodeId(1), true);
    let left = eventually("the rest is kept", async || chunks_staged(&nodes[1])).await;
    assert!(left >= 4, "{left}");
    nodes[0].net.links.set_snapshot_rate(1 << 30);
    nodes[1].net.links.cut(NodeId(1), false);
    converges(&nodes[1], GROUP, &written).await;
    // The first part came once only.
    let snapshot_bytes = (written.len() * MESSAGE_BYTES) as u64;
    let received_bytes = nodes[1].net.links.metrics().received_bytes;
    assert!(
        received_bytes < snapshot_bytes + (3 << 20),
        "{received_bytes}"
    );
    assert_eq!(staging_bytes(dir.path(), 2).await, 0);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_ends_midway_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, _writer, written) = filled(dir.path(), 1, 40).await;
    join(dir.path(), &mut nodes, 2).await;
    nodes[0].net.links.set_snapshot_rate(4 << 20);
    add_learner(&nodes[0], 2).await;
    eventually("half of it is there", async || {
        (staging_bytes(dir.path(), 2).await > 4 << 20).then_some(())
    })
    .await;
    let receiver = nodes.remove(1);
    receiver.stop().await;
    nodes[0].net.links.set_snapshot_rate(1 << 30);
    join(dir.path(), &mut nodes, 2).await;
    converges(&nodes[1], GROUP, &written).await;
    assert_eq!(staging_bytes(dir.path(), 2).await, 0);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_sender_dies_the_next_leader_sends_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, writer, mut written) = filled(dir.path(), 3, 40).await;
    join(dir.path(), &mut nodes, 4).await;
    for node in &nodes {
        node.net.links.set_snapshot_rate(4 << 20);
    }
    add_learner(leader(&nodes).await, 4).await;
    eventually("half of it is there", async || {
        (staging_bytes(dir.path(), 4).await > 4 << 20).then_some(())
    })
    .await;
    let place = nodes.iter().position(|node| node.leads(GROUP)).unwrap();
    nodes.remove(place).stop().await;
    for node in &nodes {
        node.net.links.set_snapshot_rate(1 << 30);
    }
    let rest: Vec<&RaftNode> = nodes.iter().collect();
    let last = message(40, 1_000);
    writer.append_somewhere(&rest, last.clone()).await;
    written.push(last);
    let fourth = nodes.iter().find(|node| node.number == 4).unwrap();
    converges(fourth, GROUP, &written).await;
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_disk_has_no_room_for_is_not_sent_again_before_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, _writer, written) = filled(dir.path(), 1, 24).await;
    let disk = FaultyDisk::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = RaftNode::start_with(listener, Arc::new(disk.clone()), dir.path(), 2, 1).await;
    nodes.push(second);
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    // It could be staged, but not installed.
    let snapshot_bytes = (written.len() * MESSAGE_BYTES) as u64;
    disk.set_capacity(Some(disk.used_bytes() + snapshot_bytes));
    let links = &nodes[1].net.links;
    add_learner(&nodes[0], 2).await;
    let reason = eventually("it is refused", async || links.setback(GROUP)).await;
    assert!(reason.contains("free"), "{reason}");
    let is_staged = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "import");
    assert!(!disk.paths().iter().any(is_staged), "what came is given up");
    // Raft asks twice a second.
    let received_bytes = links.metrics().received_bytes;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let more_bytes = links.metrics().received_bytes - received_bytes;
    // What was under way is all that came.
    assert!(more_bytes < snapshot_bytes, "{more_bytes}");
    disk.set_capacity(None);
    converges(&nodes[1], GROUP, &written).await;
    assert_eq!(nodes[1].net.links.setback(GROUP), None);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_made_meanwhile_does_not_slip_into_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, writer, mut written) = filled(dir.path(), 1, 40).await;
    join(dir.path(), &mut nodes, 2).await;
    nodes[0].net.links.set_snapshot_rate(4 << 20);
    add_learner(&nodes[0], 2).await;
    eventually("some of it is there", async || {
        (staging_bytes(dir.path(), 2).await > 1 << 20).then_some(())
    })
    .await;
    for number in 40..44 {
        let message = message(number, 1_000);
        assert!(writer.append(&nodes[0], message.clone()).await);
        written.push(message);
        nodes[0].checkpoint_and_purge(GROUP).await;
    }
    nodes[0].net.links.set_snapshot_rate(1 << 30);
    converges(&nodes[1], GROUP, &written).await;
    stop(nodes).await;
}
