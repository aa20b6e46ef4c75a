//! Readers that follow a topic while it is written.

use super::message;
use super::protocol::subscribe::{EventsStoreType, SubscribeType};
use super::protocol::{EventReceive, Subscribe};
use super::route::{Client, Route};
use crate::history::{HoldId, Read, Recorder};
use std::time::Duration;
use tokio::sync::watch;
use tonic::{Status, Streaming};

const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(30);

/// One follower, which subscribes again where it was when its subscription breaks.
pub struct Follower {
    pub topic: String,
    pub route: Route,
    pub recorder: Recorder,
    pub number: u32,
}

impl Follower {
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut last = 0;
        while !*stop.borrow() {
            let Some(client) = self.route.client().await else {
                continue;
            };
            let subscription = Subscription {
                reader: self.recorder.next_hold(),
                node: self.route.node(),
                from: last + 1,
                whole: false,
            };
            // A new name each time: a known one goes on where the server stopped sending, which can
            // be behind what arrived here.
            let name = format!("follower-{}-{}", self.number, subscription.reader.0);
            let follow = async {
                let mut events = subscribe(client, &self.topic, &name, subscription.from).await?;
                while let Some(event) = events.message().await? {
                    last = event.sequence;
                    let read = subscription.read(&self.recorder, &event);
                    let mut history = self.recorder.history();
                    history.topic(&self.topic).reads.push(read);
                }
                Ok::<(), Status>(())
            };
            let is_broken = tokio::select! {
                _ = follow => true,
                _ = stop.wait_for(|stop| *stop) => false,
            };
            if is_broken {
                self.route.leave().await;
            }
        }
    }
}

/// Subscribes to a topic from an offset on.
pub async fn subscribe(
    mut client: Client,
    topic: &str,
    name: &str,
    first: u64,
) -> Result<Streaming<EventReceive>, Status> {
    let (start, value) = if first <= 1 {
        (EventsStoreType::StartFromFirst, 0)
    } else {
        (EventsStoreType::StartAtSequence, first)
    };
    let request = Subscribe {
        subscribe_type_data: SubscribeType::EventsStore.into(),
        client_id: name.to_owned(),
        channel: topic.to_owned(),
        group: String::new(),
        events_store_type_data: start.into(),
        events_store_type_value: value as i64,
    };
    let answer = client.subscribe_to_events(request);
    let subscribed = tokio::time::timeout(SUBSCRIBED_WITHIN, answer).await;
    match subscribed {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::deadline_exceeded("no subscription")),
    }
}

/// What is known of a subscription before it delivers anything.
pub struct Subscription {
    pub reader: HoldId,
    pub node: u32,
    /// The first sequence that it asks for.
    pub from: u64,
    /// Whether it reads all of the topic, when the load has ended.
    pub whole: bool,
}

impl Subscription {
    /// An event that it delivered, as a history has it.
    pub fn read(&self, recorder: &Recorder, event: &EventReceive) -> Read {
        let (name, intact) = message::read(&event.body);
        Read {
            reader: self.reader,
            from: self.from,
            node: self.node,
            at: recorder.now(),
            sequence: event.sequence,
            name,
            intact,
            whole: self.whole,
        }
    }
}
