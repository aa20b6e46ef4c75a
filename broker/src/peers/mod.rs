//! Conversations between the brokers of different nodes.
//!
//! ```text
//!   client's node                                      leader's node
//!   Session::receive  -- Opening::Receive  ----------> QueueActor
//!                     <- Answer, Accepted ->, Confirmed
//!   TopicSubscription -- Opening::Subscribe ---------> TopicActor
//!                     <- Batch ...  Done, Leave ->
//!   admin calls       -- one question, one answer ---> shard's state and actors
//!   HubActor          -- Opening::Hub: interest, signals -> HubActor of every other node
//!   RequestHub        -- Opening::Requests: interest, requests, replies -> RequestHub of every other node
//! ```
//!
//! Every frame begins with a version. What a frame says is encoded with bincode, messages follow as
//! they are stored. Either side may vanish at any time: whatever one holds for the other is given back
//! when the conversation ends.

pub(crate) mod ask;
pub(crate) mod conversation;
pub(crate) mod error;
pub(crate) mod receive;
pub(crate) mod service;
pub(crate) mod subscribe;
pub(crate) mod wire;
