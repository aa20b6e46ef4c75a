//! Clients that send anything at all on their queue streams: nothing stays in their hands.

use std::time::Duration;

use flotilla_gateway::kubemq::protocol::{
    Empty, QueueMessage, QueuesDownstreamRequest, StreamQueueMessagesRequest,
};
use flotilla_model::name::Name;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::support::{
    Client, Downstream, Gateway, a_message, fill, leased, requests, seed, soon, unique,
};

const MESSAGES: usize = 200;
const STREAMS: usize = 24;
const STEPS: usize = 15;
/// Long enough for most answers; some requests have none.
const ANSWER_MAX: Duration = Duration::from_millis(20);

/// What a client has seen, to name it again.
struct Hostile {
    random: StdRng,
    queues: [String; 3],
    transactions: Vec<String>,
    sequences: Vec<u64>,
}

impl Hostile {
    fn queue(&mut self) -> String {
        let place = self.random.random_range(0..3);
        self.queues[place].clone()
    }

    /// Often the one that receives, which is 1 on either stream.
    fn kind(&mut self, end: i32) -> i32 {
        if self.random.random_bool(0.4) {
            return 1;
        }
        self.random.random_range(-1..end)
    }

    fn sequence(&mut self) -> u64 {
        let seen = self.sequences.len();
        if seen > 0 && self.random.random_bool(0.8) {
            return self.sequences[self.random.random_range(0..seen)];
        }
        self.random.random()
    }

    fn saw(&mut self, messages: &[QueueMessage]) {
        let sequences = messages
            .iter()
            .filter_map(|message| message.attributes.as_ref());
        self.sequences
            .extend(sequences.map(|attributes| attributes.sequence));
    }

    fn of_downstream(&mut self) -> QueuesDownstreamRequest {
        let known = self.transactions.len();
        let transaction = if known > 0 && self.random.random_bool(0.9) {
            self.transactions[self.random.random_range(0..known)].clone()
        } else {
            String::new()
        };
        let count = self.random.random_range(0..4);
        QueuesDownstreamRequest {
            request_id: "r".to_owned(),
            client_id: "c".to_owned(),
            request_type_data: self.kind(14),
            channel: self.queue(),
            max_items: self.random.random_range(-1..5),
            wait_timeout: self.random.random_range(-1..20),
            auto_ack: self.random.random_bool(0.2),
            re_queue_channel: self.queue(),
            sequence_range: (0..count).map(|_| self.sequence() as i64).collect(),
            ref_transaction_id: transaction,
            ..QueuesDownstreamRequest::default()
        }
    }

    fn of_transaction(&mut self) -> StreamQueueMessagesRequest {
        let modified = QueueMessage {
            channel: self.queue(),
            ..a_message("", 1)
        };
        StreamQueueMessagesRequest {
            request_id: "r".to_owned(),
            client_id: "c".to_owned(),
            stream_request_type_data: self.kind(9),
            channel: self.queue(),
            visibility_seconds: self.random.random_range(-1..3),
            wait_time_seconds: self.random.random_range(-1..3),
            ref_sequence: self.sequence(),
            modified_message: self.random.random_bool(0.7).then_some(modified),
        }
    }
}

/// The next answer, if one comes; `None` at the end of the stream or if none comes.
async fn answer<R>(responses: &mut Streaming<R>) -> Option<R> {
    let next = tokio::time::timeout(ANSWER_MAX, responses.message()).await;
    next.ok()?.ok()?
}

async fn downstream(client: &mut Client, hostile: &mut Hostile) {
    let (sender, stream) = requests();
    let mut responses = soon(client.queues_downstream(stream))
        .await
        .unwrap()
        .into_inner();
    hostile.transactions.clear();
    for _ in 0..STEPS {
        if sender.send(hostile.of_downstream()).await.is_err() {
            return;
        }
        while let Some(answer) = answer(&mut responses).await {
            hostile.transactions.push(answer.transaction_id);
            hostile.saw(&answer.messages);
        }
    }
    leave(hostile, sender, responses).await;
}

async fn transaction(client: &mut Client, hostile: &mut Hostile) {
    let (sender, stream) = requests();
    let mut responses = soon(client.stream_queue_message(stream))
        .await
        .unwrap()
        .into_inner();
    for _ in 0..STEPS {
        if sender.send(hostile.of_transaction()).await.is_err() {
            return;
        }
        while let Some(answer) = answer(&mut responses).await {
            hostile.saw(answer.message.as_slice());
        }
    }
    leave(hostile, sender, responses).await;
}

/// Goes away at once, or says that it has no more requests: then the stream ends by itself.
async fn leave<Q, R>(hostile: &mut Hostile, sender: mpsc::Sender<Q>, mut responses: Streaming<R>) {
    drop(sender);
    if hostile.random.random_bool(0.5) {
        soon(async { while let Ok(Some(_)) = responses.message().await {} }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_sends_nothing_stays_in_its_hands() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut hostile = Hostile {
        random: StdRng::seed_from_u64(seed()),
        queues: [unique("q"), unique("target"), "a b".to_owned()],
        transactions: Vec::new(),
        sequences: Vec::new(),
    };
    let used = [hostile.queues[0].clone(), hostile.queues[1].clone()];
    fill(&mut client, &used[0], MESSAGES).await;
    for number in 0..STREAMS {
        if number % 2 == 0 {
            downstream(&mut client, &mut hostile).await;
        } else {
            transaction(&mut client, &mut hostile).await;
        }
    }
    client.ping(Empty {}).await.unwrap();
    for queue in used {
        soon(async {
            while leased(&gateway, &queue).await > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // All that is there can be received again.
        let name = Name::queue(&queue).unwrap();
        let left = gateway
            .broker
            .queue(&name)
            .await
            .map_or(0, |detail| detail.available);
        if left == 0 {
            continue;
        }
        let mut downstream = Downstream::open(&mut client).await;
        let got = downstream.get(&queue, left as i32, true).await;
        assert_eq!(got.messages.len() as u64, left);
    }
}
