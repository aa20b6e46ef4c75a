//! Each message is in one hand at a time, whatever consumers do to their streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::ReceiveQueueMessagesRequest;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{
    Client, Downstream, Gateway, a_get, bodies, fill, seed, sequences, soon, unique,
};

const MESSAGES: usize = 200;
const CONSUMERS: usize = 4;
const STEPS: usize = 60;

/// What the consumers know together.
#[derive(Default)]
struct Ledger {
    /// Message to the consumer that has it.
    held: BTreeMap<String, usize>,
    /// Acknowledged, and the server has said so.
    gone: BTreeSet<String>,
    /// Acknowledged, but the stream was dropped before the server said so.
    doubtful: BTreeSet<String>,
}

impl Ledger {
    fn delivered(&mut self, consumer: usize, messages: &[String]) {
        for message in messages {
            assert!(!self.gone.contains(message), "{message} was acknowledged");
            let holder = self.held.insert(message.clone(), consumer);
            assert_eq!(holder, None, "{message} is held by another consumer");
        }
    }

    fn given_back(&mut self, messages: &[String]) {
        for message in messages {
            assert!(self.held.remove(message).is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_in_two_hands() {
    let seed = seed();
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, MESSAGES).await;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut consumers = Vec::new();
    for consumer in 0..CONSUMERS {
        let consumer = Consumer {
            number: consumer,
            client: gateway.client().await,
            queue: queue.clone(),
            ledger: Arc::clone(&ledger),
            random: StdRng::seed_from_u64(seed + consumer as u64),
        };
        consumers.push(tokio::spawn(consumer.run()));
    }
    for consumer in consumers {
        consumer.await.unwrap();
    }

    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    assert!(ledger.held.is_empty());
    // What the last streams held is there again soon; a round takes at most a second.
    let mut left = BTreeSet::new();
    let mut quiet_rounds = 0;
    while quiet_rounds < 2 {
        let found = drain(&mut client, &queue).await;
        quiet_rounds = if found.is_empty() {
            quiet_rounds + 1
        } else {
            0
        };
        for message in found {
            assert!(left.insert(message.clone()), "{message} came twice");
        }
    }
    for message in (1..=MESSAGES).map(|number| number.to_string()) {
        let is_gone = ledger.gone.contains(&message);
        let is_doubtful = ledger.doubtful.contains(&message);
        assert!(
            is_gone != left.contains(&message) || is_doubtful,
            "{message}"
        );
    }
}

/// What is there now; each message once.
async fn drain(client: &mut Client, queue: &str) -> Vec<String> {
    let request = ReceiveQueueMessagesRequest {
        client_id: "c".to_owned(),
        channel: queue.to_owned(),
        max_number_of_messages: 1_000,
        wait_time_seconds: 1,
        ..ReceiveQueueMessagesRequest::default()
    };
    let received = soon(client.receive_queue_messages(request)).await.unwrap();
    bodies(&received.into_inner().messages)
}

struct Consumer {
    number: usize,
    client: Client,
    queue: String,
    ledger: Arc<Mutex<Ledger>>,
    random: StdRng,
}

impl Consumer {
    async fn run(mut self) {
        let mut downstream = Downstream::open(&mut self.client).await;
        for _ in 0..STEPS {
            let (count, wait_ms) = (
                self.random.random_range(1..8),
                self.random.random_range(0..30),
            );
            let get = a_get(&self.queue, count, wait_ms, false);
            downstream.send(Type::Get, get).await;
            let got = downstream.answer().await;
            assert!(!got.is_error, "{}", got.error);
            if got.messages.is_empty() {
                continue;
            }
            let messages = bodies(&got.messages);
            self.ledger
                .lock()
                .unwrap()
                .delivered(self.number, &messages);
            // The first `part` of them are settled one by one, in one request, the rest otherwise.
            let part = self.random.random_range(0..=messages.len());
            let some = &sequences(&got.messages)[..part];
            let (first, rest) = messages.split_at(part);
            let id = &got.transaction_id;
            let acknowledges = self.random.random_bool(0.3);
            if part > 0 {
                let kind = if acknowledges {
                    Type::AckRange
                } else {
                    self.ledger.lock().unwrap().given_back(first);
                    Type::NAckRange
                };
                downstream.settle(kind, id, some).await;
            }
            if self.random.random_bool(0.2) {
                // Drops the stream with settlements under way and messages in hand.
                {
                    let mut ledger = self.ledger.lock().unwrap();
                    ledger.given_back(rest);
                    if acknowledges {
                        ledger.given_back(first);
                        ledger.doubtful.extend(first.iter().cloned());
                    }
                }
                if self.random.random_bool(0.5) {
                    downstream.half_close();
                }
                downstream = Downstream::open(&mut self.client).await;
                continue;
            }
            if part < messages.len() {
                self.ledger.lock().unwrap().given_back(rest);
                let kind = if self.random.random_bool(0.5) {
                    Type::NAckAll
                } else {
                    Type::CloseByClient
                };
                downstream.settle(kind, id, &[]).await;
            }
            // The answer comes after all settlements before it were made.
            downstream.settle(Type::TransactionStatus, id, &[]).await;
            let status = downstream.answer().await;
            assert!(
                status.transaction_complete && !status.is_error,
                "{}",
                status.error
            );
            if acknowledges {
                let mut ledger = self.ledger.lock().unwrap();
                ledger.given_back(first);
                ledger.gone.extend(first.iter().cloned());
            }
        }
        downstream.half_close();
        downstream.end().await.unwrap();
    }
}
