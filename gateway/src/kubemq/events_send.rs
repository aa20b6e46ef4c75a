//! SendEvent and SendEventsStream: plain events become signals, stored ones topic messages.

use std::future::ready;
use std::sync::Arc;

use flotilla_broker::{Publish, Signal};
use futures::FutureExt;
use tonic::Status;

use super::context::Context;
use super::convert::{event_content, id_or_new};
use super::error::RequestError;
use super::exchange::{Exchange, Worked};
use super::protocol::{Event, Result as EventResult};
use super::slices::in_slices;
use super::validate;
use crate::access::Action;

/// What became of one event.
struct Sent {
    event_id: String,
    store: bool,
    failure: Option<RequestError>,
}

/// Sends one event. Only what is wrong with the request itself, or calls for another try, fails the
/// call; otherwise the result says it.
pub async fn send(context: &Context, event: Event) -> Result<EventResult, Status> {
    validate::event(&event)?;
    let mut sent = send_all(context, vec![event]).await;
    let Some(sent) = sent.pop() else {
        return Err(Status::internal("the event has no result"));
    };
    match &sent.failure {
        Some(failure) if failure.fails_call() || !sent.store => Err(failure.status()),
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
    let mut sent: Vec<Sent> = Vec::with_capacity(events.len());
    let (mut signals, mut signal_places) = (Vec::new(), Vec::new());
    let (mut publishes, mut publish_places) = (Vec::new(), Vec::new());
    for (place, mut event) in events.into_iter().enumerate() {
        event.event_id = id_or_new(event.event_id);
        let (event_id, store) = (event.event_id.clone(), event.store);
        let name = validate::event(&event)
            .and_then(|name| context.allowed(&event.client_id, Action::Write, name));
        let failure = match name {
            Ok(topic) if store => {
                publish_places.push(place);
                publishes.push(Publish {
                    topic,
                    message: event_content(event),
                    // Ids of this protocol are not unique: they tell no repeat from a new event.
                    dedup: None,
                });
                None
            }
            Ok(name) => {
                signal_places.push(place);
                signals.push(Signal {
                    name,
                    message: Arc::new(event_content(event)),
                });
                None
            }
            Err(refused) => Some(refused),
        };
        sent.push(Sent {
            event_id,
            store,
            failure,
        });
    }
    let items_max = context.broker.batch_items_max();
    let (signalled, published) = tokio::join!(
        in_slices(signals, items_max, |slice| context
            .broker
            .signal(slice)
            .map(ready)),
        in_slices(publishes, items_max, |slice| context
            .broker
            .begin_publish(slice)),
    );
    let signalled = signal_places
        .into_iter()
        .zip(signalled.into_iter().map(Result::err));
    let published = publish_places
        .into_iter()
        .zip(published.into_iter().map(Result::err));
    for (place, failure) in signalled.chain(published) {
        sent[place].failure = failure.map(RequestError::from);
    }
    sent
}

/// A stream of events: one result per stored event, in order; for a plain one only a failure.
pub struct EventsExchange;

impl Exchange for EventsExchange {
    type Request = Event;
    type Answer = EventResult;

    async fn work_on(context: &Context, events: Vec<Event>) -> Worked<EventResult> {
        let mut worked = Worked {
            answers: Vec::new(),
            ending: false,
        };
        for sent in send_all(context, events).await {
            worked.ending |= sent.failure == Some(RequestError::ShuttingDown);
            if sent.store || sent.failure.is_some() {
                worked.answers.push(sent.result());
            }
        }
        worked
    }
}
