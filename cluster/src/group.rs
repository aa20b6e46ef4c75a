//! One group of this node: its replica, the Raft under it, and the tasks around it.
//!
//! Raft is started and stopped under a group that stays: when disk space ran out and came back, the
//! state is taken back to its last checkpoint and replayed by a new Raft on the reopened log, while
//! handles, observers and batches in flight remain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::query;
use flotilla_model::settings::ShardDefaults;
use flotilla_storage::NodeLog;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::checkpoint::{Checkpointer, checkpoint};
use crate::error::{ClusterError, chain};
use crate::identity::Identity;
use crate::log_store::ShardLog;
use crate::network::NoLinks;
use crate::observer::Role;
use crate::proposer::{Load, Proposer};
use crate::replica::Replica;
use crate::shard::{QUEUE_BATCHES, Shard};
use crate::state_machine::ShardStateMachine;
use crate::types::{Groups, Peer};

pub(crate) type Raft = openraft::Raft<Groups, ShardStateMachine>;

/// For what a fresh leader tells its shard before others are served.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(30);
const ANNOUNCE_PAUSE: Duration = Duration::from_millis(200);

/// What all groups of a node have in common.
#[derive(Clone)]
pub(crate) struct NodeParts {
    pub runtime: Handle,
    pub identity: Identity,
    pub peer: Peer,
    pub log: NodeLog,
    pub defaults: ShardDefaults,
    pub raft: Arc<openraft::Config>,
    /// Entry bytes in flight.
    pub budget: Arc<Semaphore>,
    pub budget_bytes: u64,
    /// Reads of payload from disk.
    pub readers: Arc<Semaphore>,
    pub retention: mpsc::Sender<()>,
}

