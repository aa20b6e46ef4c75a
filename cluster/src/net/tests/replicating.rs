//! Raft over the links: elections, replication, followers that go and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_storage::GroupId;
use futures::StreamExt;
use openraft::errors::RPCError;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::AppendEntriesRequest;

use super::raft_nodes::{RaftNode, Writer, converges, message};
use super::{CLUSTER, Node, eventually, introduce};
use crate::checkpoint::checkpoint;
use crate::release::release_log;
use crate::types::{Groups, Peer, Vote};

const GROUPS: u32 = 3;

async fn three_nodes(dir: &std::path::Path) -> Vec<RaftNode> {
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(RaftNode::start(dir, number, GROUPS).await);
    }
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    for group in (1..=GROUPS).map(GroupId) {
        nodes[0].initialize(group, &[1, 2, 3]).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_takes_reaches_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(dir.path()).await;
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    for group in (1..=GROUPS).map(GroupId) {
        let writer = Writer::new(group);
        let messages: Vec<Bytes> = (0..40).map(|number| message(number, 3_000)).collect();
        for message in &messages {
            writer.append_somewhere(&everyone, message.clone()).await;
        }
        for node in &nodes {
            converges(node, group, &messages).await;
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_many_megabytes_is_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(dir.path()).await;
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    let group = GroupId(1);
    let writer = Writer::new(group);
    let messages = [message(0, 40 << 20), message(1, 10)];
    for message in &messages {
        writer.append_somewhere(&everyone, message.clone()).await;
    }
    for node in &nodes {
        converges(node, group, &messages).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_catches_up_and_another_leads_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes(dir.path()).await;
    let group = GroupId(2);
    let writer = Writer::new(group);
    let mut messages: Vec<Bytes> = (0..5).map(|number| message(number, 100)).collect();
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    for message in &messages {
        writer.append_somewhere(&everyone, message.clone()).await;
    }
    // The leader itself goes.
    let place = nodes.iter().position(|node| node.leads(group)).unwrap();
    let gone = nodes.remove(place);
    let (number, address) = (gone.number, gone.net.address);
    gone.stop().await;
    let rest: Vec<&RaftNode> = nodes.iter().collect();
    for number in 5..30 {
        let message = message(number, 100);
        writer.append_somewhere(&rest, message.clone()).await;
        messages.push(message);
    }
    let listener = eventually("the port is free", async || {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
    let back = RaftNode::start_on(listener, dir.path(), number, GROUPS).await;
    nodes.push(back);
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    for node in &nodes {
        converges(node, group, &messages).await;
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = three_nodes(dir.path()).await;
    let group = GroupId(3);
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    let writer = Writer::new(group);
    writer.append_somewhere(&everyone, message(0, 10)).await;
    let from = nodes.iter().find(|node| node.leads(group)).unwrap();
    let to = nodes.iter().find(|node| !node.leads(group)).unwrap();
    // To one that has the leader's log.
    converges(to, group, &[message(0, 10)]).await;
    let begin = std::time::Instant::now();
    from.raft(group)
        .trigger()
        .transfer_leader(to.number)
        .await
        .unwrap();
    eventually("the other leads", async || to.leads(group).then_some(())).await;
    // An election after a silence would take longer.
    assert!(begin.elapsed().as_millis() < 600, "{:?}", begin.elapsed());
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_a_moment_needs_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = three_nodes(dir.path()).await;
    let group = GroupId(1);
    let writer = Writer::new(group);
    let mut messages = vec![message(0, 100)];
    let everyone: Vec<&RaftNode> = nodes.iter().collect();
    writer
        .append_somewhere(&everyone, messages[0].clone())
        .await;
    let place = nodes.iter().position(|node| !node.leads(group)).unwrap();
    let gone = nodes.remove(place);
    let (number, address) = (gone.number, gone.net.address);
    gone.stop().await;
    let rest: Vec<&RaftNode> = nodes.iter().collect();
    for number in 1..30 {
        let message = message(number, 1_000);
        writer.append_somewhere(&rest, message.clone()).await;
        messages.push(message);
    }
    for node in &nodes {
        // So slow that it would never arrive.
        node.net.links.set_snapshot_rate(1);
        converges(node, group, &messages).await;
        let mark = checkpoint(node.replica(group)).await.unwrap();
        assert!(release_log(node.replica(group), node.raft(group), &mark).await);
    }
    let listener = eventually("the port is free", async || {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
    nodes.push(RaftNode::start_on(listener, dir.path(), number, GROUPS).await);
    introduce(&nodes.iter().map(|node| &node.net).collect::<Vec<_>>());
    converges(&nodes[2], group, &messages).await;
    // Now that it has all, nothing needs to be kept by the leader.
    let leader = nodes.iter().find(|node| node.leads(group)).unwrap();
    eventually("the leader lets go", async || {
        let mark = checkpoint(leader.replica(group)).await.unwrap();
        let keeps = release_log(leader.replica(group), leader.raft(group), &mark).await;
        (!keeps).then_some(())
    })
    .await;
    for node in nodes {
        node.stop().await;
    }
}

/// Raft pauses after errors where it makes requests: who fails without asking for one is called again at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_reported_only_for_a_request() {
    let node = Node::start(Some(CLUSTER), 1);
    let mut network = node.links.network(GroupId(1));
    let mut peer = network.new_client(9, &Peer::default()).await;
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = is_asked.clone();
    let requests = futures::stream::once(async move {
        asked.store(true, Ordering::Relaxed);
        AppendEntriesRequest::<Groups> {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            leader_commit: None,
            entries: Vec::new(),
        }
    });
    let option = RPCOption::new(Duration::from_millis(150));
    let answers = peer
        .stream_append(Box::pin(requests), option)
        .await
        .unwrap();
    assert!(!is_asked.load(Ordering::Relaxed));
    let answers: Vec<_> = answers.collect().await;
    assert!(is_asked.load(Ordering::Relaxed));
    assert!(
        matches!(&answers[..], [Err(RPCError::Unreachable(_))]),
        "{answers:?}"
    );
}
