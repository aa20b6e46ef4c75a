//! Tests of a whole node and of a replica without Raft, with what they share.

mod damaged_leaders;
mod faults;
mod fleet;
mod forming;
mod leaders;
mod levels;
mod losses;
mod many;
mod membership;
mod mending;
mod node;
mod outbox;
pub(crate) mod replay;
mod restarts;
mod silence;
mod snapshots;
mod store_suite;
mod timers;
mod vacancy;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::command::{Command, EnqueueRun, QueuePolicy, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Offset, SessionId, ShardId, ShardTime};
use flotilla_model::name::Name;
use flotilla_model::outcome::{LeasedMessage, Outcome};
use flotilla_model::query;
use tokio::runtime::Runtime;

use crate::{Cluster, ClusterConfig, ClusterError, Shard};

/// Long enough for a slow machine that runs everything else as well.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node on a runtime of its own, so that it can be killed with everything that it was doing.
struct Node {
    runtime: Runtime,
    cluster: Cluster,
}

impl Node {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| ())
    }

    fn start_with(dir: &Path, tune: impl FnOnce(&mut ClusterConfig)) -> Self {
        Self::try_start(dir, tune).expect("the node starts")
    }

    fn try_start(dir: &Path, tune: impl FnOnce(&mut ClusterConfig)) -> Result<Self, ClusterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let mut config = ClusterConfig::new(dir);
        config.log.segment_bytes = 1 << 20;
        config.log.reserve_bytes = Some(1 << 20);
        tune(&mut config);
        let cluster = runtime.block_on(Cluster::start(config, runtime.handle().clone()))?;
        Ok(Self { runtime, cluster })
    }

    /// Ends every task in the middle of its work. Nothing is flushed or said goodbye to.
    fn kill(self) {
        let Self { runtime, cluster } = self;
        runtime.shutdown_timeout(PATIENCE);
        drop(cluster);
    }

    fn shut_down(self) {
        let deadline = Instant::now() + PATIENCE;
        self.runtime
            .block_on(self.cluster.shutdown(deadline))
            .unwrap();
        self.kill();
    }

    fn propose(&self, name: &Name, command: Command, slots: Vec<Bytes>) -> Outcome {
        let shard = self.cluster.shard_for(name).clone();
        let deadline = Instant::now() + PATIENCE;
        let outcomes = self
            .runtime
            .block_on(shard.propose(vec![command], slots, deadline))
            .unwrap();
        outcomes[0].clone()
    }

    fn append(&self, topic: &Name, payloads: &[&str]) -> Outcome {
        self.propose(
            topic,
            append_command(topic, payloads.len()),
            slots(payloads),
        )
    }

    fn enqueue(&self, queue: &Name, payloads: &[&str], policy: QueuePolicy) -> Outcome {
        self.propose(
            queue,
            enqueue_command(queue, payloads.len(), policy),
            slots(payloads),
        )
    }

    fn lease(
        &self,
        queue: &Name,
        session: SessionId,
        messages_max: u32,
    ) -> (LeaseId, Vec<LeasedMessage>) {
        let command = Command::Lease {
            queue: queue.clone(),
            session,
            messages_max,
            bytes_max: 1 << 30,
            visibility_ms: None,
        };
        match self.propose(queue, command, Vec::new()) {
            Outcome::Leased {
                lease, messages, ..
            } => (lease, messages),
            other => panic!("not a lease: {other:?}"),
        }
    }

    /// Settles all of a lease.
    fn settle(&self, queue: &Name, session: SessionId, lease: LeaseId, how: Settlement) -> Outcome {
        let settle = settle_command(queue, session, lease, how);
        self.propose(queue, settle, Vec::new())
    }

    fn session(&self, number: u64) -> SessionId {
        let node = self.cluster.node();
        SessionId {
            node: node.id,
            incarnation: self.cluster.session_generation(),
            number,
        }
    }

    fn shard(&self, name: &Name) -> Shard {
        self.cluster.shard_for(name).clone()
    }

    /// Everything that a topic holds, in order.
    fn topic_contents(&self, topic: &Name) -> Vec<(Offset, String)> {
        self.try_topic_contents(topic).unwrap()
    }

    fn try_topic_contents(&self, topic: &Name) -> Result<Vec<(Offset, String)>, ClusterError> {
        let shard = self.shard(topic);
        self.runtime.block_on(async {
            let info = shard.read(|records| query::topic_info(records, topic));
            let Some(info) = info.await? else {
                return Ok(Vec::new());
            };
            let mut contents = Vec::new();
            let mut from = info.first;
            while from < info.next {
                let found = shard
                    .read(|records| query::topic_locate(records, info.object, from, 100))
                    .await?;
                for record in found {
                    let slots = record.first_slot..record.first_slot + record.count;
                    let payloads = shard.read_slots(record.index, slots).await?;
                    for (place, payload) in payloads.into_iter().enumerate() {
                        let offset = Offset(record.first.0 + place as u64);
                        contents.push((offset, text(&payload)));
                        from = Offset(offset.0 + 1);
                    }
                }
            }
            Ok(contents)
        })
    }

    /// What a queue would deliver, in order.
    fn queue_contents(&self, queue: &Name) -> Vec<String> {
        let shard = self.shard(queue);
        self.runtime.block_on(async {
            let messages = shard
                .read(|records| query::queue_peek(records, queue, ShardTime(0), 10_000))
                .await
                .unwrap();
            let mut contents = Vec::new();
            for message in messages {
                let slot = message.at.slot;
                let payload = shard
                    .read_slots(message.at.index, slot..slot + 1)
                    .await
                    .unwrap();
                contents.push(text(&payload[0]));
            }
            contents
        })
    }

    /// Waits for a condition, looking again and again.
    fn wait_for(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn text(payload: &Bytes) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

fn slots(payloads: &[&str]) -> Vec<Bytes> {
    payloads
        .iter()
        .map(|payload| Bytes::copy_from_slice(payload.as_bytes()))
        .collect()
}

fn settle_command(queue: &Name, session: SessionId, lease: LeaseId, how: Settlement) -> Command {
    Command::Settle {
        queue: queue.clone(),
        session,
        lease,
        which: Selection::All,
        how,
    }
}

pub(crate) fn append_command(topic: &Name, count: usize) -> Command {
    Command::Append {
        topic: topic.clone(),
        count: count as u32,
        dedup: Vec::new(),
    }
}

fn enqueue_command(queue: &Name, count: usize, policy: QueuePolicy) -> Command {
    Command::Enqueue {
        queue: queue.clone(),
        runs: vec![EnqueueRun {
            count: count as u32,
            policy,
            moved: None,
        }],
        dedup: Vec::new(),
    }
}

/// A queue that lies on a given shard.
fn queue_on(shard: ShardId, shards: u32) -> Name {
    (0..)
        .map(|number| Name::queue(&format!("queue-{number}")).unwrap())
        .find(|name| name.shard(shards) == shard)
        .unwrap()
}

fn arc_of<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
