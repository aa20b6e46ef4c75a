//! Calls with one request and one answer.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;

use super::body::{BodyRoom, Taken};
use super::error::RestError;
use super::route::{Call, Said, envelope};
use super::{json, query};
use crate::kubemq::context::Context;
use crate::kubemq::protocol::{QueuesInfoRequest, QueuesInfoResponse};
use crate::kubemq::{events_send, ping, queue_receive, queue_send, queues_info, requests};
use crate::transport::gate::Written;

/// Makes a call.
pub async fn answer(
    context: &Arc<Context>,
    room: &BodyRoom,
    call: Call,
    request: Request<Incoming>,
) -> Result<Said, RestError> {
    match call {
        Call::SendEvent => {
            let (event, _taken) = read(context, room, request).await?;
            told(&events_send::send(context, event).await?)
        }
        Call::SendRequest => {
            // What waits for a response is bounded by the broker.
            let (asked, _) = read(context, room, request).await?;
            told(&requests::send(context, asked).await?)
        }
        Call::SendResponse => {
            let (response, _taken) = read(context, room, request).await?;
            requests::answer(context, response)?;
            Ok(Said::Told(envelope::<()>(None)?, None))
        }
        Call::QueueSend => {
            let (message, _taken) = read(context, room, request).await?;
            told(&queue_send::send(context, message).await?)
        }
        Call::QueueSendBatch => {
            let (batch, _taken) = read(context, room, request).await?;
            told(&queue_send::send_batch(context, batch).await?)
        }
        Call::QueueReceive => {
            let (wanted, _) = read(context, room, request).await?;
            let mut received = queue_receive::receive(Arc::clone(context), wanted).await?;
            let written = received.extensions_mut().remove::<Written>();
            let data = json::shown(received.get_ref());
            Ok(Said::Told(envelope(Some(data))?, written))
        }
        Call::QueueAckAll => {
            let (wanted, _) = read(context, room, request).await?;
            told(&queue_receive::ack_all(context, wanted).await?)
        }
        Call::QueueInfo => told(&info(context, room, request).await?),
        Call::Ping => told(&ping::answer(&context.config, &context.started)),
    }
}

/// A body as the message that it must be.
async fn read<M: json::Value>(
    context: &Context,
    room: &BodyRoom,
    request: Request<Incoming>,
) -> Result<(M, Taken), RestError> {
    let reading = room.read(request.into_body());
    context.until_ending(reading).await?
}

fn told<M: json::Value>(message: &M) -> Result<Said, RestError> {
    Ok(Said::Told(envelope(Some(json::shown(message)))?, None))
}

/// Which queues are asked for stands in the body if there is one, else in the query.
async fn info(
    context: &Context,
    room: &BodyRoom,
    request: Request<Incoming>,
) -> Result<QueuesInfoResponse, RestError> {
    let by_query = query::queues_info(request.uri().query().unwrap_or_default());
    let reading = room.read_bytes(request.into_body());
    let (body, taken) = context.until_ending(reading).await??;
    let wanted: QueuesInfoRequest = if body.is_empty() {
        by_query
    } else {
        json::read(&body).map_err(RestError::Body)?
    };
    drop((body, taken));
    Ok(queues_info::answer(context, wanted).await?)
}
