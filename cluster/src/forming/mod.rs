//! How nodes that belong to no cluster yet become members of one.
//!
//! ```text
//!   seeds --> ask who they are --> board: who is there, who sees whom --> decision
//!                                                                          |
//!      a seed is a member of a cluster:  join it <-------------------------+
//!      `expect` fresh nodes see each other: the first of them makes a plan-+
//! ```
//!
//! A plan names the cluster, its nodes and their ids. It takes effect in two steps, so that one set of
//! nodes never makes two clusters: every planned node promises itself to the plan, on disk, before it
//! says so, and only when all have does the coordinator become the first member, on disk as well. The
//! others follow when they see a member of the planned cluster. A promise ends only when the coordinator
//! has dropped the plan, or has lost its disk while nobody became a member. The nodes then have no
//! history, so a planned node that is wiped is simply not there: it joins as a new one.

mod board;
mod check;
mod decision;
mod links;
mod message;
mod plan;
mod promise;
mod runner;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use board::Board;
pub(crate) use check::check_standing;
pub(crate) use message::{Candidate, Joined, Terms};
pub(crate) use plan::{Plan, PlannedNode};
#[cfg(test)]
use runner::Ask;
pub(crate) use runner::Forming;
pub(crate) use service::{FormingService, NotTaken, Registrar};
