//! A shard as the floors above see it: propose, read, watch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::command::{Command, ENTRY_COMMANDS_MAX};
use flotilla_model::ids::{LogIndex, NodeId, Origin, ShardId, ShardTime, WallTime};
use flotilla_model::outcome::Outcome;
use flotilla_model::records::{NeedsKeys, Records};
use flotilla_storage::{ENTRY_BYTES_MAX, StorageError};
use openraft::ReadPolicy;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::blocking::blocking;
use crate::config::INFLIGHT_ENTRIES;
use crate::error::ClusterError;
use crate::group::NodeParts;
use crate::leadership::Lead;
use crate::mending::{Elsewhere, read_elsewhere};
use crate::net::Peers;
use crate::observer::{Observer, Role};
use crate::pending::{ForeignProposal, From, Outcomes, Submission};
use crate::proposer::Load;
use crate::replica::{Counters, Replica};
use crate::state::Pins;

/// Batches that wait for a place in flight. Those beyond wait with their senders.
pub(crate) const QUEUE_BATCHES: usize = 16;
/// Leaves room for the head and the table of an entry.
const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;

/// A leader that cannot reach the others for this long is none any more.
const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(1);

/// A handle of one shard's replica on this node. Clones are the same shard.
#[derive(Clone)]
pub struct Shard {
    replica: Arc<Replica>,
    queue: mpsc::Sender<Submission>,
    load: Arc<Load>,
    lead: watch::Receiver<Option<Lead>>,
    readers: Arc<Semaphore>,
    /// This node, and the ways to the others.
    own: NodeId,
    peers: Peers,
}

