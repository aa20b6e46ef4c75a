//! Producers: each sends its own numbered messages to one channel, one after the other.

use super::message;
use super::protocol::{
    Event, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest, SendQueueMessageResult,
};
use super::route::{Client, Route};
use crate::checker::Name;
use crate::history::{Moment, Recorder, Send};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

/// After this a call counts as failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const BATCH_MAX: usize = 8;
/// Pauses are this many times as long as the send took, within bounds: the load is one that the machine can
/// bear, or nodes that share it would look dead to each other.
const PAUSE_FACTOR: u32 = 3;
/// Short against the gaps that campaigns measure.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What a producer sends to.
#[derive(Clone, Debug)]
pub enum Target {
    Topic(String),
    Queue {
        name: String,
        /// Deliveries of a message, and where it goes after the last one.
        dead_letter: Option<(u32, String)>,
    },
}

/// Why sends failed, with how often.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, usize>>>);

impl Failures {
    /// What was counted so far.
    pub fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, reason: String) {
        *self.counts().entry(reason).or_default() += 1;
    }
}

/// What became of each message of a send: nothing, or why it failed.
type Outcomes = Vec<Result<(), String>>;

/// One producer.
pub struct Producer {
    pub number: u32,
    pub target: Target,
    pub route: Route,
    pub recorder: Recorder,
    pub failures: Failures,
    /// At least, after each send.
    pub pause: Duration,
    pub seed: u64,
}

impl Producer {
    /// Sends until it is told to stop. A message that failed is not sent again.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(self.seed ^ u64::from(self.number));
        let mut next = 1;
        while !*stop.borrow() {
            let Some(client) = self.route.client().await else {
                continue;
            };
            let count = match self.target {
                Target::Topic(_) => 1,
                Target::Queue { .. } => random.random_range(1..=BATCH_MAX),
            };
            let names: Vec<Name> = (next..)
                .take(count)
                .map(|number| Name {
                    producer: self.number,
                    number,
                })
                .collect();
            next += count as u64;
            let invoked = self.recorder.now();
            let began = Instant::now();
            let outcomes = match timeout(ANSWER_WITHIN, self.send(client, &names)).await {
                Ok(Ok(outcomes)) => outcomes,
                Ok(Err(status)) => {
                    vec![Err(format!("{:?}: {}", status.code(), status.message())); count]
                }
                Err(_) => vec![Err("no answer".to_owned()); count],
            };
            let pause = (began.elapsed() * PAUSE_FACTOR).min(PAUSE_MAX);
            self.record(&names, &outcomes, invoked);
            if outcomes.iter().any(Result::is_err) {
                self.route.leave().await;
            } else {
                tokio::time::sleep(pause.max(self.pause)).await;
            }
        }
    }

    async fn send(&self, mut client: Client, names: &[Name]) -> Result<Outcomes, Status> {
        match &self.target {
            Target::Topic(topic) => {
                let mut outcomes = Vec::new();
                for name in names {
                    let event = Event {
                        client_id: format!("producer-{}", self.number),
                        channel: topic.clone(),
                        body: message::body(*name),
                        store: true,
                        ..Event::default()
                    };
                    let result = client.send_event(event).await?.into_inner();
                    outcomes.push(result.sent.then_some(()).ok_or(result.error));
                }
                Ok(outcomes)
            }
            Target::Queue { name, dead_letter } => {
                let messages = names.iter().map(|message| QueueMessage {
                    client_id: format!("producer-{}", self.number),
                    channel: name.clone(),
                    body: message::body(*message),
                    policy: dead_letter
                        .as_ref()
                        .map(|(count, queue)| QueueMessagePolicy {
                            max_receive_count: *count as i32,
                            max_receive_queue: queue.clone(),
                            ..QueueMessagePolicy::default()
                        }),
                    ..QueueMessage::default()
                });
                let request = QueueMessagesBatchRequest {
                    batch_id: "1".to_owned(),
                    messages: messages.collect(),
                };
                let answer = client.send_queue_messages_batch(request).await?;
                let results = answer.into_inner().results;
                if results.len() != names.len() {
                    return Err(Status::internal(
                        "another number of results than of messages",
                    ));
                }
                let outcome = |result: SendQueueMessageResult| {
                    (!result.is_error).then_some(()).ok_or(result.error)
                };
                Ok(results.into_iter().map(outcome).collect())
            }
        }
    }

    fn record(&self, names: &[Name], outcomes: &Outcomes, invoked: Moment) {
        let answered = self.recorder.now();
        for outcome in outcomes {
            if let Err(reason) = outcome {
                self.failures.count(reason.clone());
            }
        }
        let sends = names.iter().zip(outcomes).map(|(name, outcome)| Send {
            name: *name,
            invoked,
            answered,
            acknowledged: outcome.is_ok(),
        });
        let mut history = self.recorder.history();
        match &self.target {
            Target::Topic(topic) => history.topic(topic).sends.extend(sends),
            Target::Queue { name, .. } => history.queue(name).sends.extend(sends),
        }
    }
}
