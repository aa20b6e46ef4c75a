//! One group of this node: its replica, the Raft under it, and the tasks around it.
//!
//! Raft is started and stopped under a group that stays: when disk space ran out and came back, the
//! state is taken back to its last checkpoint and replayed by a new Raft on the reopened log, while
//! handles, observers and batches in flight remain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_model::settings::ShardDefaults;
use flotilla_raft::Raft;
use flotilla_storage::NodeLog;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use tokio::runtime::Handle;
use tokio::sync::{MutexGuard, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::checkpoint::{Checkpointer, Frozen, checkpoint};
use crate::error::{ClusterError, chain};
use crate::handover::Leadership;
use crate::identity::Identity;
use crate::intake::Entrance;
use crate::leadership::Lead;
use crate::log_store::ShardLog;
use crate::net::Links;
use crate::observer::Role;
use crate::presence::Board;
use crate::proposer::{Load, Proposer};
use crate::replica::Replica;
use crate::shard::{QUEUE_BATCHES, Shard};
use crate::state_machine::ShardStateMachine;
use crate::types::Peer;

/// What all groups of a node have in common.
#[derive(Clone)]
pub(crate) struct NodeParts {
    pub runtime: Handle,
    pub identity: Identity,
    pub links: Links,
    pub board: Arc<Board>,
    /// The voters that a new group begins with, on a node that forms the cluster. Any other node's
    /// groups wait for a leader to find them.
    pub initial: Option<BTreeMap<u64, Peer>>,
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
    /// Whose turn it is to stop Raft and to start it. Several parts of a node do that: two at once would
    /// each start one, and the first would run on unseen and take part in the group under this node's name.
    turn: tokio::sync::Mutex<()>,
    /// Set while this node leads and takes entries.
    pub(crate) lead: watch::Sender<Option<Lead>>,
    pub(crate) leadership: parking_lot::Mutex<Leadership>,
    pub(crate) node: NodeParts,
    /// Whether a leader is known, which has told its shard who is there if it is this node; or the
    /// group failed.
    pub(crate) settled: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    /// Follows the Raft that runs now.
    watcher: parking_lot::Mutex<Option<JoinHandle<()>>>,
    /// The node has ended: Raft is not started any more.
    is_over: AtomicBool,
}

impl Group {
    /// Puts the parts together. Nothing runs on Raft yet.
    pub fn open(replica: Arc<Replica>, node: NodeParts) -> Arc<Self> {
        let raft = watch::Sender::new(None);
        let lead = watch::Sender::new(None);
        let load = Arc::new(Load::default());
        let (queue, submissions) = mpsc::channel(QUEUE_BATCHES);
        let proposer = Proposer {
            replica: replica.clone(),
            node: node.identity.node,
            incarnation: node.identity.incarnation,
            queue: submissions,
            lead: lead.subscribe(),
            peers: node.links.peers(),
            budget: node.budget.clone(),
            budget_bytes: node.budget_bytes,
            load: load.clone(),
            sequence: 0,
        };
        let checkpointer = Checkpointer {
            replica: replica.clone(),
            raft: raft.subscribe(),
            retention: node.retention.clone(),
            keeps_log: false,
        };
        let tasks = vec![
            node.runtime.spawn(proposer.run()),
            node.runtime.spawn(checkpointer.run()),
        ];
        let shard = Shard::new(replica.clone(), queue, load, lead.subscribe(), &node);
        Arc::new(Self {
            replica,
            shard,
            raft,
            turn: tokio::sync::Mutex::new(()),
            lead,
            leadership: parking_lot::Mutex::default(),
            node,
            settled: watch::Sender::new(false),
            tasks: parking_lot::Mutex::new(tasks),
            watcher: parking_lot::Mutex::new(None),
            is_over: AtomicBool::new(false),
        })
    }

    /// Keeps a task that ends with the group.
    pub fn adopt(&self, task: JoinHandle<()>) {
        self.tasks.lock().push(task);
    }

    /// Starts Raft. An error takes only this group out of service.
    pub async fn start(self: &Arc<Self>) {
        let turn = self.turn.lock().await;
        self.start_in(&turn).await;
    }

    async fn start_in(self: &Arc<Self>, _turn: &MutexGuard<'_, ()>) {
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        if self.replica.failure().is_some() {
            self.settled.send_replace(true);
            return;
        }
        self.settled.send_replace(false);
        let started = match self.is_vacant() {
            Ok(false) => self.start_raft().await,
            Ok(true) => {
                // There is nothing to wait for: others hold it.
                self.settled.send_replace(true);
                self.finish_vacating().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            self.replica.fail(&chain(&error));
            self.settled.send_replace(true);
        }
    }

    async fn start_raft(self: &Arc<Self>) -> Result<(), ClusterError> {
        let group = self.replica.group;
        let state = self.node.log.group_state(group)?;
        if state.suspect {
            let applied = self.replica.progress.lock().applied.clone();
            if applied.membership.membership().voter_ids().count() > 1 {
                // Its vote would count for entries that it may have lost. The others have them.
                return Err(ClusterError::Unavailable {
                    reason:
                        "damage to the newest part of the log may have swallowed entries that this \
                             node acknowledged: it takes no part before it has them from the others"
                            .to_owned(),
                });
            }
            tracing::warn!(
                group = group.0,
                "damage to the newest part of the log may have swallowed entries of this group"
            );
        }
        let is_new = state.last.is_none() && state.vote.is_none();
        let id = self.node.identity.node.0;
        let raft = flotilla_raft::build(
            id,
            self.node.raft.clone(),
            self.node.links.network(group),
            ShardLog::new(self.node.log.clone(), group),
            ShardStateMachine::new(self.replica.clone()),
        )
        .await
        .map_err(|error| unavailable(&error))?;
        // Before it runs: a peer must not find half a group.
        let links = &self.node.links;
        links.attach_group(group, raft.clone(), self.replica.clone());
        let other = self.raft.send_replace(Some(raft.clone()));
        assert!(other.is_none(), "a group runs one Raft");
        raft.run();
        if is_new && let Some(members) = self.node.initial.clone() {
            match raft.initialize(members).await {
                // Not allowed: it was before, by a start that broke off, or the leader came first.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
        let watcher = self.node.runtime.spawn(self.clone().follow_role(raft));
        *self.watcher.lock() = Some(watcher);
        Ok(())
    }

    /// Waits until a leader is known, which serves if it is this node, or the group has failed.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        let mut leader = self.replica.leader.subscribe();
        let own = self.node.identity.node;
        // The senders live as long as this group.
        tokio::select! {
            _ = settled.wait_for(|settled| *settled) => {}
            _ = leader.wait_for(|leader| leader.is_some_and(|node| node != own)) => {}
        }
    }

    /// Where batches of other nodes come in.
    pub fn entrance(&self) -> Entrance {
        Entrance {
            replica: self.replica.clone(),
            lead: self.lead.subscribe(),
        }
    }

    /// The Raft that runs now.
    pub fn raft(&self) -> Option<Raft> {
        self.raft.borrow().clone()
    }

    /// Waits until no Raft runs.
    pub async fn stopped(&self) {
        let mut raft = self.raft.subscribe();
        // The sender lives as long as this group.
        let _ = raft.wait_for(Option::is_none).await;
    }

    /// Stops Raft, and with it the role. What is in flight has no outcome yet.
    pub async fn stop_raft(&self) {
        self.stop().await;
    }

    /// The same, and nobody starts it meanwhile but whoever has what this gives.
    pub(crate) async fn stop(&self) -> Stopped<'_> {
        let turn = self.turn.lock().await;
        self.stop_in(turn).await
    }

    /// Stops Raft if the group is out of service here.
    pub async fn stop_failed(&self) {
        if self.replica.failure().is_none() || self.raft().is_none() {
            return;
        }
        let turn = self.turn.lock().await;
        // Whoever had it until now may have brought the group back.
        if self.replica.failure().is_some() {
            self.stop_in(turn).await;
        }
    }

    async fn stop_in<'a>(&self, turn: MutexGuard<'a, ()>) -> Stopped<'a> {
        let raft = self.raft.send_replace(None);
        let was_running = raft.is_some();
        // First, and to its end: a late word of it would be taken for one about the next Raft.
        let watcher = self.watcher.lock().take();
        if let Some(watcher) = watcher {
            watcher.abort();
            // An abort is an error here, and the one that is wanted.
            let _ = watcher.await;
        }
        self.step_down();
        self.replica.hear_of_leader(|view| view.raft(0, None));
        self.node.links.detach_group(self.replica.group);
        if let Some(raft) = raft
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(group = self.replica.group.0, %error, "raft did not end well");
        }
        Stopped {
            turn,
            run: self.replica.epoch(),
            was_running,
        }
    }

    /// Goes back to the last checkpoint and replays the log from there.
    pub async fn restart(self: &Arc<Self>) -> Result<(), ClusterError> {
        let stopped = self.stop().await;
        let between = self.halt().await;
        self.begin_anew(stopped, between).await
    }

    /// Keeps checkpoints and entries away.
    pub(crate) async fn halt(&self) -> Halt<'_> {
        // In this order everywhere: no checkpoint, then no entry.
        Halt {
            unfinished: self.replica.checkpointing.lock().await,
            _between_entries: self.replica.entry_gate.lock().await,
        }
    }

    /// Starts Raft on what is stored. What was in memory is forgotten, and so is a checkpoint that is half
    /// way: its records are still in memory or already stored.
    pub(crate) async fn begin_anew(
        self: &Arc<Self>,
        stopped: Stopped<'_>,
        mut halt: Halt<'_>,
    ) -> Result<(), ClusterError> {
        *halt.unfinished = None;
        self.replica.reset()?;
        self.replica.set_role(Role::Follower);
        drop(halt);
        self.start_in(&stopped.turn).await;
        Ok(())
    }

    /// Writes what is applied, so that the next start has nothing to replay.
    pub async fn checkpoint(&self) -> Result<(), ClusterError> {
        checkpoint(&self.replica).await?;
        Ok(())
    }

    /// Ends the tasks, and Raft if it still runs.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        let watcher = self.watcher.lock().take();
        for task in self.tasks.lock().drain(..).chain(watcher) {
            task.abort();
        }
        self.node.links.detach_group(self.replica.group);
        // It holds Raft, which holds the replica.
        self.step_down();
        if let Some(raft) = self.raft.send_replace(None) {
            self.node
                .runtime
                .spawn(async move { raft.shutdown().await });
        }
    }
}

/// While it is held, no Raft of a group runs, and none is started.
pub(crate) struct Stopped<'a> {
    turn: MutexGuard<'a, ()>,
    /// Which one ran last: see [`Replica::epoch`].
    pub run: u64,
    /// Whether it ran until now.
    pub was_running: bool,
}

/// While it is held, a group makes no checkpoint and applies no entry.
pub(crate) struct Halt<'a> {
    unfinished: MutexGuard<'a, Option<Frozen>>,
    _between_entries: MutexGuard<'a, ()>,
}

/// Why Raft has stopped by itself.
pub(crate) fn raft_failure(raft: &Raft) -> Option<String> {
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) | Err(openraft::errors::Fatal::Stopped) => None,
        Err(error) => Some(chain(error)),
    }
}

/// Whether a Raft that is over has left no reason: its task has panicked.
pub(crate) fn raft_vanished(raft: &Raft) -> bool {
    raft.metrics().borrow_watched().running_state.is_ok()
}

pub(crate) fn unavailable(error: &dyn std::error::Error) -> ClusterError {
    ClusterError::Unavailable {
        reason: chain(error),
    }
}
