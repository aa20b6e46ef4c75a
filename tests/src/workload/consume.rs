//! Consumers of a queue, on the stream that tells when a settlement has taken effect: requests of
//! one stream take effect in order, so the answer to the next one confirms it.

use super::message;
use super::protocol::{
    QueueMessage, QueuesDownstreamRequest, QueuesDownstreamRequestType as Type,
    QueuesDownstreamResponse,
};
use super::route::{Client, Route};
use crate::history::{HoldId, Receipt, Recorder, Settle, Settlement};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

const ITEMS_MAX: i32 = 32;
const WAIT_MS: i32 = 300;
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Between receiving and settling, at most.
const WORK_MS_MAX: u64 = 30;

/// One consumer.
pub struct Consumer {
    pub number: u32,
    pub queue: String,
    pub route: Route,
    pub recorder: Recorder,
    /// How many of a hundred answers are rejected.
    pub rejects: u32,
    pub seed: u64,
}

/// A stream and what is held on it.
struct Downstream {
    requests: mpsc::Sender<QueuesDownstreamRequest>,
    answers: Streaming<QueuesDownstreamResponse>,
    held: Option<HoldId>,
    /// The settlement that the next answer confirms.
    unconfirmed: Option<HoldId>,
}

impl Consumer {
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut random = StdRng::seed_from_u64(self.seed ^ u64::from(self.number) << 16);
        while !*stop.borrow() {
            let Some(client) = self.route.client().await else {
                continue;
            };
            let Ok(mut downstream) = self.open(client).await else {
                self.route.leave().await;
                continue;
            };
            let consumed = self.consume(&mut downstream, &mut random, &stop).await;
            if let Some(held) = downstream.held {
                let now = self.recorder.now();
                let mut history = self.recorder.history();
                history.queue(&self.queue).lost.insert(held, now);
            }
            if consumed.is_err() {
                self.route.leave().await;
            }
        }
    }

    async fn open(&self, mut client: Client) -> Result<Downstream, Status> {
        let (requests, outgoing) = mpsc::channel(4);
        // The answer's head comes with the first answer, so ask first.
        requests
            .try_send(self.get())
            .map_err(|error| Status::internal(error.to_string()))?;
        let opened = client.queues_downstream(ReceiverStream::new(outgoing));
        let answers = tokio::time::timeout(ANSWER_WITHIN, opened)
            .await
            .map_err(|_| Status::deadline_exceeded("no stream"))??
            .into_inner();
        Ok(Downstream {
            requests,
            answers,
            held: None,
            unconfirmed: None,
        })
    }

    fn get(&self) -> QueuesDownstreamRequest {
        QueuesDownstreamRequest {
            request_type_data: Type::Get.into(),
            channel: self.queue.clone(),
            max_items: ITEMS_MAX,
            wait_timeout: WAIT_MS,
            ..self.request()
        }
    }

    fn request(&self) -> QueuesDownstreamRequest {
        QueuesDownstreamRequest {
            request_id: "1".to_owned(),
            client_id: format!("consumer-{}", self.number),
            ..QueuesDownstreamRequest::default()
        }
    }

    /// Receives and settles until the stream fails or the test wants to stop; the first get has
    /// been sent.
    async fn consume(
        &self,
        downstream: &mut Downstream,
        random: &mut StdRng,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), Status> {
        loop {
            let answer = next(&mut downstream.answers).await?;
            if answer.is_error {
                return Err(Status::aborted(answer.error));
            }
            if let Some(hold) = downstream.unconfirmed.take() {
                self.confirm(hold);
            }
            if !answer.messages.is_empty() {
                let hold = self.recorder.next_hold();
                self.receive(hold, &answer.messages);
                downstream.held = Some(hold);
                let work = Duration::from_millis(random.random_range(0..=WORK_MS_MAX));
                tokio::time::sleep(work).await;
                let settlement = if random.random_range(0..100) < self.rejects {
                    Settlement::Reject
                } else {
                    Settlement::Acknowledge
                };
                self.settle(hold, settlement);
                downstream.held = None;
                downstream.unconfirmed = Some(hold);
                let kind = match settlement {
                    Settlement::Acknowledge => Type::AckAll,
                    Settlement::Reject => Type::NAckAll,
                };
                let request = QueuesDownstreamRequest {
                    request_type_data: kind.into(),
                    ref_transaction_id: answer.transaction_id,
                    ..self.request()
                };
                send(&downstream.requests, request).await?;
            } else if *stop.borrow() {
                return Ok(());
            }
            send(&downstream.requests, self.get()).await?;
        }
    }

    fn receive(&self, hold: HoldId, messages: &[QueueMessage]) {
        let receipts = receipts(
            &self.recorder,
            hold,
            self.number,
            self.route.node(),
            messages,
        );
        let mut history = self.recorder.history();
        history.queue(&self.queue).receipts.extend(receipts);
    }

    fn settle(&self, hold: HoldId, settlement: Settlement) {
        let settle = Settle {
            hold,
            settlement,
            invoked: self.recorder.now(),
            confirmed: None,
        };
        let mut history = self.recorder.history();
        history.queue(&self.queue).settles.push(settle);
    }

    fn confirm(&self, hold: HoldId) {
        let now = self.recorder.now();
        let mut history = self.recorder.history();
        let settles = &mut history.queue(&self.queue).settles;
        if let Some(settle) = settles.iter_mut().rfind(|settle| settle.hold == hold) {
            settle.confirmed = Some(now);
        }
    }
}

/// Messages as a history has them.
pub fn receipts(
    recorder: &Recorder,
    hold: HoldId,
    consumer: u32,
    node: u32,
    messages: &[QueueMessage],
) -> Vec<Receipt> {
    let at = recorder.now();
    messages
        .iter()
        .map(|message| {
            let (name, intact) = message::read(&message.body);
            let attributes = message.attributes.clone().unwrap_or_default();
            Receipt {
                hold,
                consumer,
                node,
                at,
                sequence: attributes.sequence,
                name,
                intact,
                receive_count: u32::try_from(attributes.receive_count).unwrap_or(0),
            }
        })
        .collect()
}

async fn send(
    requests: &mpsc::Sender<QueuesDownstreamRequest>,
    request: QueuesDownstreamRequest,
) -> Result<(), Status> {
    let sent = requests.send(request).await;
    sent.map_err(|_| Status::unavailable("the stream has ended"))
}

async fn next(
    answers: &mut Streaming<QueuesDownstreamResponse>,
) -> Result<QueuesDownstreamResponse, Status> {
    match tokio::time::timeout(ANSWER_WITHIN, answers.message()).await {
        Ok(answer) => answer?.ok_or_else(|| Status::unavailable("the stream has ended")),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}
