//! What a client is told when its request is refused or fails: the protocol's own texts, to the letter.

use flotilla_broker::BrokerError;
use flotilla_model::name::NameError;
use tonic::{Code, Status};

use super::validate::ID_BYTES_MAX;
use crate::transport::lifecycle::NotServing;

/// Why a request was refused. The texts are part of the protocol: clients compare them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("Error 101: invalid clientID value, cannot be empty")]
    ClientId,
    #[error("Error 102: invalid channel value, cannot be empty")]
    ChannelEmpty,
    #[error("Error 107: invalid channel value, no wildcards are allowed")]
    ChannelWildcard,
    #[error("Error 108: invalid channel value, no white spaces are allowed")]
    ChannelSpace,
    #[error("Error 109: invalid set timeout value, cannot be 0 or negative")]
    Timeout,
    #[error("Error 110: invalid message, cannot be empty")]
    MessageEmpty,
    #[error("Error 111: invalid subscription type, cannot be undefined or 0")]
    StartUndefined,
    #[error(
        "Error 112: invalid subscription type start at sequence value, cannot by 0 or negative"
    )]
    StartSequence,
    #[error("Error 113: invalid subscription type start at time value, cannot by 0 or negative")]
    StartTime,
    #[error(
        "Error 114: invalid subscription type start at time delta value, cannot by 0 or negative"
    )]
    StartDelta,
    #[error("Error 115: invalid request, cannot be empty")]
    RequestEmpty,
    #[error("Error 116: invalid cache ttl value, cannot be 0 or negative")]
    CacheTtl,
    #[error("Error 117: invalid request id, cannot be empty")]
    RequestIdEmpty,
    #[error("Error 118: event store parameters were set but subscribe type is not event store")]
    StartOfPlainEvents,
    #[error("Error 119: invalid channel value, cannot end with `.`")]
    ChannelDot,
    #[error(
        "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot"
    )]
    QueueName,
    #[error(
        "Error 122: max messages should be between 1 and max message setting in kubemq config  "
    )]
    MessagesMax,
    #[error("Error 123: cannot ack the current message")]
    AckFailed,
    #[error("Error 124: no active message to ack")]
    NothingToAck,
    #[error("Error 125: ack sequence cannot be 0 or negative")]
    AckSequence,
    #[error("Error 126: no active message to send")]
    NothingToSend,
    #[error(
        "Error 127: invalid visibility time, cannot be negative or exceed setting in kubemq config"
    )]
    Visibility,
    #[error("Error 128: subscription to queue is already active")]
    ReceivesAlready,
    #[error("Error 129: current visibility timer expired")]
    VisibilityOver,
    #[error("Error 130: error during send message to queue")]
    SendFailed,
    #[error("Error 131: invalid queue message")]
    NoMessage,
    #[error("Error 132: invalid stream queue messages request type")]
    StreamType,
    #[error(
        "Error 133: invalid expiration seconds, exceed max expiration seconds setting in kubemq config"
    )]
    Expiration,
    #[error(
        "Error 134: invalid max received count, cannot be negative or exceed max receive count setting in kubemq config"
    )]
    ReceiveCount,
    #[error("Error 135: invalid delay seconds, exceed max delay seconds setting in kubemq config")]
    Delay,
    #[error(
        "Error 136: invalid wait timeout, value cannot be negative or exceed max wait timeout seconds setting in kubemq config"
    )]
    WaitTimeout,
    #[error("Error 137: no active message to reject")]
    NothingToReject,
    #[error("Error 138: no new message in queue, wait time expired")]
    NothingInTime,
    #[error("Error 206: invalid request type")]
    RequestType,
    #[error("Error 207: invalid subscribe type")]
    SubscribeType,
    #[error("Error 301: timeout for request message")]
    NoResponse,
    #[error("Error 409: server is in shutdown mode")]
    ShuttingDown,
    #[error("Error 412: access denied to resource")]
    AccessDenied,
    #[error("grpc server is not ready to accept requests")]
    NotReady,
    #[error(
        "the stream was opened while the server began to serve, and said nothing: open it again"
    )]
    SilentSinceStart,

    #[error("empty messages batch")]
    BatchEmpty,
    #[error("no messages to send")]
    UpstreamEmpty,
    #[error("the batch has {messages} messages, at most {allowed} are allowed")]
    BatchTooLong { messages: usize, allowed: usize },

    #[error("transaction is completed or transaction id not found")]
    TransactionUnknown,
    #[error("cannot {verb} messages with closed response ")]
    TransactionClosed { verb: Verb },
    #[error("invalid {} sequence id {sequence}", .verb.of_sequences())]
    SequenceUnknown { verb: Verb, sequence: i64 },
    #[error("cannot {verb} empty list of of offsets")]
    SequencesEmpty { verb: Verb },
    #[error("cannot requeue messages with empty channel destination ")]
    RequeueTarget,
    #[error("request unknown")]
    DownstreamType,
    #[error("too many open transactions on this stream, at most {allowed} are allowed")]
    TransactionsMax { allowed: usize },
    #[error("the client must read the answers of this stream before it gets more messages")]
    Untaken,
    #[error("the {what} has {bytes} bytes, at most {ID_BYTES_MAX} are allowed")]
    IdLength { what: &'static str, bytes: usize },

    #[error("more than {allowed} queues are asked for: name fewer of them")]
    QueuesAsked { allowed: usize },
    #[error("the figures of these queues take more than {allowed} bytes: name fewer of them")]
    QueuesBytes { allowed: usize },
    #[error("{what} has {bytes} bytes, at most {allowed} are allowed")]
    Carried {
        what: &'static str,
        bytes: usize,
        allowed: usize,
    },

    #[error("channel not found")]
    ChannelUnknown,
    #[error("unknown {what} {given:?}, it must be {allowed}")]
    Unknown {
        what: &'static str,
        given: String,
        allowed: &'static str,
    },
    #[error("the search takes too much memory")]
    SearchTooLarge,
    #[error("the list has more than {allowed} bytes: search for fewer channels")]
    ListTooLong { allowed: usize },
    #[error("the channel cannot be described: {what}")]
    Describe { what: String },

    #[error("route {key:?} is not configured")]
    RouteUnknown { key: String },
    #[error("the channel names more than {allowed} targets: name fewer of them")]
    TargetsMax { allowed: usize },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Broker(BrokerError),
}

