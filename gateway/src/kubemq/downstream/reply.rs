//! What a downstream says to its client.

use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{
    QueuesDownstreamRequest, QueuesDownstreamRequestType as Type, QueuesDownstreamResponse,
};
use crate::kubemq::validate::echoed;
use crate::transport::outgoing;

/// One response on its way.
pub type Outgoing = outgoing::Outgoing<QueuesDownstreamResponse>;

/// What a reply says about the request it answers.
#[derive(Clone, Debug)]
pub struct Origin {
    request_id: String,
    kind: i32,
    transaction: String,
}

impl Origin {
    /// Of a request that may name a transaction.
    pub fn of(request: &QueuesDownstreamRequest) -> Self {
        Self {
            request_id: echoed(&request.request_id).to_owned(),
            kind: request.request_type_data,
            transaction: echoed(&request.ref_transaction_id).to_owned(),
        }
    }

    /// With the transaction that the answer is about.
    pub fn with_transaction(self, transaction: String) -> Self {
        Self {
            transaction,
            ..self
        }
    }

    /// A reply with nothing in it yet.
    pub fn reply(self) -> QueuesDownstreamResponse {
        QueuesDownstreamResponse {
            transaction_id: self.transaction,
            ref_request_id: self.request_id,
            request_type_data: self.kind,
            ..QueuesDownstreamResponse::default()
        }
    }

    /// The reply to a request that was refused or failed.
    pub fn error(self, error: &RequestError) -> Outgoing {
        let kind = if *error == RequestError::DownstreamType {
            Type::PollRequestTypeUnknown as i32
        } else {
            self.kind
        };
        Outgoing::plain(QueuesDownstreamResponse {
            is_error: true,
            error: error.to_string(),
            request_type_data: kind,
            ..self.reply()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_request_type_is_answered_with_type_zero() {
        let request = QueuesDownstreamRequest {
            request_id: "r".to_owned(),
            request_type_data: 77,
            ref_transaction_id: "t".to_owned(),
            ..QueuesDownstreamRequest::default()
        };
        let response = Origin::of(&request)
            .error(&RequestError::DownstreamType)
            .response;
        assert_eq!(response.request_type_data, 0);
        assert_eq!(response.error, "request unknown");
        assert_eq!(response.ref_request_id, "r");
        assert_eq!(response.transaction_id, "t");
        assert!(response.is_error);
    }
}
