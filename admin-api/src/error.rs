//! Errors as the client sees them: a status, a code for programs and a message for people.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use flotilla_broker::BrokerError;
use flotilla_model::name::NameError;
use serde::Serialize;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The broker said no.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The name in the path or the namespace cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A query, path or body that is not as documented.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what is allowed.
        what: String,
    },
    /// A body above the configured size.
    #[error("the body has more than the {allowed} bytes that are allowed")]
    BodyTooLarge {
        /// The setting.
        allowed: usize,
    },
    /// No such path.
    #[error("there is nothing at {path}")]
    NoRoute {
        /// What was asked for.
        path: String,
    },
    /// The path exists, but not with this method.
    #[error("{method} is not possible here; allowed: {allowed}")]
    Method {
        /// What was tried.
        method: String,
        /// What is possible, divided by commas.
        allowed: String,
    },
    /// The node is starting or stopping.
    #[error("the node is not serving: {reason}")]
    NotServing {
        /// What it is doing instead.
        reason: String,
    },
}

#[derive(Serialize)]
struct Body<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    code: &'a str,
    message: String,
}

impl AdminError {
    /// The status, and the code that programs may rely on.
    fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Name(_) | Self::Broker(BrokerError::InvalidName(_)) => {
                (StatusCode::BAD_REQUEST, "invalid_name")
            }
            Self::Invalid { .. } | Self::Broker(BrokerError::InvalidRequest { .. }) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Self::BodyTooLarge { .. } | Self::Broker(BrokerError::TooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            }
            Self::NoRoute { .. } => (StatusCode::NOT_FOUND, "no_route"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NotServing { .. } => (StatusCode::SERVICE_UNAVAILABLE, "not_serving"),
            Self::Broker(BrokerError::NotFound { .. }) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Broker(BrokerError::QueueFull { .. }) => (StatusCode::CONFLICT, "queue_full"),
            Self::Broker(BrokerError::Conflict { .. }) => (StatusCode::CONFLICT, "conflict"),
            Self::Broker(BrokerError::StaleLease) => (StatusCode::CONFLICT, "stale_lease"),
            Self::Broker(BrokerError::StorageFull { .. }) => {
                (StatusCode::INSUFFICIENT_STORAGE, "storage_full")
            }
            Self::Broker(BrokerError::Busy { .. }) => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Self::Broker(BrokerError::Unavailable { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            Self::Broker(BrokerError::OutcomeUnknown) => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown")
            }
            Self::Broker(BrokerError::NoResponder { .. }) => {
                (StatusCode::NOT_FOUND, "no_responder")
            }
            Self::Broker(BrokerError::ResponderLost { .. }) => {
                (StatusCode::GATEWAY_TIMEOUT, "responder_lost")
            }
            Self::Broker(BrokerError::RequestTimeout { .. }) => {
                (StatusCode::GATEWAY_TIMEOUT, "request_timeout")
            }
            Self::Broker(BrokerError::Damaged { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "damaged")
            }
            Self::Broker(BrokerError::ShuttingDown) => {
                (StatusCode::SERVICE_UNAVAILABLE, "shutting_down")
            }
        }
    }
}

impl ResponseError for AdminError {
    fn status_code(&self) -> StatusCode {
        self.kind().0
    }

    fn error_response(&self) -> HttpResponse {
        let (status, code) = self.kind();
        let mut response = HttpResponse::build(status);
        if let Self::Method { allowed, .. } = self {
            response.insert_header(("allow", allowed.as_str()));
        }
        response.json(Body {
            error: Detail {
                code,
                message: self.to_string(),
            },
        })
    }
}
