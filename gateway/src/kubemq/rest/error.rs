//! Why a request over HTTP is refused: the text is the envelope's message.

use std::time::Duration;

use hyper::StatusCode;
use tonic::{Code, Status};

use crate::kubemq::error::RequestError;
use crate::transport::lifecycle::NotServing;

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("there is nothing at {path}")]
    NoRoute { path: String },
    #[error("{method} is not possible here, {allowed} is")]
    Method {
        method: String,
        allowed: &'static str,
    },
    #[error("the body is not what it must be: {0}")]
    Body(serde_json::Error),
    #[error("the body has more than the {allowed} bytes that are allowed")]
    BodyTooLarge { allowed: usize },
    #[error("the body did not come within {}s", .wait_max.as_secs())]
    BodyLate { wait_max: Duration },
    #[error("the body could not be read: {0}")]
    BodyLost(hyper::Error),
    #[error("too many large requests at the same time, please retry")]
    NoRoom,
    #[error("{key} is {given:?} in the query, it must be a whole number")]
    Number { key: &'static str, given: String },
    #[error("this is a WebSocket: {what}")]
    Upgrade { what: &'static str },
    #[error("the answer could not be written: {0}")]
    Answer(serde_json::Error),
    #[error("{}", .0.message())]
    Call(Status),
}

impl From<Status> for RestError {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<RequestError> for RestError {
    fn from(error: RequestError) -> Self {
        Self::Call(error.status())
    }
}

impl From<NotServing> for RestError {
    fn from(error: NotServing) -> Self {
        RequestError::from(error).into()
    }
}

impl RestError {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyLate { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upgrade { .. } | Self::Answer(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Body(_) | Self::BodyLost(_) | Self::Number { .. } => StatusCode::BAD_REQUEST,
            Self::Call(status) => match status.code() {
                Code::Unavailable | Code::ResourceExhausted => StatusCode::SERVICE_UNAVAILABLE,
                Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                Code::PermissionDenied => StatusCode::FORBIDDEN,
                // Whatever else is wrong, a request that nobody answered included, is a bad request in this
                // protocol.
                _ => StatusCode::BAD_REQUEST,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_broker::BrokerError;

    use super::*;

    #[test]
    fn statuses_tell_what_a_client_can_do() {
        let name = "a".to_owned();
        for (error, status, text) in [
            (
                RequestError::from(BrokerError::RequestTimeout { name }).into(),
                400,
                "Error 301: timeout for request message",
            ),
            (
                RequestError::ClientId.into(),
                400,
                "Error 101: invalid clientID value, cannot be empty",
            ),
            (
                NotServing::ShuttingDown.into(),
                503,
                "Error 409: server is in shutdown mode",
            ),
            (
                NotServing::NotReady.into(),
                503,
                "grpc server is not ready to accept requests",
            ),
            (
                RestError::BodyTooLarge { allowed: 7 },
                413,
                "the body has more than the 7 bytes that are allowed",
            ),
            (
                RestError::Upgrade { what: "x" },
                500,
                "this is a WebSocket: x",
            ),
        ] {
            assert_eq!(
                (error.status().as_u16(), error.to_string().as_str()),
                (status, text)
            );
        }
    }
}
