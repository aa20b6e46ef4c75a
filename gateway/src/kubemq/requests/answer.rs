//! SendResponse: what a responder says to a request, through any connection of any node.

use flotilla_broker::{BrokerError, ReplyToken};
use tonic::Status;

use super::convert::response_in;
use super::validate;
use crate::kubemq::context::Context;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{Empty, Response};

/// Passes a response on. Nobody is told that nobody waits for it any more, or ever did.
pub fn answer(context: &Context, mut response: Response) -> Result<Empty, Status> {
    context.bind_client(&mut response.client_id);
    validate::response(&response)?;
    let Ok(token) = response.reply_channel.parse::<ReplyToken>() else {
        return Ok(Empty {});
    };
    let results = context.broker.reply(vec![(token, response_in(response))]);
    match results.into_iter().next() {
        None | Some(Ok(()) | Err(BrokerError::Conflict { .. })) => Ok(Empty {}),
        Some(Err(error)) => Err(RequestError::from(error).status()),
    }
}