pub(crate) struct Group {
    pub replica: Arc<Replica>,
    pub shard: Shard,
    raft: watch::Sender<Option<Raft>>,
    node: NodeParts,
    /// It leads, has recovered and has told its shard who is there; or it failed.
    settled: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    /// Follows the Raft that runs now.
    watcher: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Group {
    /// Puts the parts together. Nothing runs on Raft yet.
    pub fn open(replica: Arc<Replica>, node: NodeParts) -> Arc<Self> {
        let raft = watch::Sender::new(None);
        let load = Arc::new(Load::default());
        let (queue, submissions) = mpsc::channel(QUEUE_BATCHES);
        let proposer = Proposer {
            replica: replica.clone(),
            node: node.identity.node,
            incarnation: node.identity.incarnation,
            queue: submissions,
            raft: raft.subscribe(),
            budget: node.budget.clone(),
            budget_bytes: node.budget_bytes,
            load: load.clone(),
            sequence: 0,
        };
        let checkpointer = Checkpointer {
            replica: replica.clone(),
            raft: raft.subscribe(),
            retention: node.retention.clone(),
        };
        let tasks = vec![
            node.runtime.spawn(proposer.run()),
            node.runtime.spawn(checkpointer.run()),
        ];
        let shard = Shard::new(replica.clone(), queue, load, node.readers.clone());
        Arc::new(Self {
            replica,
            shard,
            raft,
            node,
            settled: watch::Sender::new(false),
            tasks: parking_lot::Mutex::new(tasks),
            watcher: parking_lot::Mutex::new(None),
        })
    }

    /// Keeps a task that ends with the group.
    pub fn adopt(&self, task: JoinHandle<()>) {
        self.tasks.lock().push(task);
    }

    /// Starts Raft. An error takes only this group out of service.
    pub async fn start(self: &Arc<Self>) {
        if self.replica.failure().is_some() {
            self.settled.send_replace(true);
            return;
        }
        self.settled.send_replace(false);
        if let Err(error) = self.start_raft().await {
            self.replica.fail(&chain(&error));
            self.settled.send_replace(true);
        }
    }

    async fn start_raft(self: &Arc<Self>) -> Result<(), ClusterError> {
        let group = self.replica.group;
        let state = self.node.log.group_state(group)?;
        if state.suspect {
            tracing::warn!(
                group = group.0,
                "damage to the newest part of the log may have swallowed entries of this group"
            );
        }
        let is_new = state.last.is_none() && state.vote.is_none();
        let raft = Raft::build(
            self.node.identity.node.0,
            self.node.raft.clone(),
            NoLinks,
            ShardLog::new(self.node.log.clone(), group),
            ShardStateMachine::new(self.replica.clone()),
        )
        .await
        .map_err(|error| unavailable(&error))?;
        raft.run();
        if is_new {
            let members = BTreeMap::from([(self.node.identity.node.0, self.node.peer.clone())]);
            match raft.initialize(members).await {
                // Not allowed: it was before, by a start that broke off.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        self.raft.send_replace(Some(raft.clone()));
        let watcher = self.node.runtime.spawn(self.clone().follow_role(raft));
        *self.watcher.lock() = Some(watcher);
        Ok(())
    }

    /// Waits until the group leads and serves, or has failed.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as this group.
        let _ = settled.wait_for(|settled| *settled).await;
    }

    /// Translates Raft's states to roles, until Raft ends.
    async fn follow_role(self: Arc<Self>, raft: Raft) {
        let mut metrics = raft.server_metrics();
        let mut took_over = false;
        loop {
            let leads = metrics.borrow_watched().state == ServerState::Leader;
            if leads && !took_over {
                match self.take_over(&raft).await {
                    Ok(()) => {
                        took_over = true;
                        self.settled.send_replace(true);
                    }
                    Err(error @ (ClusterError::Corrupt { .. } | ClusterError::Storage { .. })) => {
                        self.replica.fail(&chain(&error));
                        break;
                    }
                    Err(error) if raft_failure(&raft).is_none() => {
                        tracing::warn!(group = self.replica.group.0, %error, "could not take over yet");
                        tokio::time::sleep(ANNOUNCE_PAUSE).await;
                        continue;
                    }
                    Err(_) => break,
                }
            } else if !leads && *self.replica.role.borrow() == Role::Leader {
                took_over = false;
                self.replica.set_role(Role::Follower);
            }
            if metrics.changed().await.is_err() {
                break;
            }
        }
        // Raft has ended. Stopped by us it leaves no reason.
        if let Some(reason) = raft_failure(&raft) {
            let reason = self.replica.trouble().unwrap_or(reason);
            self.replica.fail(&reason);
        } else if self.replica.failure().is_none() {
            self.replica.set_role(Role::Follower);
        }
        self.settled.send_replace(true);
    }

    async fn take_over(&self, raft: &Raft) -> Result<(), ClusterError> {
        raft.wait_for_recovery(None)
            .await
            .map_err(|error| unavailable(&error))?;
        let stats = self
            .replica
            .read(|records| query::shard_stats(records))
            .await?;
        self.replica.observe_time(stats.time);
        self.replica.find_next_due().await?;
        self.replica.set_recovered();
        self.replica.set_role(Role::Leader);
        let mut commands = vec![Command::EndOldSessions {
            node: self.node.identity.node,
            incarnation: self.node.identity.incarnation,
        }];
        if *stats.defaults != self.node.defaults {
            commands.push(Command::SetDefaults {
                defaults: self.node.defaults.clone(),
            });
        }
        self.shard
            .propose(commands, Vec::new(), Instant::now() + ANNOUNCE_DEADLINE)
            .await?;
        Ok(())
    }

    /// The Raft that runs now.
    pub fn raft(&self) -> Option<Raft> {
        self.raft.borrow().clone()
    }

    /// Stops Raft, and with it the role. What is in flight has no outcome yet.
    pub async fn stop_raft(&self) {
        let raft = self.raft.send_replace(None);
        // First, and to its end: a late word of it would be taken for one about the next Raft.
        let watcher = self.watcher.lock().take();
        if let Some(watcher) = watcher {
            watcher.abort();
            // An abort is an error here, and the one that is wanted.
            let _ = watcher.await;
        }
        if *self.replica.role.borrow() == Role::Leader {
            self.replica.set_role(Role::Follower);
        }
        if let Some(raft) = raft
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(group = self.replica.group.0, %error, "raft did not end well");
        }
    }

    /// Goes back to the last checkpoint and replays the log from there.
    pub async fn restart(self: &Arc<Self>) -> Result<(), ClusterError> {
        self.stop_raft().await;
        // A checkpoint may be half way: its records are still in memory or already stored.
        let mut unfinished = self.replica.checkpointing.lock().await;
        let between_entries = self.replica.entry_gate.lock().await;
        *unfinished = None;
        self.replica.reset()?;
        self.replica.set_role(Role::Follower);
        drop(between_entries);
        drop(unfinished);
        self.start().await;
        Ok(())
    }

    /// Writes what is applied, so that the next start has nothing to replay.
    pub async fn checkpoint(&self) -> Result<(), ClusterError> {
        checkpoint(&self.replica).await?;
        Ok(())
    }

    /// Ends the tasks, and Raft if it still runs.
    pub fn end(&self) {
        let watcher = self.watcher.lock().take();
        for task in self.tasks.lock().drain(..).chain(watcher) {
            task.abort();
        }
        if let Some(raft) = self.raft.send_replace(None) {
            self.node
                .runtime
                .spawn(async move { raft.shutdown().await });
        }
    }
}

/// Why Raft has stopped by itself.
pub(crate) fn raft_failure(raft: &Raft) -> Option<String> {
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => None,
        Err(error) => Some(chain(error)),
    }
}

fn unavailable(error: &dyn std::error::Error) -> ClusterError {
    ClusterError::Unavailable {
        reason: chain(error),
    }
}
