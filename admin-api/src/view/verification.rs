//! The shapes of comparisons of replicas.

use flotilla_broker::{
    Finding, GroupVerification, ReplicaFinding, ReplicaVerification, Verification,
};
use serde::Serialize;

/// A comparison was begun, or is under way.
#[derive(Debug, Serialize)]
pub struct VerifyBegunView {
    /// Which of those that this node was asked for.
    pub run: u64,
}

/// A comparison of all shards.
#[derive(Debug, Serialize)]
pub struct VerificationView {
    run: u64,
    running: bool,
    /// All replicas of all shards hold the same, whole.
    fine: bool,
    shards_total: u32,
    shards: Vec<ShardVerificationView>,
}

impl From<Verification> for VerificationView {
    fn from(found: Verification) -> Self {
        Self {
            run: found.run,
            running: found.is_running,
            fine: found.is_fine(),
            shards_total: found.groups_total,
            shards: found.groups.into_iter().map(Into::into).collect(),
        }
    }
}

/// The comparison of one shard; 0 is metadata.
#[derive(Debug, Serialize)]
struct ShardVerificationView {
    shard: u32,
    /// The entry whose state was compared.
    entry: Option<u64>,
    result: &'static str,
    reason: Option<String>,
    replicas: Vec<ReplicaVerificationView>,
}

impl From<GroupVerification> for ShardVerificationView {
    fn from(group: GroupVerification) -> Self {
        let (result, reason) = match group.finding {
            Finding::Identical => ("identical", None),
            Finding::Damaged => ("damaged", None),
            Finding::Differs => ("differs", None),
            Finding::Incomplete => ("incomplete", None),
            Finding::Failed { reason } => ("failed", Some(reason)),
        };
        Self {
            shard: group.group,
            entry: group.at,
            result,
            reason,
            replicas: group.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

/// What was found of one replica.
#[derive(Debug, Serialize)]
struct ReplicaVerificationView {
    node: u64,
    #[serde(flatten)]
    finding: FindingView,
    messages: u64,
    message_bytes: u64,
    records: u64,
    /// What was found before it was made anew; `null` if it was not.
    repaired: Option<FindingView>,
    /// Why it was not made anew; `null` if that was not tried.
    repair_failed: Option<String>,
}

impl From<ReplicaVerification> for ReplicaVerificationView {
    fn from(replica: ReplicaVerification) -> Self {
        Self {
            node: replica.node.0,
            finding: replica.finding.into(),
            messages: replica.messages,
            message_bytes: replica.message_bytes,
            records: replica.records,
            repaired: replica.mended.map(Into::into),
            repair_failed: replica.mending_failed,
        }
    }
}

/// The condition of a replica.
#[derive(Debug, Serialize)]
struct FindingView {
    result: &'static str,
    damaged_messages: u64,
    damaged_entries: u64,
    places: Vec<String>,
    reason: Option<String>,
}

impl FindingView {
    fn of(result: &'static str) -> Self {
        Self {
            result,
            damaged_messages: 0,
            damaged_entries: 0,
            places: Vec::new(),
            reason: None,
        }
    }
}

impl From<ReplicaFinding> for FindingView {
    fn from(finding: ReplicaFinding) -> Self {
        match finding {
            ReplicaFinding::Identical => Self::of("identical"),
            ReplicaFinding::Damaged {
                messages,
                log_entries,
                places,
            } => Self {
                damaged_messages: messages,
                damaged_entries: log_entries,
                places,
                ..Self::of("damaged")
            },
            ReplicaFinding::Differs { places } => Self {
                places,
                ..Self::of("differs")
            },
            ReplicaFinding::Unreachable { reason } => Self {
                reason: Some(reason),
                ..Self::of("unreachable")
            },
        }
    }
}
