//! The state of a replica is a function of its log: however often it was checkpointed, taken back,
//! evicted and loaded again.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::*;
use crate::checkpoint::checkpoint;
use crate::codec::log_id;
use crate::config::CheckpointConfig;
use crate::replica::{Replica, ReplicaSettings};
use crate::state_machine::ShardStateMachine;
use crate::time::{ShardClock, SystemTimeSource};
use crate::types::{Batch, Entry};
use flotilla_model::command::{EntryHead, Proposal, Settlement};
use flotilla_model::format::{FEATURE_LEVEL, encode_head};
use flotilla_model::ids::{LogIndex, NodeId, Origin, ShardTime, WallTime};
use flotilla_model::machine::apply_in_memory;
use flotilla_model::records::MemoryRecords;
use flotilla_storage::{Disk, EntryBody, GroupId, LogConfig, LogEntry, NodeLog, RealDisk};
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;

pub(super) const GROUP: GroupId = GroupId(1);

pub(crate) fn open_log(dir: &Path) -> NodeLog {
    open_log_on(Arc::new(RealDisk), dir)
}

pub(crate) fn open_log_on(disk: Arc<dyn Disk>, dir: &Path) -> NodeLog {
    let mut config = LogConfig::new(dir);
    config.segment_bytes = 1 << 20;
    config.reserve_bytes = Some(0);
    NodeLog::open(config, disk).unwrap().0
}

pub(crate) fn open_replica(log: &NodeLog, group: GroupId, clean_bytes_max: u64) -> Arc<Replica> {
    open_replica_up_to(log, group, clean_bytes_max, FEATURE_LEVEL)
}

/// One that follows feature levels up to this.
pub(super) fn open_replica_up_to(
    log: &NodeLog,
    group: GroupId,
    clean_bytes_max: u64,
    level_max: u16,
) -> Arc<Replica> {
    let clock = ShardClock::new(Arc::new(SystemTimeSource::default()));
    let settings = ReplicaSettings {
        level_max,
        clock,
        checkpoint: CheckpointConfig::default(),
        dirty_bytes_max: 32 << 20,
        clean_bytes_max,
        writers: Arc::new(Semaphore::new(1)),
    };
    Replica::open(group, log.clone(), settings)
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append {
        topic: u8,
        count: u8,
    },
    Enqueue {
        queue: u8,
        count: u8,
        delay_ms: u64,
        attempts: u32,
    },
    Lease {
        queue: u8,
        count: u32,
        visibility_ms: Option<u64>,
    },
    Settle {
        queue: u8,
        lease: u64,
        how: u8,
    },
    EndSession,
    /// To a feature level.
    Raise {
        to: u16,
    },
    Delete {
        topic: u8,
    },
    /// A tick.
    Pass {
        ms: u64,
    },
    Checkpoint,
    /// Back to the last checkpoint, then everything after it again.
    Replay,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..40, 1u8..4).prop_map(|(topic, count)| Step::Append { topic, count }),
        4 => (0u8..6, 1u8..5, prop_oneof![Just(0u64), 1u64..3_000], 0u32..3).prop_map(
            |(queue, count, delay_ms, attempts)| Step::Enqueue { queue, count, delay_ms, attempts }
        ),
        3 => (0u8..6, 1u32..6, proptest::option::of(1u64..2_000)).prop_map(
            |(queue, count, visibility_ms)| Step::Lease { queue, count, visibility_ms }
        ),
        2 => (0u8..6, 1u64..6, 0u8..5).prop_map(|(queue, lease, how)| Step::Settle { queue, lease, how }),
        1 => Just(Step::EndSession),
        1 => (1..=FEATURE_LEVEL).prop_map(|to| Step::Raise { to }),
        1 => (0u8..40).prop_map(|topic| Step::Delete { topic }),
        2 => (0u64..2_000).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Replay),
    ]
}

fn queue_name(queue: u8) -> Name {
    Name::queue(&format!("queue-{queue}")).unwrap()
}

pub(super) fn topic_name(topic: u8) -> Name {
    Name::topic(&format!("topic-{topic}")).unwrap()
}

fn session() -> SessionId {
    SessionId {
        node: NodeId(1),
        incarnation: 1,
        number: 1,
    }
}

