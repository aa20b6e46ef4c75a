//! Signals: messages to whoever listens now. One actor per node matches names to patterns. Requests, to
//! which somebody replies, are matched in the same way: see [`request`].
//!
//! ```text
//!   publisher --> HubActor --> Listener (buffer) --> SignalSubscription
//!                    |  ^
//!      Listener (buffer)| what every peer listens to
//!        per peer       |
//!          |            |
//!        link ------> inbound of the peer's HubActor
//! ```
//!
//! Each node tells every other which patterns and groups it has listeners for, and a signal goes once
//! to each node that wants it. For a group the publisher's node chooses one node with members, and
//! that node chooses the member. A listener is confirmed when every node that can be reached knows of
//! it, or after a second.
//!
//! A listener that does not keep up makes publishers of its node wait for a short while; after that its
//! surplus is dropped, for it alone and counted, and nobody waits for it again until it has caught up.
//! The same goes for a node that does not keep up. A slow listener holds up nothing that comes from
//! another node: it has what its buffer takes, while the others of its node hear on.

pub(crate) mod actor;
pub(crate) mod buffer;
mod hearing;
pub(crate) mod inbound;
pub(crate) mod interest;
pub(crate) mod links;
pub(crate) mod listener;
pub(crate) mod listing;
pub(crate) mod names;
mod outbound;
pub(crate) mod request;
pub(crate) mod subscription;
pub(crate) mod table;
mod talk;
