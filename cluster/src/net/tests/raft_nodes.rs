//! Nodes with groups on them: log, state and Raft, and nothing above.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_model::command::{EntryHead, Proposal};
use flotilla_model::format::encode_head;
use flotilla_model::ids::{NodeId, Origin, ShardTime, WallTime};
use flotilla_model::name::Name;
use flotilla_model::query;
use flotilla_storage::{Disk, EntryBody, GroupId, NodeLog, RealDisk};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, ServerState};

use super::{CLUSTER, Node, eventually};
use crate::checkpoint::checkpoint;
use crate::log_store::ShardLog;
use crate::replica::Replica;
use crate::state_machine::ShardStateMachine;
use crate::tests::append_command;
use crate::tests::replay::{open_log_on, open_replica};
use crate::types::{Batch, Peer};
use flotilla_raft::Raft;

/// A node whose groups are run by Raft over the links.
pub struct RaftNode {
    pub net: Node,
    pub number: u64,
    pub groups: BTreeMap<GroupId, (Raft, Arc<Replica>)>,
    pub log: NodeLog,
}

fn config() -> Arc<openraft::Config> {
    let config = openraft::Config {
        cluster_name: "test".to_owned(),
        election_timeout_min: 600,
        election_timeout_max: 1_000,
        heartbeat_interval: 150,
        heartbeat_min_interval: Some(150),
        enable_pre_vote: Some(true),
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 256,
        max_payload_entries: 64,
        max_append_entries: Some(64),
        ..openraft::Config::default()
    };
    Arc::new(config.validate().unwrap())
}

impl RaftNode {
    pub async fn start(dir: &Path, number: u64, groups: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(listener, dir, number, groups).await
    }

    pub async fn start_on(listener: TcpListener, dir: &Path, number: u64, groups: u32) -> Self {
        Self::start_with(listener, Arc::new(RealDisk), dir, number, groups).await
    }

    pub async fn start_with(
        listener: TcpListener,
        disk: Arc<dyn Disk>,
        dir: &Path,
        number: u64,
        groups: u32,
    ) -> Self {
        let net = Node::start_on(listener, Some(CLUSTER), number);
        let dir = dir.join(format!("node-{number}"));
        std::fs::create_dir_all(&dir).unwrap();
        let log = open_log_on(disk, &dir);
        let mut running = BTreeMap::new();
        for group in (1..=groups).map(GroupId) {
            let replica = open_replica(&log, group, 1 << 20);
            let raft = flotilla_raft::build(
                number,
                config(),
                net.links.network(group),
                ShardLog::new(log.clone(), group),
                ShardStateMachine::new(replica.clone()),
            )
            .await
            .unwrap();
            net.links.attach_group(group, raft.clone(), replica.clone());
            raft.run();
            running.insert(group, (raft, replica));
        }
        Self {
            net,
            number,
            groups: running,
            log,
        }
    }

