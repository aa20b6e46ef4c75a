//! Finding a shard's leader, and asking it until it answers.
//!
//! Actors live where their shard is led. Every call may come to any node, so it looks where the
//! leader is, asks there, and begins again when the leader has changed meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use flotilla_cluster::{Role, Shard};
use flotilla_model::ids::NodeId;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::fault::Fault;

/// A leader that is not known, or that does not answer, is looked for again after this long at most.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Who answers for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    Here,
    At(NodeId),
    /// Nobody that is known now.
    Vacant,
}

/// How long a node that no longer leads is still listened to.
const SUCCESSION_GRACE: Duration = Duration::from_millis(300);

impl Core {
    /// Whether the actors of a shard's names may live here. A node that has nowhere else to send
    /// anybody answers as well as it can, whatever its role.
    pub fn serves(&self, shard: &Shard) -> bool {
        shard.is_leader() || self.is_last_resort(shard)
    }

    /// Whether nobody else can serve a shard.
    pub fn is_last_resort(&self, shard: &Shard) -> bool {
        shard.is_alone() || (shard.role() == Role::Failed && !self.has_peers())
    }

    /// Where a shard is served, as far as this node knows.
    pub fn seat(&self, shard: &Shard) -> Seat {
        if self.serves(shard) {
            return Seat::Here;
        }
        match shard.leader() {
            Some(node) if node != self.cluster.node().id => Seat::At(node),
            _ => Seat::Vacant,
        }
    }

    /// Asks whoever leads the shard, again and again until it answers or the time is over.
    pub async fn at_leader<T, H, A>(
        &self,
        shard: &Shard,
        until: Instant,
        here: impl Fn() -> H,
        there: impl Fn(NodeId) -> A,
    ) -> Result<T, BrokerError>
    where
        H: Future<Output = Result<T, Fault>>,
        A: Future<Output = Result<T, Fault>>,
    {
        let mut leaders = shard.leader_changes();
        loop {
            leaders.borrow_and_update();
            let answer = match self.seat(shard) {
                Seat::Here => here().await,
                Seat::At(node) => tokio::select! {
                    answer = there(node) => answer,
                    () = succeeded(shard, node) => Err(Fault::Moved),
                },
                Seat::Vacant => Err(Fault::Moved),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Moved) => self.check_open()?,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_leader(shard));
            }
            let pause = left.min(PAUSE);
            if let Ok(Err(_)) = tokio::time::timeout(pause, leaders.changed()).await {
                // The shard is gone, so that there is nothing to wait for but the end.
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Makes sure that no other node leads a shard that this node believes to lead.
    pub async fn confirm_leadership(&self, shard: &Shard) -> Result<(), Fault> {
        if self.is_last_resort(shard) {
            return Ok(());
        }
        shard.confirm_leadership().await.map_err(|_| Fault::Moved)
    }
}

/// Resolves when another node has led the shard for a while: this one may be frozen, and never answer.
/// What it still has to say when it steps down in order is heard before.
pub(crate) async fn succeeded(shard: &Shard, node: NodeId) {
    let mut leaders = shard.leader_changes();
    let is_other = |leader: &Option<NodeId>| leader.is_some_and(|leader| leader != node);
    loop {
        if leaders.wait_for(is_other).await.is_err() {
            // The shard is gone, and whoever asks is told so elsewhere.
            return std::future::pending().await;
        }
        tokio::time::sleep(SUCCESSION_GRACE).await;
        if is_other(&leaders.borrow()) {
            return;
        }
    }
}

/// Nobody led the shard for as long as the caller could wait.
pub(crate) fn no_leader(shard: &Shard) -> BrokerError {
    BrokerError::Unavailable {
        reason: format!("shard {} has no leader that answers", shard.id()),
    }
}
