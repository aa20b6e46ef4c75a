//! How failures of the floors below are told to callers.

use flotilla_cluster::ClusterError;
use flotilla_model::outcome::{Outcome, Refusal};

use crate::api::error::BrokerError;

impl From<ClusterError> for BrokerError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Busy => Self::Busy {
                what: "the shard takes no more at present".to_owned(),
            },
            ClusterError::Full { free, reserve } => Self::StorageFull { free, reserve },
            ClusterError::OutcomeUnknown { .. } => Self::OutcomeUnknown,
            ClusterError::TooLarge { bytes, bytes_max } => Self::TooLarge {
                bytes,
                allowed: bytes_max,
            },
            ClusterError::Corrupt { .. } | ClusterError::Absent { .. } => Self::Damaged {
                what: error.to_string(),
            },
            ClusterError::Refused { reason } => Self::Conflict { what: reason },
            ClusterError::Stopped => Self::ShuttingDown,
            other => Self::Unavailable {
                reason: other.to_string(),
            },
        }
    }
}

/// What a refused command means to its caller.
pub(crate) fn refused(refusal: &Refusal) -> BrokerError {
    match refusal {
        Refusal::NotFound { what } => BrokerError::NotFound { what: what.clone() },
        Refusal::StaleLease { .. } => BrokerError::StaleLease,
        Refusal::QueueFull {
            stored,
            allowed,
            unit,
        } => BrokerError::QueueFull {
            stored: *stored,
            allowed: *allowed,
            unit: unit.clone(),
        },
        Refusal::Invalid { what } => BrokerError::InvalidRequest { what: what.clone() },
        // The repeat's first outcome is forgotten, so nobody can say what it was.
        Refusal::OriginGap { .. } => BrokerError::OutcomeUnknown,
        // Of commands about the cluster itself.
        other => BrokerError::InvalidRequest {
            what: other.to_string(),
        },
    }
}

/// An outcome of the wrong kind for its command: refused, or a fault in the shard.
pub(crate) fn unexpected(outcome: &Outcome) -> BrokerError {
    match outcome {
        Outcome::Refused(refusal) => refused(refusal),
        other => BrokerError::Unavailable {
            reason: format!("the shard answered with another command's outcome: {other:?}"),
        },
    }
}