/// The command of a step, with the payloads that it takes.
fn command_of(step: &Step) -> Option<(Command, usize)> {
    Some(match step {
        Step::Append { topic, count } => {
            let count = usize::from(*count);
            (append_command(&topic_name(*topic), count), count)
        }
        Step::Enqueue {
            queue,
            count,
            delay_ms,
            attempts,
        } => {
            let policy = QueuePolicy {
                delay_ms: *delay_ms,
                receive_count_max: *attempts,
                dead_letter: Some(queue_name(queue.wrapping_add(1) % 6)),
                ..QueuePolicy::default()
            };
            let count = usize::from(*count);
            (enqueue_command(&queue_name(*queue), count, policy), count)
        }
        Step::Lease {
            queue,
            count,
            visibility_ms,
        } => {
            let lease = Command::Lease {
                queue: queue_name(*queue),
                session: session(),
                messages_max: *count,
                bytes_max: 1 << 20,
                visibility_ms: *visibility_ms,
            };
            (lease, 0)
        }
        Step::Settle { queue, lease, how } => {
            let how = match how {
                0 => Settlement::Ack,
                1 => Settlement::Return,
                2 => Settlement::Release,
                3 => Settlement::Withdraw { pause_ms: 0 },
                _ => Settlement::Postpone { pause_ms: 700 },
            };
            let settle = settle_command(&queue_name(*queue), session(), LeaseId(*lease), how);
            (settle, 0)
        }
        Step::EndSession => (Command::EndSession { session: session() }, 0),
        Step::Raise { to } => (Command::RaiseFeatureLevel { to: *to }, 0),
        Step::Delete { topic } => {
            let name = topic_name(*topic);
            (Command::Delete { name }, 0)
        }
        Step::Pass { .. } | Step::Checkpoint | Step::Replay => return None,
    })
}

/// A replica fed by hand, and the same entries in plain memory.
pub(super) struct Twin {
    pub replica: Arc<Replica>,
    pub machine: ShardStateMachine,
    pub memory: MemoryRecords,
    pub entries: Vec<Entry>,
    now_ms: u64,
    sequence: u64,
}

impl Twin {
    pub fn new(log: &NodeLog, clean_bytes_max: u64) -> Self {
        let replica = open_replica(log, GROUP, clean_bytes_max);
        Self {
            machine: ShardStateMachine::new(replica.clone()),
            replica,
            memory: MemoryRecords::default(),
            entries: Vec::new(),
            now_ms: 1_000,
            sequence: 0,
        }
    }

    pub fn entry(&mut self, commands: Vec<Command>, slot_count: usize) -> (Entry, EntryHead) {
        let index = self.entries.len() as u64 + 1;
        let proposals = if commands.is_empty() {
            Vec::new()
        } else {
            self.sequence += 1;
            vec![Proposal {
                origin: Origin::Node {
                    node: NodeId(1),
                    incarnation: 1,
                },
                sequence: self.sequence,
                first_slot: 0,
                commands,
            }]
        };
        let head = EntryHead {
            now: ShardTime(self.now_ms),
            wall: WallTime(self.now_ms * 1_000_000),
            proposals,
        };
        let payloads = (0..slot_count).map(|slot| Bytes::from(format!("payload {index} {slot}")));
        let body = EntryBody::builder()
            .head(encode_head(&head))
            .slots(payloads)
            .build()
            .unwrap();
        let entry = Entry {
            log_id: log_id(index, 1, 1),
            payload: EntryPayload::Normal(Batch(body)),
        };
        (entry, head)
    }

    pub async fn run(&mut self, step: &Step, log: &NodeLog) {
        match step {
            Step::Checkpoint => {
                checkpoint(&self.replica).await.unwrap();
            }
            Step::Replay => {
                self.replica.reset().unwrap();
                self.machine = ShardStateMachine::new(self.replica.clone());
                self.apply_missing().await;
            }
            step => {
                if let Step::Pass { ms } = step {
                    self.now_ms += ms;
                }
                let (commands, slot_count) = match command_of(step) {
                    Some((command, slot_count)) => (vec![command], slot_count),
                    None => (Vec::new(), 0),
                };
                let (entry, head) = self.entry(commands, slot_count);
                self.append(log, &entry);
                let EntryPayload::Normal(Batch(body)) = &entry.payload else {
                    unreachable!("entries of this test are batches")
                };
                let slot_bytes = (0..body.slot_count())
                    .map(|slot| body.slot_len(slot))
                    .collect();
                let index = LogIndex(entry.log_id.index);
                apply_in_memory(ShardId(GROUP.0), index, head, slot_bytes, &mut self.memory);
                self.entries.push(entry);
                self.apply_missing().await;
            }
        }
    }

