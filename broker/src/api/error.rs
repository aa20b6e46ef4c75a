//! Why the broker refuses or fails: one enum for all callers, in words that a client may be shown.

use flotilla_model::name::NameError;

/// Why a call failed. Nothing was stored unless it is [`BrokerError::OutcomeUnknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The name cannot be one.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// A value outside its range, or a combination that makes no sense.
    #[error("invalid request: {what}")]
    InvalidRequest {
        /// Which value, and what is allowed.
        what: String,
    },
    /// No such topic, queue or group.
    #[error("{what} does not exist")]
    NotFound {
        /// What was named.
        what: String,
    },
    /// A message above the configured size.
    #[error("the message has {bytes} bytes, at most {allowed} are allowed")]
    TooLarge {
        /// Of the encoded message.
        bytes: u64,
        /// The setting.
        allowed: u64,
    },
    /// The queue's own limit.
    #[error("the queue is full: {stored} of at most {allowed} {unit}")]
    QueueFull {
        /// What it holds.
        stored: u64,
        /// What it may hold.
        allowed: u64,
        /// `messages` or `bytes`.
        unit: String,
    },
    /// The disk's reserve is reached: writes are refused until space is free again.
    #[error("storage is full: {free} bytes are free, {reserve} are kept in reserve")]
    StorageFull {
        /// Bytes free now.
        free: u64,
        /// Bytes kept for settlements and housekeeping.
        reserve: u64,
    },
    /// More is asked for than can be taken now; a later try may succeed.
    #[error("too busy: {what}")]
    Busy {
        /// Which bound was met.
        what: String,
    },
    /// What was asked of the cluster does not go with its present state.
    #[error("{what}")]
    Conflict {
        /// What is in the way.
        what: String,
    },
    /// The lease is over, or was given to another session.
    #[error("the lease is over or held by another session")]
    StaleLease,
    /// The shard cannot answer now.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// It may have been stored or not: the answer was lost.
    #[error("unavailable: the outcome is unknown")]
    OutcomeUnknown,
    /// Stored bytes are damaged; nothing made up is returned in their place.
    #[error("damaged: {what}")]
    Damaged {
        /// Which message.
        what: String,
    },
    /// Nobody serves the name of a request.
    #[error("nobody serves {name}")]
    NoResponder {
        /// Of the request.
        name: String,
    },
    /// Those who got a request are gone, or cannot be reached any more.
    #[error("those who got {name} are gone without a reply: it may have been carried out or not")]
    ResponderLost {
        /// Of the request.
        name: String,
    },
    /// No reply came in time.
    #[error("no reply to {name} came in time: it may have been carried out or not")]
    RequestTimeout {
        /// Of the request.
        name: String,
    },
    /// The broker is being stopped.
    #[error("the broker is shutting down")]
    ShuttingDown,
}
