//! What this node is to a group: translates Raft's states to roles.
//!
//! ```text
//!   Raft leads --> all before is applied --> clock taken over --> Role::Leader --> announcements
//!              <-- Raft does not lead in this term any more: Role::Follower, at once
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardTime};
use flotilla_model::query;
use flotilla_raft::Raft;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::vote::RaftLeaderId;
use tokio::task::JoinHandle;

use crate::error::{ClusterError, chain};
use crate::group::{Group, raft_failure, raft_vanished, unavailable};
use crate::leadership::Lead;
use crate::observer::Role;
use crate::presence::{ToldTime, ask_for_time, lower_median_us, median_us};
use crate::time::time_at_take_over;
use crate::types::Groups;

/// What is said of a Raft whose task ended without a word.
const PANICKED: &str = "Raft has panicked here: the log of the node says where";
/// For what a fresh leader tells its shard before others are served.
const ANNOUNCE_DEADLINE: Duration = Duration::from_secs(30);
/// After something that a leader must do did not succeed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(crate) type LeaderId = openraft::alias::CommittedLeaderIdOf<Groups>;

/// What matters here of Raft's metrics.
#[derive(Clone, PartialEq)]
pub(crate) struct Standing {
    /// The leadership, if it is this node's.
    pub leads: Option<LeaderId>,
    term: u64,
    /// Another node that does.
    pub leader: Option<NodeId>,
    state: ServerState,
    is_voter: bool,
    /// No other node is in the group.
    alone: bool,
}

impl Standing {
    pub fn of(raft: &Raft) -> Self {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let leads = (metrics.state == ServerState::Leader && metrics.vote.is_committed())
            .then(|| metrics.vote.leader_id().to_committed());
        let membership = metrics.membership_config.membership();
        let mut nodes = membership.nodes().map(|(id, _)| *id);
        let mut voters = membership.voter_ids();
        let leader = metrics.current_leader.filter(|id| *id != metrics.id);
        Self {
            leads,
            term: metrics.vote.leader_id().term,
            leader: leader.map(NodeId),
            state: metrics.state,
            is_voter: voters.any(|id| id == metrics.id),
            alone: nodes.next() == Some(metrics.id) && nodes.next().is_none(),
        }
    }
}

impl Group {
    /// Translates Raft's states to roles, until Raft ends.
    pub(crate) async fn follow_role(self: Arc<Self>, raft: Raft) {
        let recovery = self.node.runtime.spawn(self.clone().recover(raft.clone()));
        let _recovery = AbortOnDrop(recovery);
        let mut announcing: Option<AbortOnDrop> = None;
        let mut led = None;
        let mut has_vanished = false;
        let mut metrics = raft.server_metrics();
        loop {
            let now = Standing::of(&raft);
            self.set_pace(&raft, &now).await;
            if led.is_some() && led != now.leads {
                led = None;
                announcing = None;
                self.step_down();
            }
            match now.leads {
                Some(id) if led.is_none() => {
                    self.replica
                        .hear_of_leader(|view| view.raft(now.term, None));
                    let taken = tokio::select! {
                        taken = self.take_over(&raft, id) => taken,
                        () = over(&raft, id) => continue,
                    };
                    match taken {
                        Ok(()) => {
                            led = Some(id);
                            let announce = self.clone().announce();
                            announcing = Some(AbortOnDrop(self.node.runtime.spawn(announce)));
                            let own = self.node.identity.node;
                            self.replica
                                .hear_of_leader(|view| view.raft(now.term, Some(own)));
                            continue;
                        }
                        Err(
                            error @ (ClusterError::Corrupt { .. } | ClusterError::Storage { .. }),
                        ) => {
                            self.replica.fail(&chain(&error));
                            break;
                        }
                        Err(error) if raft_failure(&raft).is_none() => {
                            tracing::warn!(group = self.replica.group.0, %error, "could not take over yet");
                            tokio::time::sleep(RETRY_PAUSE).await;
                            if raft.with_raft_state(|_| ()).await.is_err() {
                                has_vanished = raft_vanished(&raft);
                                break;
                            }
                            continue;
                        }
                        Err(_) => break,
                    }
                }
                Some(_) => {}
                None => self
                    .replica
                    .hear_of_leader(|view| view.raft(now.term, now.leader)),
            }
            if metrics.changed().await.is_err() {
                has_vanished = raft_vanished(&raft);
                break;
            }
        }
        drop(announcing);
        self.step_down();
        self.replica.hear_of_leader(|view| view.raft(0, None));
        // Raft has ended. Stopped by us it leaves no reason.
        let failure = raft_failure(&raft);
        let failure = failure.or_else(|| has_vanished.then(|| PANICKED.to_owned()));
        if let Some(reason) = failure {
            let reason = self.replica.trouble().unwrap_or(reason);
            self.replica.fail(&reason);
        }
        self.settled.send_replace(true);
    }

