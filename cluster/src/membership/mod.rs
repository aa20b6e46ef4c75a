//! Who belongs to the cluster, and which node holds what.
//!
//! ```text
//!   group 0: nodes, placements  --> Roster (on every node): addresses for the links, view for all
//!        ^
//!   Steward (where group 0 is led): first records, nodes that are gone, next placements,
//!                                    the feature level
//!   Keeper  (where a shard is led): Raft's members follow the placement, then the leader does;
//!                                   the shard is told the feature level, and who was removed
//! ```
//!
//! The records decide, Raft's memberships follow, one change of one replica at a time. What is decided
//! where is pure: `placement` which nodes hold what, `change` the next step of one group's membership.

mod bootstrap;
mod change;
mod chores;
mod join;
mod keeper;
mod level;
mod nodes;
pub(crate) mod placement;
mod removal;
mod report;
mod roster;
mod steward;
pub(crate) mod voters;

pub(crate) use join::Gate;
pub(crate) use keeper::Keeper;
pub(crate) use level::LevelWatch;
pub use nodes::ClusterNode;
pub(crate) use removal::Removal;
pub(crate) use report::{ReportService, collect as members};
pub(crate) use roster::Roster;
pub(crate) use steward::{LeadTime, Steward};
