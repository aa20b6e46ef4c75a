//! Two streams of one client, driven by hand: what a connection between them would leave to chance.

use std::time::Duration;

use flotilla_broker::{Broker, BrokerConfig};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_model::name::Name;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::stream::BoxStream;
use rand::Rng;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::kubemq::protocol::{QueueMessage, QueueMessagesBatchRequest};
use crate::kubemq::queue_send;
use crate::transport::lifecycle::{Lifecycle, LifecycleEnd};

/// For what should come at once; a loaded machine may be slow.
const SOON: Duration = Duration::from_secs(20);

struct Node {
    context: Arc<Context>,
    _end: LifecycleEnd,
    _data: tempfile::TempDir,
}

/// A stream with both its sides in hand.
struct Side {
    requests: UnboundedSender<Result<QueuesDownstreamRequest, Status>>,
    responses: BoxStream<'static, Result<QueuesDownstreamResponse, Status>>,
}

impl Node {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut cluster = ClusterConfig::new(data.path());
        cluster.shards = 1;
        // What else is on the machine's disk is not what is tested.
        cluster.log.reserve_bytes = Some(16 << 20);
        let cluster = Cluster::start(cluster, tokio::runtime::Handle::current())
            .await
            .unwrap();
        let broker = Broker::start(cluster, BrokerConfig::default())
            .await
            .unwrap();
        let (lifecycle, end) = Lifecycle::new(|| true);
        let config = crate::kubemq::KubemqConfig::default();
        Self {
            context: crate::kubemq::context(broker, config, Arc::new(lifecycle)),
            _end: end,
            _data: data,
        }
    }

    async fn fill(&self, queue: &str, count: usize) {
        let message = QueueMessage {
            client_id: "sender".to_owned(),
            channel: queue.to_owned(),
            body: "x".into(),
            ..QueueMessage::default()
        };
        let batch = QueueMessagesBatchRequest {
            messages: vec![message; count],
            ..QueueMessagesBatchRequest::default()
        };
        let sent = queue_send::send_batch(&self.context, batch).await.unwrap();
        assert!(!sent.have_errors);
    }

    fn open(&self) -> Side {
        let (requests, read) = unbounded();
        Side {
            requests,
            responses: stream(Arc::clone(&self.context), read).boxed(),
        }
    }

    /// How many messages a queue has, and how many of them somebody holds.
    async fn counts(&self, queue: &str) -> (u64, u64) {
        let name = Name::queue(queue).unwrap();
        let detail = self.context.broker.queue(&name).await.unwrap();
        (detail.messages, detail.leased)
    }

    async fn until_counts(&self, queue: &str, wanted: (u64, u64)) {
        soon(async {
            while self.counts(queue).await != wanted {
                yield_now().await;
            }
        })
        .await;
    }
}

impl Side {
    fn send(&self, request: QueuesDownstreamRequest) {
        self.requests.unbounded_send(Ok(request)).unwrap();
    }

    /// Gets messages; the answer is their transaction.
    async fn get(&mut self, queue: &str, count: i32) -> String {
        self.send(QueuesDownstreamRequest {
            client_id: "consumer".to_owned(),
            request_type_data: Type::Get as i32,
            channel: queue.to_owned(),
            max_items: count,
            wait_timeout: 10_000,
            ..QueuesDownstreamRequest::default()
        });
        let got = soon(self.responses.next()).await.unwrap().unwrap();
        assert_eq!(got.messages.len(), count as usize, "{}", got.error);
        got.transaction_id
    }

    /// Says that nothing more is asked; the answer is what is told until the stream ends.
    async fn finish(self) -> Vec<String> {
        drop(self.requests);
        let told = soon(self.responses.collect::<Vec<_>>()).await;
        told.into_iter().map(|one| one.unwrap().error).collect()
    }
}

fn of_transaction(kind: Type, id: &str) -> QueuesDownstreamRequest {
    QueuesDownstreamRequest {
        client_id: "consumer".to_owned(),
        request_type_data: kind as i32,
        ref_transaction_id: id.to_owned(),
        ..QueuesDownstreamRequest::default()
    }
}

