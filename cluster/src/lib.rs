//! Runs the model on Raft, over storage: the replicated shards that the broker stands on.
//!
//! ```text
//!   Shard::propose           Shard::read            Observer
//!        |                        |                    ^
//!   proposer  -- entry -->  Raft  |                    |
//!   (order, origin, budget)  |    v                    |
//!                            |  state: dirty | frozen | clean      <-- apply: model on records
//!                            v                    |                     |
//!                        node log            checkpointer --> checkpoint store
//!                  (one for all groups)            '--> purge, drop and compact segments
//! ```
//!
//! Every node runs one Raft group for metadata and one per shard, and votes in those that it is to hold;
//! in the others it waits until it is made a member. Beside the groups:
//!
//! ```text
//!   forming: fresh nodes become a cluster, or join one      net: links to the other nodes
//!   membership: which node holds what, and Raft's members   presence: who is there, and who leads
//!   forward, intake: batches on their way to the leader     handover: leaders go elsewhere
//!   mending: replicas are compared, damaged ones made anew
//! ```
//!
//! Only this crate and `raft`, which compiles openraft for it, name Raft's types.

mod attempt;
mod blocking;
mod checkpoint;
mod cluster;
mod codec;
mod config;
mod error;
mod flight;
mod forming;
mod forward;
mod group;
mod handover;
mod health;
mod identity;
mod intake;
mod launch;
mod leadership;
mod leading;
mod log_store;
mod log_window;
mod membership;
mod mending;
mod neighbours;
mod net;
mod observer;
mod outbox;
mod pace;
mod packing;
mod pending;
mod presence;
mod progress;
mod proposer;
mod release;
mod replica;
mod retention;
mod roles;
mod shard;
mod snapshot;
mod start;
mod state;
mod state_machine;
#[cfg(test)]
mod tests;
mod time;
mod vacancy;

use flotilla_raft::types;

pub use cluster::{Cluster, NodeInfo};
pub use config::{CheckpointConfig, ClusterConfig};
pub use error::ClusterError;
pub use health::{ClusterHealth, ClusterMetrics, GroupHealth, GroupMetrics};
pub use identity::ClusterId;
pub use membership::ClusterNode;
pub use mending::{
    Finding, GroupVerification, MendingMetrics, ReplicaFinding, ReplicaVerification, Verification,
    VerifyConfig,
};
pub use net::{
    Lane, LinkMetrics, Listen, Network, PeerError, PeerIdentity, PeerService, Peers, ServiceId,
    Socket, Talk, TalkReceiver, TalkSender, TcpNetwork, TrySendError,
};
pub use observer::{Observer, Role};
pub use presence::LostShards;
pub use progress::{StartProgress, StartStage};
pub use shard::Shard;
pub use time::{ShiftedTimeSource, SystemTimeSource, TimeSource};