/// What an error shows of a text that is not understood.
pub fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    text.chars().take(CHARACTERS_MAX).collect()
}

/// What a settlement is called in error texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Ack,
    Nack,
    Requeue,
}

impl Verb {
    /// What it is called where a sequence is wrong: there, requeueing is acknowledging.
    fn of_sequences(self) -> Self {
        match self {
            Self::Ack | Self::Requeue => Self::Ack,
            Self::Nack => Self::Nack,
        }
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Requeue => "requeue",
        })
    }
}

impl From<BrokerError> for RequestError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::ShuttingDown => Self::ShuttingDown,
            BrokerError::InvalidName(name) => Self::Name(name),
            BrokerError::RequestTimeout { .. } => Self::NoResponse,
            other => Self::Broker(other),
        }
    }
}

impl From<NotServing> for RequestError {
    fn from(error: NotServing) -> Self {
        match error {
            NotServing::ShuttingDown => Self::ShuttingDown,
            NotServing::NotReady => Self::NotReady,
        }
    }
}

impl RequestError {
    /// Whether the client should try again, here or at another node: no fault of the request.
    ///
    /// Calls without an error field of their own must then fail with UNAVAILABLE, which clients
    /// take for a lost connection; as a plain text they would hand it to the application.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::ShuttingDown
                | Self::NotReady
                | Self::SilentSinceStart
                | Self::Broker(BrokerError::Unavailable { .. } | BrokerError::OutcomeUnknown)
        )
    }

    /// Whether a call of one request fails with it although its answer has an error field: clients tell by the
    /// status what they should try again, and what they must not.
    pub fn fails_call(&self) -> bool {
        self.is_unavailable() || *self == Self::AccessDenied
    }

    /// The status of calls whose answer has no room for an error.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::AccessDenied => Code::PermissionDenied,
            Self::BatchEmpty => Code::Unknown,
            Self::Broker(BrokerError::Busy { .. } | BrokerError::StorageFull { .. }) => {
                Code::ResourceExhausted
            }
            unavailable if unavailable.is_unavailable() => Code::Unavailable,
            // Whatever is wrong with a request is INTERNAL in this protocol.
            _ => Code::Internal,
        };
        Status::new(code, self.to_string())
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        error.status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_is_internal_with_the_exact_text() {
        let status = RequestError::ChannelDot.status();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(
            status.message(),
            "Error 119: invalid channel value, cannot end with `.`"
        );
    }

    #[test]
    fn what_a_retry_may_cure_is_unavailable() {
        for error in [
            RequestError::from(BrokerError::ShuttingDown),
            RequestError::NotReady,
            RequestError::from(BrokerError::OutcomeUnknown),
            RequestError::from(BrokerError::Unavailable {
                reason: "no leader".to_owned(),
            }),
        ] {
            assert_eq!(error.status().code(), Code::Unavailable, "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_told_as_such_and_not_as_a_lost_connection() {
        let status = RequestError::from(BrokerError::StorageFull {
            free: 1,
            reserve: 2,
        })
        .status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "storage is full: 1 bytes are free, 2 are kept in reserve"
        );
    }

    #[test]
    fn a_request_that_nobody_answered_in_time_is_internal_for_every_client() {
        let name = "a".to_owned();
        let status = RequestError::from(BrokerError::RequestTimeout { name }).status();
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), "Error 301: timeout for request message");
    }

    #[test]
    fn shutdown_has_the_protocols_text() {
        assert_eq!(
            RequestError::from(BrokerError::ShuttingDown).to_string(),
            "Error 409: server is in shutdown mode"
        );
    }

    #[test]
    fn settlement_errors_name_the_verb_and_the_sequence() {
        let verb = Verb::Nack;
        for (error, text) in [
            (
                RequestError::TransactionClosed { verb },
                "cannot nack messages with closed response ",
            ),
            (
                RequestError::SequenceUnknown { verb, sequence: -3 },
                "invalid nack sequence id -3",
            ),
            (
                RequestError::SequencesEmpty { verb: Verb::Ack },
                "cannot ack empty list of of offsets",
            ),
            (
                RequestError::SequencesEmpty {
                    verb: Verb::Requeue,
                },
                "cannot requeue empty list of of offsets",
            ),
            (
                RequestError::SequenceUnknown {
                    verb: Verb::Requeue,
                    sequence: 7,
                },
                "invalid ack sequence id 7",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
