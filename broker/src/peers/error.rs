//! Errors on their way between nodes.

use bincode::{Decode, Encode};

use crate::api::error::BrokerError;
use crate::fault::Fault;

/// A [`Fault`] in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum WireFault {
    Moved,
    Invalid {
        what: String,
    },
    NotFound {
        what: String,
    },
    TooLarge {
        bytes: u64,
        allowed: u64,
    },
    QueueFull {
        stored: u64,
        allowed: u64,
        unit: String,
    },
    StorageFull {
        free: u64,
        reserve: u64,
    },
    Busy {
        what: String,
    },
    StaleLease,
    Conflict {
        what: String,
    },
    Unavailable {
        reason: String,
    },
    OutcomeUnknown,
    Damaged {
        what: String,
    },
}

impl From<Fault> for WireFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(error) => Self::from(error),
            Fault::Moved => Self::Moved,
        }
    }
}

impl From<BrokerError> for WireFault {
    fn from(error: BrokerError) -> Self {
        match error {
            // The leader ends, not the node that asked: another will lead.
            BrokerError::ShuttingDown => Self::Moved,
            BrokerError::InvalidName(error) => Self::Invalid {
                what: error.to_string(),
            },
            BrokerError::InvalidRequest { what } => Self::Invalid { what },
            BrokerError::NotFound { what } => Self::NotFound { what },
            BrokerError::TooLarge { bytes, allowed } => Self::TooLarge { bytes, allowed },
            BrokerError::QueueFull {
                stored,
                allowed,
                unit,
            } => Self::QueueFull {
                stored,
                allowed,
                unit,
            },
            BrokerError::StorageFull { free, reserve } => Self::StorageFull { free, reserve },
            BrokerError::Busy { what } => Self::Busy { what },
            BrokerError::StaleLease => Self::StaleLease,
            BrokerError::Conflict { what } => Self::Conflict { what },
            BrokerError::Unavailable { reason } => Self::Unavailable { reason },
            BrokerError::OutcomeUnknown => Self::OutcomeUnknown,
            BrokerError::Damaged { what } => Self::Damaged { what },
            // Requests have frames of their own, which tell why there is no reply.
            BrokerError::NoResponder { .. }
            | BrokerError::ResponderLost { .. }
            | BrokerError::RequestTimeout { .. } => Self::Unavailable {
                reason: error.to_string(),
            },
        }
    }
}

impl From<WireFault> for Fault {
    fn from(fault: WireFault) -> Self {
        Self::Failed(match fault {
            WireFault::Moved => return Self::Moved,
            WireFault::Invalid { what } => BrokerError::InvalidRequest { what },
            WireFault::NotFound { what } => BrokerError::NotFound { what },
            WireFault::TooLarge { bytes, allowed } => BrokerError::TooLarge { bytes, allowed },
            WireFault::QueueFull {
                stored,
                allowed,
                unit,
            } => BrokerError::QueueFull {
                stored,
                allowed,
                unit,
            },
            WireFault::StorageFull { free, reserve } => BrokerError::StorageFull { free, reserve },
            WireFault::Busy { what } => BrokerError::Busy { what },
            WireFault::StaleLease => BrokerError::StaleLease,
            WireFault::Conflict { what } => BrokerError::Conflict { what },
            WireFault::Unavailable { reason } => BrokerError::Unavailable { reason },
            WireFault::OutcomeUnknown => BrokerError::OutcomeUnknown,
            WireFault::Damaged { what } => BrokerError::Damaged { what },
        })
    }
}
