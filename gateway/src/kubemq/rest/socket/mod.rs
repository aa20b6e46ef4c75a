//! WebSockets: the calls of the protocol that are streams.
//!
//! ```text
//!   open --> upgrade (101) --> pump <-- the stream of the call <-- frames <-- client
//!                               |
//!                               +--> client
//! ```
//!
//! Below it all the connection is metered: long messages take of the room for bodies.
//!
//! What is wrong with a subscription is told before the upgrade. A socket that the server closes says why, in
//! its close frame.

mod frames;
mod metered;
mod pump;
mod upgrade;

use std::sync::Arc;

use futures::StreamExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tonic::Status;

use self::upgrade::{Upgrade, Utterance};
use super::body::BodyRoom;
use super::error::RestError;
use super::route::Socket;
use super::wire::AnswerBody;
use super::{json, query};
use crate::kubemq::context::Context;
use crate::kubemq::events_send::EveryEventExchange;
use crate::kubemq::{events_subscribe, exchange, requests, transaction, validate};

/// Longest message of a client that nobody listens to.
const UNHEARD_BYTES_MAX: usize = 4 * 1024;

/// Opens a socket; a subscription is live when the client hears that its socket is open.
pub async fn open(
    context: &Arc<Context>,
    room: &BodyRoom,
    socket: Socket,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, RestError> {
    let context = Arc::clone(context);
    let bytes_max = context.config.rest.body_bytes_max;
    let utterance = |bytes_max| Utterance {
        bytes_max,
        room: room.clone(),
    };
    let unheard = || utterance(bytes_max.min(UNHEARD_BYTES_MAX));
    match socket {
        Socket::SubscribeEvents => {
            let mut wanted = query::subscribe(request.uri().query().unwrap_or_default())?;
            context.bind_client(&mut wanted.client_id);
            validate::subscription(&wanted)?;
            let upgrade = Upgrade::of(request)?;
            let events = events_subscribe::subscribe(Arc::clone(&context), wanted).await?;
            Ok(upgrade.accept(context, unheard(), |frames| (events, Some(frames))))
        }
        Socket::SubscribeRequests => {
            let mut wanted = query::subscribe(request.uri().query().unwrap_or_default())?;
            context.bind_client(&mut wanted.client_id);
            requests::check_subscription(&wanted)?;
            let upgrade = Upgrade::of(request)?;
            let asked = requests::subscribe(Arc::clone(&context), wanted).await?;
            Ok(upgrade.accept(context, unheard(), |frames| (asked, Some(frames))))
        }
        Socket::SendStream => {
            let upgrade = Upgrade::of(request)?;
            let sending = Arc::clone(&context);
            Ok(upgrade.accept(context, utterance(bytes_max), |frames| {
                let events = frames.map(message);
                let results = exchange::answers::<EveryEventExchange, _>(sending, events);
                (Box::pin(results), None)
            }))
        }
        Socket::QueueStream => {
            let upgrade = Upgrade::of(request)?;
            let receiving = Arc::clone(&context);
            Ok(upgrade.accept(context, utterance(bytes_max), |frames| {
                let answers = transaction::stream(receiving, frames.map(message));
                (Box::pin(answers), None)
            }))
        }
    }
}

/// The message in a frame. One that cannot be read ends its socket: what it was meant for is not known.
fn message<M: json::Value>(frame: Result<frames::Text, Status>) -> Result<M, Status> {
    json::read(frame?.as_bytes()).map_err(|error| {
        Status::invalid_argument(format!("the message is not what it must be: {error}"))
    })
}
