//! SendRequest: one request, and what its responder says to it.

use std::time::{Duration, Instant};

use flotilla_model::name::Kind;
use tonic::Status;

use super::cache::Key;
use super::convert::{request_in, response_out};
use super::validate;
use crate::access::Action;
use crate::kubemq::channels;
use crate::kubemq::context::Context;
use crate::kubemq::convert::id_or_new;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{Request, Response};

/// Asks, and waits for the first response. Who gives up, gives up the request too.
pub async fn send(context: &Context, mut request: Request) -> Result<Response, Status> {
    context.bind_client(&mut request.client_id);
    let name = validate::request(&request)?;
    let request_id = id_or_new(std::mem::take(&mut request.request_id));
    request.request_id.clone_from(&request_id);
    if request.channel == channels::CHANNEL {
        return Ok(channels::answer(context, request).await?);
    }
    let name = context.allowed(&request.client_id, Action::Write, name)?;
    let key = match name.kind() {
        Kind::Request => Key::of(&request.channel, &request.cache_key),
        _ => None,
    };
    if let Some(key) = &key
        && let Some(hit) = context.query_cache.get(key, Instant::now())
    {
        return Ok(Response { request_id, ..hit });
    }
    let ttl = Duration::from_secs(u64::try_from(request.cache_ttl).unwrap_or(0));
    let reply = context
        .until_ending(context.broker.request(request_in(name, request)))
        .await?
        .map_err(RequestError::from)?;
    let response = response_out(reply, request_id);
    if let Some(key) = key.filter(|_| response.executed) {
        context.query_cache.put(key, &response, ttl, Instant::now());
    }
    Ok(response)
}