/// A stream that holds the two messages of a queue, and another one that asks to acknowledge them.
async fn asked_of_another(node: &Node, queue: &str) -> (Side, Side) {
    node.fill(queue, 2).await;
    let mut holding = node.open();
    let id = holding.get(queue, 2).await;
    let asking = node.open();
    asking.send(of_transaction(Type::AckAll, &id));
    (holding, asking)
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work)
        .await
        .expect("it did not happen in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_sent_is_done_by_the_holder_though_it_is_gone_at_once() {
    let node = Node::start().await;
    for round in 0..20 {
        let queue = format!("q{round}");
        let (_holding, asking) = asked_of_another(&node, &queue).await;
        drop(asking);
        node.until_counts(&queue, (0, 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_stays_listed_when_it_is_complete_or_its_stream_over() {
    let node = Node::start().await;
    node.fill("q", 12).await;
    let mut streams = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut side = node.open();
        for _ in 0..4 {
            ids.push(side.get("q", 1).await);
        }
        streams.push(side);
    }
    assert_eq!(node.context.holders.len(), 12);
    let asking = node.open();
    // Of each stream one is settled by another stream, and one by itself.
    for (number, side) in streams.iter().enumerate() {
        asking.send(of_transaction(Type::AckAll, &ids[4 * number]));
        side.send(of_transaction(Type::NAckAll, &ids[4 * number + 1]));
    }
    assert_eq!(asking.finish().await, Vec::<String>::new());
    soon(async {
        while node.context.holders.len() > 6 {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(node.context.holders.len(), 6);
    // One ends in order, the others are dropped.
    assert_eq!(streams.remove(0).finish().await, Vec::<String>::new());
    assert_eq!(node.context.holders.len(), 4);
    drop(streams);
    soon(async {
        while node.context.holders.len() > 0 {
            yield_now().await;
        }
    })
    .await;
    node.until_counts("q", (9, 0)).await;
}

/// Silence means that it is done; otherwise the messages are there again. Whoever asks is not left waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_ends_meanwhile_has_done_what_it_was_asked_or_says_so() {
    let node = Node::start().await;
    let (mut done, mut refused) = (0, 0);
    for round in 0..60 {
        let queue = format!("q{round}");
        let (holding, asking) = asked_of_another(&node, &queue).await;
        let (first, second) = {
            let mut random = rand::rng();
            (random.random_range(0..40), random.random_range(0..40))
        };
        let ending = tokio::spawn(async move {
            for _ in 0..first {
                yield_now().await;
            }
            drop(holding);
        });
        for _ in 0..second {
            yield_now().await;
        }
        let told = asking.finish().await;
        ending.await.unwrap();
        if told.is_empty() {
            done += 1;
            assert_eq!(node.counts(&queue).await, (0, 0), "round {round}");
        } else {
            refused += 1;
            assert_eq!(
                told,
                ["transaction is completed or transaction id not found"]
            );
            node.until_counts(&queue, (2, 0)).await;
        }
    }
    println!("{done} were done, {refused} refused");
}

/// Each has the other settle more than any of them takes at a time, and neither may wait for the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_streams_that_settle_for_each_other_do_not_stand_still() {
    const EACH: usize = 120;
    let node = Node::start().await;
    node.fill("q", 2 * EACH).await;
    let (mut one, mut two) = (node.open(), node.open());
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        of_one.push(one.get("q", 1).await);
        of_two.push(two.get("q", 1).await);
    }
    for (id_one, id_two) in of_one.iter().zip(&of_two) {
        one.send(of_transaction(Type::AckAll, id_two));
        two.send(of_transaction(Type::AckAll, id_one));
    }
    node.until_counts("q", (0, 0)).await;
    for side in [one, two] {
        assert_eq!(side.finish().await, Vec::<String>::new());
    }
}
