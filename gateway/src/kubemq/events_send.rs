//! SendEvent and SendEventsStream: plain events become signals, stored ones topic messages.

use flotilla_model::command::QueuePolicy;
use tonic::Status;

use super::context::Context;
use super::convert::{event_content, id_or_new};
use super::dispatch::{Dispatch, Targets};
use super::error::RequestError;
use super::exchange::{Exchange, Worked};
use super::protocol::{Event, Result as EventResult};
use super::{routing, validate};

/// What became of one event.
struct Sent {
    event_id: String,
    store: bool,
    /// The event was wrong, and went nowhere.
    is_refused: bool,
    failure: Option<RequestError>,
}

/// Sends one event. Only what is wrong with the request itself, or calls for another try, fails the
/// call; otherwise the result says it.
pub async fn send(context: &Context, event: Event) -> Result<EventResult, Status> {
    let mut sent = send_all(context, vec![event]).await;
    let Some(sent) = sent.pop() else {
        return Err(Status::internal("the event has no result"));
    };
    match &sent.failure {
        Some(failure) if failure.is_unavailable() || sent.is_refused || !sent.store => {
            Err(failure.status())
        }
        _ => Ok(sent.result()),
    }
}

impl Sent {
    fn result(self) -> EventResult {
        EventResult {
            event_id: self.event_id,
            sent: self.failure.is_none(),
            error: self
                .failure
                .map_or_else(String::new, |failure| failure.to_string()),
        }
    }
}

/// Sends events, each kind in order.
async fn send_all(context: &Context, events: Vec<Event>) -> Vec<Sent> {
    let mut dispatch = Dispatch::new(context, events.len());
    let mut sent: Vec<Sent> = Vec::with_capacity(events.len());
    for mut event in events {
        context.bind_client(&mut event.client_id);
        event.event_id = id_or_new(event.event_id);
        sent.push(Sent {
            event_id: event.event_id.clone(),
            store: event.store,
            is_refused: false,
            failure: None,
        });
        match targets(context, &event) {
            // What comes from an event has no policy in queues.
            Ok(targets) => {
                let content = event_content(event);
                dispatch
                    .send(targets, content, QueuePolicy::default())
                    .await;
            }
            Err(refused) => dispatch.refuse(refused),
        }
    }
    for (sent, fate) in sent.iter_mut().zip(dispatch.finish().await) {
        sent.is_refused = fate.is_refused;
        sent.failure = fate.into_failure();
    }
    sent
}

/// Where an event goes, if it may.
fn targets(context: &Context, event: &Event) -> Result<Targets, RequestError> {
    let targets = if routing::is_list(&event.channel) {
        validate::client_id(&event.client_id)?;
        let own = validate::event_kind(event);
        let targets = context.targets(&event.channel, own)?;
        validate::content(&event.metadata, &event.body)?;
        Targets::Several(targets)
    } else {
        Targets::One(validate::event(event)?)
    };
    context.allowed_targets(&event.client_id, targets)
}

/// A stream of events: one result per stored event, in order; for a plain one only a failure.
pub struct EventsExchange;

impl Exchange for EventsExchange {
    type Request = Event;
    type Answer = EventResult;

    async fn work_on(context: &Context, events: Vec<Event>) -> Worked<EventResult> {
        work_on(context, events, |sent| sent.store || sent.failure.is_some()).await
    }
}

/// A stream of events with one result for each, in order.
pub struct EveryEventExchange;

impl Exchange for EveryEventExchange {
    type Request = Event;
    type Answer = EventResult;

    async fn work_on(context: &Context, events: Vec<Event>) -> Worked<EventResult> {
        work_on(context, events, |_| true).await
    }
}

async fn work_on(
    context: &Context,
    events: Vec<Event>,
    is_answered: fn(&Sent) -> bool,
) -> Worked<EventResult> {
    let mut worked = Worked {
        answers: Vec::new(),
        ending: false,
    };
    for sent in send_all(context, events).await {
        worked.ending |= sent.failure == Some(RequestError::ShuttingDown);
        if is_answered(&sent) {
            worked.answers.push(sent.result());
        }
    }
    worked
}