impl Shard {
    pub(crate) fn new(
        replica: Arc<Replica>,
        queue: mpsc::Sender<Submission>,
        load: Arc<Load>,
        lead: watch::Receiver<Option<Lead>>,
        node: &NodeParts,
    ) -> Self {
        Self {
            replica,
            queue,
            load,
            lead,
            readers: node.readers.clone(),
            own: node.identity.node,
            peers: node.links.peers(),
        }
    }

    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.replica.shard
    }

    /// Whether this node leads it, has applied everything before, and takes commands.
    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// The node that leads it, if that is known: this one once it takes commands.
    pub fn leader(&self) -> Option<NodeId> {
        *self.replica.leader.borrow()
    }

    /// Tells of every change of the leader.
    pub fn leader_changes(&self) -> watch::Receiver<Option<NodeId>> {
        self.replica.leader.subscribe()
    }

    /// Makes sure that this node leads the shard at this moment and has applied all that any node was
    /// told was applied: what is read after this is the latest. Costs a round of messages: a lease would
    /// spare it, but a voter that was just started again has forgotten what it granted.
    pub async fn confirm_leadership(&self) -> Result<(), ClusterError> {
        let lead = self.lead.borrow().clone();
        let not_leader = || ClusterError::NotLeader {
            hint: self.leader(),
        };
        let lead = lead.ok_or_else(not_leader)?;
        let confirmed = lead.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(CONFIRM_WAIT_MAX, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(not_leader()),
        }
    }

    /// The feature level that the shard has by now, as far as this node has applied its log. It never falls.
    pub fn feature_level(&self) -> u16 {
        self.replica.feature_level()
    }

    /// What this node is to the shard.
    pub fn role(&self) -> Role {
        *self.replica.role.borrow()
    }

    /// Places among the entries in flight: while there is none, gather more for the next batch.
    pub fn permits(&self) -> usize {
        INFLIGHT_ENTRIES.saturating_sub(self.load.batches.load(Ordering::Relaxed))
    }

    /// Puts commands into the shard's log as one entry, and answers with one outcome per command once
    /// they are applied. Any node will do: the leader is found, and found again when it changes.
    ///
    /// `slots` are the payloads that the commands take, in their order. The batch is applied once,
    /// however often it must be repeated, and that goes on when the caller stops waiting: a dropped
    /// future or a passed deadline cancels only what is certainly not in the log. Calls are applied in
    /// the order in which they were first polled, as long as at most 16 wait.
    pub async fn propose(
        &self,
        commands: Vec<Command>,
        slots: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Arc<[Outcome]>, ClusterError> {
        self.check(&commands, &slots)?;
        let from = From::Node { sequence: None };
        let outcomes = self.submit(from, commands, slots, deadline).await?;
        first_of(outcomes)
    }

    /// The same under an origin that numbers its batches itself; see [`Origin`].
    pub async fn propose_from(
        &self,
        origin: Origin,
        sequence: u64,
        commands: Vec<Command>,
        slots: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Arc<[Outcome]>, ClusterError> {
        self.check(&commands, &slots)?;
        let proposal = ForeignProposal {
            origin,
            sequence,
            commands,
            slot_count: u32::try_from(slots.len()).unwrap_or(u32::MAX),
        };
        let outcomes = self
            .propose_foreign(vec![proposal], slots, deadline)
            .await?;
        first_of(outcomes)
    }

    pub(crate) async fn propose_foreign(
        &self,
        proposals: Vec<ForeignProposal>,
        slots: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Outcomes, ClusterError> {
        self.submit(From::Elsewhere(proposals), Vec::new(), slots, deadline)
            .await
    }

    fn check(&self, commands: &[Command], slots: &[Bytes]) -> Result<(), ClusterError> {
        let invalid = |what: String| Err(ClusterError::Invalid { what });
        if commands.is_empty() || commands.len() > ENTRY_COMMANDS_MAX {
            return invalid(format!(
                "{} commands, 1 to {ENTRY_COMMANDS_MAX} make a batch",
                commands.len()
            ));
        }
        let taken = commands.iter().fold(0, |taken: u64, command| {
            taken.saturating_add(command.slot_count())
        });
        if taken != slots.len() as u64 {
            return invalid(format!(
                "the commands take {taken} slots, {} are given",
                slots.len()
            ));
        }
        self.replica.check_commands(commands.iter())?;
        let bytes: usize = slots.iter().map(Bytes::len).sum();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(ClusterError::TooLarge {
                bytes: bytes as u64,
                bytes_max: PAYLOAD_BYTES_MAX as u64,
            });
        }
        // Settlements and the like go on when the disk is full: they make room. Where another node leads,
        // that is where room is needed first, and it says so itself.
        if taken > 0 && self.is_leader() {
            self.admit(bytes as u64)?;
        }
        Ok(())
    }

    fn admit(&self, bytes: u64) -> Result<(), ClusterError> {
        match self.replica.log.admission(bytes) {
            Ok(()) => Ok(()),
            Err(StorageError::Failed { reason } | StorageError::FullWaiting { reason }) => {
                Err(ClusterError::Unavailable { reason })
            }
            Err(StorageError::Closed) => Err(ClusterError::Stopped),
            Err(error) => Err(ClusterError::from(error)),
        }
    }

    async fn submit(
        &self,
        from: From,
        commands: Vec<Command>,
        slots: Vec<Bytes>,
        deadline: Instant,
    ) -> Result<Outcomes, ClusterError> {
        self.check_serving()?;
        let counters = &self.replica.counters;
        Counters::add(&counters.proposals, 1);
        Counters::add(&counters.commands, commands.len() as u64);
        let (reply, answer) = oneshot::channel();
        let submission = Submission {
            from,
            commands,
            slots,
            deadline,
            reply,
        };
        let place = tokio::time::timeout_at(deadline.into(), self.queue.reserve()).await;
        match place {
            Ok(Ok(place)) => {
                self.load.batches.fetch_add(1, Ordering::Relaxed);
                place.send(submission);
            }
            Ok(Err(_)) => return Err(ClusterError::Stopped),
            Err(_) => return Err(ClusterError::Busy),
        }
        let unknown = || ClusterError::OutcomeUnknown {
            reason: "the node is shutting down".to_owned(),
        };
        // The proposer answers at the deadline at the latest; if it is gone, so is the node.
        if self.queue.is_closed() {
            // What is sent in the very moment in which it goes may stay in the queue.
            return Err(unknown());
        }
        answer.await.unwrap_or_else(|_| Err(unknown()))
    }

    /// Refuses at once what a stopped group could only let time out.
    fn check_serving(&self) -> Result<(), ClusterError> {
        match self.replica.trouble() {
            // Another node may lead, or come to lead.
            Some(_) if self.leader().is_some() && !self.replica.is_alone() => Ok(()),
            Some(reason) => Err(ClusterError::Unavailable { reason }),
            None => Ok(()),
        }
    }

    /// Runs a query on the applied state. Records that are not in memory are loaded, and the query is
    /// run again: it must not have effects.
    pub async fn read<T>(
        &self,
        query: impl Fn(&dyn Records) -> Result<T, NeedsKeys> + Send,
    ) -> Result<T, ClusterError> {
        self.check_recovered()?;
        self.replica.read(query).await
    }

    /// The same without waiting: `None` if a record is not in memory.
    pub fn read_now<T>(
        &self,
        query: impl Fn(&dyn Records) -> Result<T, NeedsKeys>,
    ) -> Result<Option<T>, ClusterError> {
        self.check_recovered()?;
        Ok(self.replica.state.query(&mut Pins::default(), query).ok())
    }

    fn check_recovered(&self) -> Result<(), ClusterError> {
        // A group that stopped serving still answers for what it had applied.
        if self.replica.is_recovered() {
            return Ok(());
        }
        Err(ClusterError::Unavailable {
            reason: self
                .replica
                .failure()
                .unwrap_or_else(|| "the shard has not recovered yet".to_owned()),
        })
    }

    /// Payloads of an entry, checked, once the entry is applied here. What is in memory is answered at
    /// once; the disk is read on a bounded number of threads. What is damaged here is read from another
    /// node that holds the shard: it is told to be corrupt only if it is so on all of them, and to be unread
    /// if one of them did not answer.
    pub async fn read_slots(
        &self,
        index: LogIndex,
        slots: Range<u32>,
    ) -> Result<Vec<Bytes>, ClusterError> {
        let (shard, what) = match self.read_here(index, slots.clone()).await {
            Err(ClusterError::Corrupt { shard, what }) => (shard, what),
            outcome => return outcome,
        };
        let (peers, replica) = (&self.peers, &self.replica);
        match read_elsewhere(peers, self.own, replica, index, slots).await {
            Elsewhere::Found(messages) => Ok(messages),
            Elsewhere::Nowhere => Err(ClusterError::Corrupt { shard, what }),
            Elsewhere::Unknown { reason } => Err(ClusterError::Unread {
                shard,
                what,
                reason,
            }),
        }
    }

    async fn read_here(
        &self,
        index: LogIndex,
        slots: Range<u32>,
    ) -> Result<Vec<Bytes>, ClusterError> {
        let replica = &self.replica;
        replica.wait_until_applied(index.0).await?;
        let (log, group, shard) = (replica.log.clone(), replica.group, replica.shard);
        let cached = log.is_cached(group, index.0);
        let read = move || {
            log.read_slots(group, index.0, slots)
                .map_err(|error| ClusterError::of_read(shard, error))
        };
        if cached {
            return read();
        }
        let _reader = self
            .readers
            .acquire()
            .await
            .map_err(|_| ClusterError::Stopped)?;
        blocking("reading messages", read).await
    }

    /// Shard time now, as the next entry would carry it.
    pub fn now(&self) -> ShardTime {
        self.replica.clock.now()
    }

    /// The wall time that goes with a shard time, for display.
    pub fn wall_at(&self, at: ShardTime) -> WallTime {
        self.replica.clock.wall_at(at)
    }

    /// Has an observer told of what is applied from now on, as long as the node runs.
    pub fn watch(&self, observer: Arc<dyn Observer>) {
        self.replica.watch(observer);
    }
}

fn first_of(outcomes: Outcomes) -> Result<Arc<[Outcome]>, ClusterError> {
    outcomes
        .into_iter()
        .next()
        .ok_or_else(|| ClusterError::OutcomeUnknown {
            reason: "the entry was applied without an outcome".to_owned(),
        })
}
