//! Replicas of a group compare what they hold, and a damaged one is made anew from the others.
//!
//! ```text
//!   verify: one node asks all replicas for digests          mender: every node looks for damage of its own
//!      | all at the same entry                                 | fetch a snapshot from a healthy replica
//!      v                                                       v
//!   digest: a frozen checkpoint, read part by part          rebuild: stop Raft, take the state over, start
//!      | parts in the order of their places                    ^
//!      v                                                       |
//!   compare: which replica is damaged, which differs ----------+ told to mend
//! ```
//!
//! A leader that finds a replica without entries that it had acknowledged (`net::loss`) has it made anew too.
//!
//! Beside it, `read` fetches single messages that are damaged here from a peer.
//!
//! **At the same entry.** Each replica keeps its next checkpoint for the comparison and tells how far its
//! log is. An entry is named that none has applied yet, and apply freezes the state right there, between
//! two entries, as it does for any checkpoint. What is compared is what was written to the disk then.
//!
//! **What a rebuilt replica may say.** Its vote and the entries behind the snapshot stay, if nothing of them
//! can have been lost. Else its Raft does not run until it is rebuilt: neither votes nor acknowledgements
//! leave it. It is rebuilt by a leader that a majority without it has confirmed after that, and by all
//! entries that this leader had then. So it knows of every term in which it may have voted, and has every
//! entry that it may have acknowledged to anyone who can still commit it.

mod compare;
mod digest;
mod fetch;
mod mender;
mod message;
mod read;
mod rebuild;
mod report;
mod run;
mod service;
mod verify;

#[cfg(test)]
pub(crate) use fetch::fetch;
pub(crate) use mender::Mender;
pub(crate) use read::{Elsewhere, read_elsewhere};
pub use report::{
    Finding, GroupVerification, MendingMetrics, ReplicaFinding, ReplicaVerification, Verification,
};
pub(crate) use run::Verifier;
pub use run::VerifyConfig;
pub(crate) use service::ReplicaService;