    /// The clock of Raft drives heartbeats and elections. A node alone in its group has no one to send
    /// heartbeats to and no one to wait for, and who is no voter never elects: without that clock they do
    /// nothing when there is nothing to do.
    async fn set_pace(&self, raft: &Raft, now: &Standing) {
        self.replica.set_alone(now.alone);
        raft.runtime_config().tick(now.is_voter && !now.alone);
        if now.alone && now.state == ServerState::Follower {
            // Raft has stopped: its watcher hears of that by itself.
            let _ = raft.trigger().elect(false).await;
        }
    }

    /// Everything that was committed before this start is applied at some time.
    async fn recover(self: Arc<Self>, raft: Raft) {
        if raft.wait_for_recovery(None).await.is_ok() {
            self.replica.set_recovered();
        }
    }

    /// Gets ready to lead: from here on this node's clock is the shard's.
    async fn take_over(&self, raft: &Raft, id: LeaderId) -> Result<(), ClusterError> {
        let replica = &self.replica;
        // Both ask other nodes, and neither waits for what the other says.
        let (recovered, mut told) = tokio::join!(raft.wait_for_recovery(None), self.ask_for_time());
        recovered.map_err(|error| unavailable(&error))?;
        while !self.may_tell_time(&told) {
            tokio::time::sleep(RETRY_PAUSE).await;
            told = self.ask_for_time().await;
        }
        let stats = replica.read(|records| query::shard_stats(records)).await?;
        let applied = stats.time.max(replica.applied_time());
        replica.clock.lead_from(self.time_to_begin(applied, told));
        replica.find_next_due().await?;
        replica.set_recovered();
        self.begin_to_lead(Lead {
            raft: raft.clone(),
            id,
            run: replica.epoch(),
        });
        replica.set_role(Role::Leader);
        Ok(())
    }

    /// What the other voters believe the time to be. Those that are silent are not waited for.
    async fn ask_for_time(&self) -> Vec<ToldTime> {
        let own = self.node.identity.node;
        let board = &self.node.board;
        let voters = self.voters().into_iter();
        let others = voters.filter(|node| *node != own && !board.is_silent(*node));
        let clock = &self.replica.clock;
        let group = self.replica.group.0;
        ask_for_time(&self.node.links, group, others, || clock.own_wall_us()).await
    }

    /// Whether what is known is enough to go on from: the time of someone who was there before, or, after
    /// the whole cluster was down, the clocks of a majority.
    fn may_tell_time(&self, told: &[ToldTime]) -> bool {
        let is_live = self.replica.clock.estimate().is_live;
        is_live
            || told.iter().any(|told| told.now().is_live)
            || (told.len() + 1) * 2 > self.voters().len()
    }

    /// Where this leader's clock begins.
    fn time_to_begin(&self, applied: ShardTime, told: Vec<ToldTime>) -> ShardTime {
        let clock = &self.replica.clock;
        let mut estimates = vec![clock.estimate()];
        let mut walls_us = vec![0];
        for told in told {
            estimates.push(told.now());
            walls_us.push(told.wall_offset_us);
        }
        let jump_us = lower_median_us(&walls_us);
        if let Some(offset_us) = median_us(walls_us) {
            clock.set_wall_offset_us(offset_us);
        }
        time_at_take_over(&estimates, applied, clock.wall_as_time(jump_us))
    }

    /// Tells the shard who leads it.
    async fn announce(self: Arc<Self>) {
        while let Err(error) = self.try_announce().await {
            tracing::warn!(group = self.replica.group.0, %error, "a new leader is not heard yet");
            if self.replica.failure().is_some() {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.settled.send_replace(true);
    }

    async fn try_announce(&self) -> Result<(), ClusterError> {
        let stats = self
            .replica
            .read(|records| query::shard_stats(records))
            .await?;
        let mut commands = vec![Command::EndOldSessions {
            node: self.node.identity.node,
            incarnation: self.node.board.first_generation(),
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
}

/// Ends when this node does not lead in that term any more.
async fn over(raft: &Raft, id: LeaderId) {
    let mut metrics = raft.server_metrics();
    while Standing::of(raft).leads == Some(id) {
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
