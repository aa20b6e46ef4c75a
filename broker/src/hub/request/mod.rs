//! Requests: messages that ask whoever serves a name now for a reply, on any node.
//!
//! ```text
//!   Requester --ask--> RequestHub --Given--> Responder (buffer) --> RequestSubscription
//!       ^               |  ^   ^ Calls: who asked, who may reply,         |
//!       |               |  |   |        when time is over                 |
//!     Inbox <--answer---+  +---+------------------------reply-------------+
//!                       |  |
//!             Parcel    v  | requests and replies, to and from the hubs of other nodes
//!                      links
//! ```
//!
//! Who serves what is known as it is of signals, in a table of its own (`hub/table`), told over
//! conversations of its own: a slow listener to signals holds up no reply, and a node of an older build,
//! which does not understand such a conversation, ends it and is taken for one where nobody serves.
//!
//! There is no actor here. A batch of requests or replies takes one lock for a short while, and is
//! handed to the one task that waits for it: an actor between would double the wake-ups of a request,
//! which are most of its time.
//!
//! A call has a number of its own on each node that it passes: requests of different clients never meet,
//! whatever ids they bear. Only whoever was given a call may reply to it, or who shows its token. What
//! comes later than the first reply, or than the time given, is dropped and counted.
//!
//! A responder that leaves owes nothing. What it had not taken yet, or has no room for, goes to another
//! member of its group, on any node; its other calls go on until their time is over, or end at once if the
//! requester wanted that and nobody else has them. The same holds for a node that cannot be reached any
//! more. A node is told when nobody waits any more for what it was asked.
//!
//! A requester is told the truth about what may have been carried out: that all are busy only if nobody
//! took the request, and that the outcome is unknown if there was a reply and no room for it.
//!
//! What clients make the hub hold is bounded: calls and what they weigh, also as long as a responder does
//! not take what it was given ([`letter`]), how many get them, and the replies that requesters leave
//! untaken ([`asker`]), for the node and for each client.

pub(crate) mod absence;
pub(crate) mod afar;
pub(crate) mod asker;
pub(crate) mod call;
pub(crate) mod calls;
mod check;
pub(crate) mod hub;
pub(crate) mod inbound;
pub(crate) mod letter;
pub(crate) mod mail;
pub(crate) mod parcel;
pub(crate) mod responder;
pub(crate) mod room;
mod route;
mod seal;
mod serve;
pub(crate) mod timer;