    fn append(&self, log: &NodeLog, entry: &Entry) {
        let LogEntry { index, .. } = {
            let entry = crate::codec::to_log_entry(entry.clone()).unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            log.append(
                GROUP,
                vec![entry.clone()],
                Box::new(move |outcome| sender.send(outcome.is_ok()).unwrap()),
            );
            assert!(receiver.recv().unwrap());
            entry
        };
        assert_eq!(index, entry.log_id.index);
    }

    /// Applies what the replica does not have, as Raft does after a start.
    pub async fn apply_missing(&mut self) {
        let (applied, _) = self.machine.applied_state().await.unwrap();
        let from = applied.map_or(0, |log_id| log_id.index as usize);
        let rest: Vec<_> = self.entries[from..]
            .iter()
            .map(|entry| Ok((entry.clone(), None)))
            .collect();
        self.machine
            .apply(futures::stream::iter(rest))
            .await
            .unwrap();
    }
}

/// All records that there are, encoded.
pub(super) fn records_of(memory: &MemoryRecords) -> BTreeMap<Vec<u8>, Vec<u8>> {
    memory
        .iter()
        .map(|(key, record)| (key.encode(), record.encode()))
        .collect()
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With a cache that holds next to nothing, and with one that holds everything.
    #[test]
    fn state_does_not_depend_on_caches_checkpoints_or_replays(
        steps in vec(step(), 1..120),
        tiny in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let runtime = runtime();
        runtime.block_on(async {
            let mut twin = Twin::new(&log, if tiny { 600 } else { 1 << 24 });
            for step in &steps {
                twin.run(step, &log).await;
            }
            let expected = records_of(&twin.memory);
            prop_assert_eq!(twin.replica.state.all_records(), expected.clone());
            // And from the disk alone.
            checkpoint(&twin.replica).await.unwrap();
            let reopened = open_replica(&log, GROUP, 1 << 20);
            prop_assert_eq!(reopened.state.all_records(), expected);
            Ok(())
        })?;
        drop(log);
    }
}

/// A load that began before a checkpoint ended must not bring back what was before it.
#[test]
fn readers_beside_writers_and_checkpoints_never_see_an_old_version() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut twin = Twin::new(&log, 1);
        let replica = twin.replica.clone();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let reader = tokio::spawn({
            let (replica, stop) = (replica.clone(), stop.clone());
            async move {
                let topic = topic_name(1);
                let (mut seen, mut reads) = (0, 0u64);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let info = replica
                        .read(|records| query::topic_info(records, &topic))
                        .await
                        .unwrap();
                    let next = info.map_or(0, |info| info.next.0);
                    assert!(next >= seen, "{next} after {seen}");
                    (seen, reads) = (next, reads + 1);
                }
                reads
            }
        });
        let checkpointer = tokio::spawn({
            let (replica, stop) = (replica.clone(), stop.clone());
            async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    checkpoint(&replica).await.unwrap();
                }
            }
        });
        for number in 0..400u64 {
            let topic = if number % 2 == 0 {
                1
            } else {
                (number % 200) as u8
            };
            let step = Step::Append { topic, count: 1 };
            twin.run(&step, &log).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.await.unwrap() > 0);
        checkpointer.await.unwrap();
        assert_eq!(replica.state.all_records(), records_of(&twin.memory));
    });
}

#[test]
fn an_entry_that_cannot_be_understood_stops_its_group_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    runtime().block_on(async {
        let mut twin = Twin::new(&log, 1 << 20);
        twin.run(&Step::Append { topic: 1, count: 1 }, &log).await;
        let body = EntryBody::builder()
            .head(Bytes::from_static(b"\xffnot a head"))
            .build()
            .unwrap();
        let entry = Entry {
            log_id: log_id(2, 1, 1),
            payload: EntryPayload::Normal(Batch(body)),
        };
        let outcome = twin
            .machine
            .apply(futures::stream::iter([Ok((entry, None))]))
            .await;
        assert!(outcome.is_err());
        let reason = twin.replica.failure().unwrap();
        assert!(reason.contains("entry 2"), "{reason}");
    });
}
