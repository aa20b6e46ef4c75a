//! What a client is told when its request is refused or fails.

use flotilla_broker::BrokerError;
use flotilla_model::name::NameError;
use tonic::{Code as StatusCode, Status};

use super::convert::{DEDUP_ID_BYTES_MAX, PRODUCER_BYTES_MAX};
use super::protocol::Error;
use super::protocol::error::Code;
use crate::transport::lifecycle::NotServing;

/// Why an item, a batch or a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the batch has {records} records, 1 to {allowed} are allowed")]
    Records { records: usize, allowed: usize },
    #[error("ack is {given}, ACK_SYNCED (0) and ACK_NONE (1) are allowed")]
    Ack { given: i32 },
    #[error("the dedup_id has {bytes} bytes, at most {DEDUP_ID_BYTES_MAX} are allowed")]
    DedupId { bytes: usize },
    #[error("the producer has {bytes} bytes, at most {PRODUCER_BYTES_MAX} are allowed")]
    Producer { bytes: usize },
    #[error("first_sequence is {first}, with which the last of {records} records has none")]
    Sequence { first: u64, records: usize },
    #[error("{field} is {given}, {allowed}")]
    Value {
        field: &'static str,
        given: u64,
        allowed: &'static str,
    },
    #[error("the {what} has {bytes} bytes, 1 to {allowed} are allowed")]
    Length {
        what: &'static str,
        bytes: usize,
        allowed: usize,
    },
    #[error("the first frame must open")]
    NotOpened,
    #[error("only the first frame opens")]
    OpenedTwice,
    #[error("a frame without content")]
    EmptyFrame,
    #[error("the first frame opens, and cannot reply: there are no calls yet")]
    RepliesTooEarly,
    #[error("the reply has neither a record nor a refusal")]
    ReplyEmpty,
    /// A responder's own text.
    #[error("{0}")]
    Refused(String),
    #[error("too many leases wait on this stream, at most {allowed} are allowed")]
    LeasesWaiting { allowed: usize },
    #[error("access denied to the {what}")]
    AccessDenied { what: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    NotServing(#[from] NotServing),
    #[error(transparent)]
    Broker(BrokerError),
}

impl From<BrokerError> for RequestError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::ShuttingDown => Self::NotServing(NotServing::ShuttingDown),
            BrokerError::InvalidName(name) => Self::Name(name),
            other => Self::Broker(other),
        }
    }
}

impl RequestError {
    /// What kind of failure it is.
    pub fn code(&self) -> Code {
        match self {
            Self::NotServing(_) => Code::Unavailable,
            Self::LeasesWaiting { .. } => Code::Busy,
            Self::Refused(_) => Code::Refused,
            Self::AccessDenied { .. } => Code::AccessDenied,
            Self::Broker(error) => code_of(error),
            _ => Code::Invalid,
        }
    }

    /// The failure of an item or a batch.
    pub fn wire(&self) -> Error {
        Error {
            code: self.code().into(),
            text: self.to_string(),
        }
    }

    /// The failure of a stream.
    pub fn status(&self) -> Status {
        let code = match self.code() {
            Code::Invalid | Code::TooLarge => StatusCode::InvalidArgument,
            Code::NotFound => StatusCode::NotFound,
            Code::QueueFull | Code::StorageFull | Code::Busy => StatusCode::ResourceExhausted,
            // Another try, here or at another node, may find out.
            Code::Unavailable | Code::OutcomeUnknown | Code::NoResponder => StatusCode::Unavailable,
            Code::Timeout => StatusCode::DeadlineExceeded,
            Code::StaleLease | Code::Conflict => StatusCode::FailedPrecondition,
            Code::Refused => StatusCode::Aborted,
            Code::AccessDenied => StatusCode::PermissionDenied,
            Code::Damaged => StatusCode::DataLoss,
            Code::Unspecified => StatusCode::Unknown,
        };
        Status::new(code, self.to_string())
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        error.status()
    }
}

fn code_of(error: &BrokerError) -> Code {
    match error {
        BrokerError::InvalidName(_) | BrokerError::InvalidRequest { .. } => Code::Invalid,
        BrokerError::NotFound { .. } => Code::NotFound,
        BrokerError::TooLarge { .. } => Code::TooLarge,
        BrokerError::QueueFull { .. } => Code::QueueFull,
        BrokerError::StorageFull { .. } => Code::StorageFull,
        BrokerError::Busy { .. } => Code::Busy,
        BrokerError::Conflict { .. } => Code::Conflict,
        BrokerError::StaleLease => Code::StaleLease,
        BrokerError::Unavailable { .. } | BrokerError::ShuttingDown => Code::Unavailable,
        BrokerError::OutcomeUnknown | BrokerError::ResponderLost { .. } => Code::OutcomeUnknown,
        BrokerError::Damaged { .. } => Code::Damaged,
        BrokerError::NoResponder { .. } => Code::NoResponder,
        BrokerError::RequestTimeout { .. } => Code::Timeout,
    }
}
