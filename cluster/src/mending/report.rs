//! What comparisons found, as the floors above see it.

use flotilla_model::ids::NodeId;

/// A comparison of all groups, under way or done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Counts the comparisons that this node was asked for since its start.
    pub run: u64,
    /// Groups are still to be compared.
    pub is_running: bool,
    /// How many groups there are.
    pub groups_total: u32,
    /// What was found so far, in the order of the groups; 0 is metadata.
    pub groups: Vec<GroupVerification>,
}

impl Verification {
    /// Whether all replicas of all groups hold the same, whole.
    pub fn is_fine(&self) -> bool {
        !self.is_running
            && self.groups.len() == self.groups_total as usize
            && self
                .groups
                .iter()
                .all(|group| group.finding == Finding::Identical)
    }
}

/// What became of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// All voters hold the same, whole.
    Identical,
    /// A replica holds messages that are not whole, and was not mended.
    Damaged,
    /// Replicas hold different things, and it could not be mended.
    Differs,
    /// Those that answered hold the same; some did not.
    Incomplete,
    /// Nothing could be compared.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The comparison of a group's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupVerification {
    /// 0 for metadata, else the shard.
    pub group: u32,
    /// The entry whose state was compared.
    pub at: Option<u64>,
    /// All that is to be said of the group.
    pub finding: Finding,
    /// Its voters.
    pub replicas: Vec<ReplicaVerification>,
}

/// What was found of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaVerification {
    /// Where it is.
    pub node: NodeId,
    /// What it is.
    pub finding: ReplicaFinding,
    /// Messages that were read and are whole.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// State records that were read.
    pub records: u64,
    /// What was found of it before it was made anew in this run.
    pub mended: Option<ReplicaFinding>,
    /// Why it was not made anew, if that was tried.
    pub mending_failed: Option<String>,
}

/// The condition of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaFinding {
    /// It holds what the majority holds, whole.
    Identical,
    /// Some of it is not whole.
    Damaged {
        /// Messages that are needed and not whole.
        messages: u64,
        /// Entries that Raft may still ask for and that are not whole.
        log_entries: u64,
        /// The first places.
        places: Vec<String>,
    },
    /// Whole, but not what the others hold.
    Differs {
        /// The first places.
        places: Vec<String>,
    },
    /// It did not answer.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// Counts of a node since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MendingMetrics {
    /// Groups whose replicas were compared by this node.
    pub compared: u64,
    /// When that was last done, in seconds since 1970; 0 if never.
    pub compared_last_s: u64,
    /// Replicas that were found damaged by comparisons.
    pub found_damaged: u64,
    /// Replicas that were found to hold something else than the others.
    pub found_differing: u64,
    /// Replicas of this node that were made anew.
    pub mended: u64,
    /// Attempts at that which failed.
    pub mending_failed: u64,
    /// Replicas of this node that are damaged now.
    pub damaged: u64,
    /// Reads that were answered by another node because the bytes were damaged here.
    pub read_elsewhere: u64,
}