    /// Ends without a word to anyone. The data stays.
    pub async fn stop(mut self) {
        self.net.stop();
        for (raft, _) in self.groups.values() {
            let _ = raft.shutdown().await;
        }
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.shutdown())
            .await
            .unwrap()
            .unwrap();
    }

    pub fn raft(&self, group: GroupId) -> &Raft {
        &self.groups[&group].0
    }

    pub fn replica(&self, group: GroupId) -> &Arc<Replica> {
        &self.groups[&group].1
    }

    pub fn leads(&self, group: GroupId) -> bool {
        let metrics = self.raft(group).metrics();
        metrics.borrow_watched().state == ServerState::Leader
    }

    pub async fn initialize(&self, group: GroupId, voters: &[u64]) {
        let members: BTreeMap<u64, Peer> = voters
            .iter()
            .map(|voter| (*voter, Peer::default()))
            .collect();
        self.raft(group).initialize(members).await.unwrap();
    }

    pub async fn add_voters(&self, group: GroupId, voters: &[u64]) {
        let raft = self.raft(group);
        for voter in voters {
            raft.add_learner(*voter, Peer::default(), true)
                .await
                .unwrap();
        }
        let voters = voters.iter().copied().collect();
        raft.change_membership(ChangeMembers::AddVoterIds(voters), false)
            .await
            .unwrap();
    }

    /// A checkpoint, and nothing of the log before it.
    pub async fn checkpoint_and_purge(&self, group: GroupId) {
        let mark = checkpoint(self.replica(group)).await.unwrap();
        let upto = mark.log_id.unwrap().index;
        let raft = self.raft(group);
        raft.trigger().snapshot().await.unwrap();
        eventually("the checkpoint is known", async || {
            let snapshot = raft.data_metrics().borrow_watched().snapshot;
            snapshot.filter(|log_id| log_id.index >= upto)
        })
        .await;
        raft.trigger().purge_log(upto).await.unwrap();
        eventually("the log is purged", async || {
            let purged = self.log.group_state(group).unwrap().purged;
            purged.filter(|point| point.index >= upto)
        })
        .await;
    }

    /// All that a topic holds on this node.
    pub async fn contents(&self, group: GroupId) -> Vec<Bytes> {
        let replica = self.replica(group);
        let info = replica.read(|records| query::topic_info(records, &topic()));
        let Some(info) = info.await.unwrap() else {
            return Vec::new();
        };
        let mut contents = Vec::new();
        let mut from = info.first;
        while from < info.next {
            let found = replica
                .read(|records| query::topic_locate(records, info.object, from, 100))
                .await
                .unwrap();
            for record in found {
                let slots = record.first_slot..record.first_slot + record.count;
                let log = replica.log.clone();
                let slots = tokio::task::spawn_blocking(move || {
                    log.read_slots(group, record.index.0, slots).unwrap()
                });
                contents.extend(slots.await.unwrap());
                from.0 = record.first.0 + u64::from(record.count);
            }
        }
        contents
    }
}

pub fn topic() -> Name {
    Name::topic("orders").unwrap()
}

/// Appends to the topic of a group, one message an entry.
pub struct Writer {
    group: GroupId,
    sequence: AtomicU64,
}

impl Writer {
    pub fn new(group: GroupId) -> Self {
        Self {
            group,
            sequence: AtomicU64::new(0),
        }
    }

    /// Appends to the log of a leader.
    pub async fn append(&self, leader: &RaftNode, payload: Bytes) -> bool {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        self.propose(leader, sequence, payload).await
    }

    async fn propose(&self, leader: &RaftNode, sequence: u64, payload: Bytes) -> bool {
        let head = EntryHead {
            now: ShardTime(sequence),
            wall: WallTime(sequence),
            proposals: vec![Proposal {
                origin: Origin::Node {
                    node: NodeId(1),
                    incarnation: 1,
                },
                sequence,
                first_slot: 0,
                commands: vec![append_command(&topic(), 1)],
            }],
        };
        let body = EntryBody::builder()
            .head(encode_head(&head))
            .slots([payload])
            .build()
            .unwrap();
        let raft = leader.raft(self.group);
        raft.client_write(Batch(body)).await.is_ok()
    }

    /// Appends a message that must be taken, by whoever leads soon.
    pub async fn append_somewhere(&self, nodes: &[&RaftNode], payload: Bytes) {
        // The same sequence each time, so that it is there once, whatever became of the first attempts.
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        eventually("a message is taken", async || {
            let leader = nodes.iter().find(|node| node.leads(self.group))?;
            let taken = self.propose(leader, sequence, payload.clone()).await;
            taken.then_some(())
        })
        .await;
    }
}

/// Waits until a node holds exactly this.
pub async fn converges(node: &RaftNode, group: GroupId, expected: &[Bytes]) {
    eventually("the node has what was written", async || {
        let contents = node.contents(group).await;
        (contents == expected).then_some(())
    })
    .await;
}

/// A message that is told from any other by its bytes.
pub fn message(number: usize, bytes: usize) -> Bytes {
    let mut message = format!("message {number} ").into_bytes();
    message.resize(bytes.max(message.len()), number as u8);
    Bytes::from(message)
}

pub const PAUSE: Duration = Duration::from_millis(20);
