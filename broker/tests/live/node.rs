//! A node to test against, and short ways to talk to it.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::{
    Broker, BrokerConfig, BrokerError, CursorMode, Enqueue, Enqueued, Fill, Publish, Published,
    Receive, Received, Session, Start, SubscribeTopic, TopicDelivery, TopicSubscription,
};
use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_model::command::QueuePolicy;
use flotilla_model::ids::Offset;
use flotilla_model::message::{Message, Text};
use flotilla_model::name::Name;
use tempfile::TempDir;

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running node and its directory.
pub struct Node {
    pub broker: Broker,
    pub cluster: Cluster,
    directory: TempDir,
}

impl Node {
    pub async fn start() -> Self {
        Self::start_with(BrokerConfig::default()).await
    }

    pub async fn start_with(config: BrokerConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::open(directory, config, |_| {}).await
    }

    async fn open(
        directory: TempDir,
        config: BrokerConfig,
        adjust: impl FnOnce(&mut ClusterConfig),
    ) -> Self {
        let mut cluster = ClusterConfig::new(directory.path());
        cluster.log.reserve_bytes = Some(0);
        adjust(&mut cluster);
        let cluster = Cluster::start(cluster, tokio::runtime::Handle::current())
            .await
            .unwrap();
        let broker = Broker::start(cluster.clone(), config).await.unwrap();
        Self {
            broker,
            cluster,
            directory,
        }
    }

    /// Stops it in order.
    async fn stop(self) -> TempDir {
        let Self {
            broker,
            cluster,
            directory,
        } = self;
        broker.shutdown().await;
        cluster.shutdown(Instant::now() + PATIENCE).await.unwrap();
        directory
    }

    /// Stops it in order and starts it again.
    pub async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// The same, with something done to its directory in between.
    pub async fn restart_after(self, between: impl FnOnce(&Path)) -> Self {
        let directory = self.stop().await;
        between(directory.path());
        Self::open(directory, BrokerConfig::default(), |_| {}).await
    }

    /// The same, with other settings.
    pub async fn restart_with(
        self,
        config: BrokerConfig,
        adjust: impl FnOnce(&mut ClusterConfig),
    ) -> Self {
        let directory = self.stop().await;
        Self::open(directory, config, adjust).await
    }
}

pub fn topic(text: &str) -> Name {
    Name::topic(text).unwrap()
}

pub fn queue(text: &str) -> Name {
    Name::queue(text).unwrap()
}

pub fn message(text: &str) -> Message {
    Message {
        id: Text::from(format!("id-{text}")),
        source: Text::from_static("tests"),
        metadata: Text::from_static("meta"),
        tags: vec![(Text::from_static("k"), Text::from("v"))],
        body: Bytes::copy_from_slice(text.as_bytes()),
    }
}

pub fn text_of(message: &Message) -> String {
    String::from_utf8(message.body.to_vec()).unwrap()
}

/// `from` to before `to`, as texts.
pub fn texts(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

impl Node {
    pub async fn publish(&self, topic: &Name, texts: &[String]) -> Vec<Published> {
        let batch = texts
            .iter()
            .map(|text| Publish {
                topic: topic.clone(),
                message: message(text),
                dedup: None,
            })
            .collect();
        let results = self.broker.publish(batch).await;
        results.into_iter().map(|result| result.unwrap()).collect()
    }

    pub async fn enqueue(&self, queue: &Name, texts: &[String]) -> Vec<Enqueued> {
        self.enqueue_with(queue, texts, QueuePolicy::default())
            .await
    }

    pub async fn enqueue_with(
        &self,
        queue: &Name,
        texts: &[String],
        policy: QueuePolicy,
    ) -> Vec<Enqueued> {
        let batch = texts
            .iter()
            .map(|text| Enqueue {
                queue: queue.clone(),
                message: message(text),
                policy: policy.clone(),
                dedup: None,
            })
            .collect();
        let results = self.broker.enqueue(batch).await;
        results.into_iter().map(|result| result.unwrap()).collect()
    }

    pub async fn subscribe(&self, request: SubscribeTopic) -> TopicSubscription {
        self.broker.subscribe_topic(request).await.unwrap()
    }
}

pub fn from(topic: &Name, start: Start, cursor: CursorMode) -> SubscribeTopic {
    SubscribeTopic {
        topic: topic.clone(),
        start,
        cursor,
        buffer_messages: 1_000,
        buffer_bytes: 1 << 20,
    }
}

pub fn group(topic: &Name, start: Start, name: &str) -> SubscribeTopic {
    let cursor = CursorMode::Group {
        name: name.to_owned(),
    };
    from(topic, start, cursor)
}

/// The next messages, within the tests' patience.
pub async fn next(subscription: &mut TopicSubscription) -> Vec<TopicDelivery> {
    tokio::time::timeout(PATIENCE, subscription.next())
        .await
        .expect("no delivery in time")
        .unwrap()
}

/// Reads and finishes exactly so many messages.
pub async fn read(subscription: &mut TopicSubscription, count: usize) -> Vec<(u64, String)> {
    let mut read = Vec::new();
    while read.len() < count {
        for delivery in next(subscription).await {
            read.push((delivery.offset.0, text_of(&delivery.message)));
            subscription.done(delivery.offset);
        }
    }
    assert_eq!(read.len(), count, "more than expected: {read:?}");
    read
}

/// Nothing is delivered for a while.
pub async fn assert_silent(subscription: &mut TopicSubscription) {
    let delivered = tokio::time::timeout(Duration::from_millis(150), subscription.next()).await;
    assert!(delivered.is_err(), "delivered: {delivered:?}");
}

pub fn receive(queue: &Name, messages_max: u32, wait: Duration) -> Receive {
    Receive {
        queue: queue.clone(),
        messages_max,
        bytes_max: 1 << 20,
        wait,
        fill: Fill::Linger(Duration::ZERO),
        visibility: None,
        answer_within: None,
    }
}

pub async fn received(session: &Session, request: Receive) -> Received {
    tokio::time::timeout(PATIENCE, session.receive(request))
        .await
        .expect("no answer in time")
        .unwrap()
}

pub fn bodies(received: &Received) -> Vec<String> {
    received
        .messages
        .iter()
        .map(|delivery| text_of(&delivery.message))
        .collect()
}

/// Asks again until the answer is right, within the tests' patience.
pub async fn eventually<T, F: Future<Output = Result<T, BrokerError>>>(
    what: &str,
    ask: impl Fn() -> F,
    right: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await.unwrap();
        if right(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn offsets(numbers: std::ops::Range<u64>) -> Vec<(u64, String)> {
    numbers.map(|number| (number, number.to_string())).collect()
}

pub fn at(offset: u64) -> Offset {
    Offset(offset)
}
