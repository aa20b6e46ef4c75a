//! The protocol between nodes, and how its answers read in this crate.

use tonic::{Code, Status};

use super::peers::PeerError;

#[allow(clippy::all, missing_docs)]
pub(crate) mod proto {
    tonic::include_proto!("flotilla.cluster.v1");
}

/// Bytes of one frame of a conversation, and of one part of a snapshot, at most: the largest entry and
/// what goes with it.
pub(crate) const MESSAGE_BYTES_MAX: usize = flotilla_storage::ENTRY_BYTES_MAX + (16 << 20);
/// Bytes of a call or its answer at most: what is larger is a conversation.
pub(crate) const CALL_BYTES_MAX: usize = 16 << 20;

/// The peer was reached, and says no.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::DataLoss
            | Code::PermissionDenied
    )
}

impl From<Status> for PeerError {
    fn from(status: Status) -> Self {
        let reason = match std::error::Error::source(&status) {
            // The transport's own words are in the chain, not in the message.
            Some(source) => crate::error::chain(source),
            None => status.message().to_owned(),
        };
        if is_refusal(status.code()) {
            Self::Refused { reason }
        } else {
            Self::Unreachable { reason }
        }
    }
}
