//! Links between the nodes of a cluster.
//!
//! ```text
//!   Peers: call, talk          GroupNetwork: Raft's way to its peers
//!          \                     /
//!           Links: per peer and lane one HTTP/2 connection, made when it is needed
//!                        |
//!   ---------------------+---------------------------------------------- another node
//!                        |
//!           serve: who asks? is it for this node?
//!          /                     \
//!   PeerService                groups: Raft's requests
//! ```
//!
//! Three lanes keep what must be quick from what is large: heartbeats never queue behind entries, nor
//! entries behind snapshots. Inside a lane each use has a stream of its own with its own flow control.
//! A dead or frozen peer is noticed by unanswered pings; its streams then end with an error.

mod append;
mod connection;
mod doorway;
mod group_network;
mod groups;
mod identity;
mod lane;
mod line;
mod links;
mod loss;
mod network;
mod peers;
mod server;
mod setback;
mod slot;
mod snapshot_head;
mod snapshot_receiver;
mod snapshot_sender;
mod talk;
#[cfg(test)]
mod tests;
mod traffic;
mod versions;
mod wire;
mod withheld;

pub(crate) use identity::LocalIdentity;
pub use lane::Lane;
pub(crate) use links::Links;
pub use network::{Listen, Network, Socket, TcpNetwork};
pub use peers::{PeerError, PeerIdentity, PeerService, Peers, ServiceId};
pub(crate) use snapshot_sender::read_chunks;
pub use talk::{Talk, TalkReceiver, TalkSender, TrySendError};
pub use traffic::LinkMetrics;
pub(crate) use versions::LinkVersions;
