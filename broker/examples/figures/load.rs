//! Load on the facade, and how fast it is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::{Broker, CursorMode, Enqueue, Fill, Publish, Receive, Start, SubscribeTopic};
use flotilla_model::command::{QueuePolicy, Selection, Settlement};
use flotilla_model::message::{Message, Text};
use flotilla_model::name::Name;
use tokio::task::JoinSet;

use crate::Failure;
use crate::process::cpu_time;

pub const MESSAGE_BYTES: usize = 1_024;
pub const IN_FLIGHT: usize = 1_024;
const RATE_TIME: Duration = Duration::from_secs(4);
/// Names in use at a time.
const NAMES: usize = 8;
const RECEIVERS: usize = 8;

fn names(
    kind: fn(&str) -> Result<Name, flotilla_model::name::NameError>,
) -> Result<Vec<Name>, Failure> {
    let names = (0..NAMES).map(|number| kind(&format!("figures-{number}")));
    Ok(names.collect::<Result<_, _>>()?)
}

fn message(body: &Bytes) -> Message {
    Message {
        id: Text::from_static("0123456789abcdef"),
        source: Text::from_static("figures"),
        body: body.clone(),
        ..Message::default()
    }
}

fn body() -> Bytes {
    Bytes::from(vec![7; MESSAGE_BYTES])
}

/// Counts what a crowd of tasks does, and tells the rate at the end.
struct Meter {
    done: Arc<AtomicU64>,
    started: Instant,
    cpu_before: Duration,
}

impl Meter {
    fn start() -> Result<Self, Failure> {
        Ok(Self {
            done: Arc::default(),
            cpu_before: cpu_time()?,
            started: Instant::now(),
        })
    }

    fn print(&self, what: &str) -> Result<(), Failure> {
        let elapsed = self.started.elapsed().as_secs_f64();
        let cpu = (cpu_time()? - self.cpu_before).as_secs_f64();
        let messages = self.done.load(Ordering::Relaxed) as f64;
        println!(
            "{what}: {:.0} messages/s, {:.2} cores, {:.1} µs of processor a message",
            messages / elapsed,
            cpu / elapsed,
            cpu * 1e6 / messages
        );
        Ok(())
    }
}

async fn all_of(mut tasks: JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Publishes with so many messages in each call, for some time.
pub async fn publish_rate(broker: &Broker, batch: usize) -> Result<(), Failure> {
    let meter = Meter::start()?;
    let until = meter.started + RATE_TIME;
    publish_while(broker, batch, &meter, move |_| Instant::now() < until).await?;
    meter.print(&format!("publish, {batch} a call"))
}

/// Keeps [`IN_FLIGHT`] messages in flight, `batch` a call, as long as `more` says so of the messages begun.
async fn publish_while(
    broker: &Broker,
    batch: usize,
    meter: &Meter,
    more: impl Fn(u64) -> bool + Clone + Send + 'static,
) -> Result<(), Failure> {
    let topics = names(Name::topic)?;
    let begun = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for writer in 0..IN_FLIGHT.div_ceil(batch) {
        let (broker, body) = (broker.clone(), body());
        let topic = topics[writer % NAMES].clone();
        let (begun, done, more) = (Arc::clone(&begun), Arc::clone(&meter.done), more.clone());
        tasks.spawn(async move {
            while more(begun.fetch_add(batch as u64, Ordering::Relaxed)) {
                let call = (0..batch).map(|_| Publish {
                    topic: topic.clone(),
                    message: message(&body),
                    dedup: None,
                });
                for result in broker.publish(call.collect()).await {
                    result?;
                }
                done.fetch_add(batch as u64, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    all_of(tasks).await
}

/// Puts messages into queues, so many in each call, for some time.
pub async fn enqueue_rate(broker: &Broker, batch: usize) -> Result<(), Failure> {
    let queues = names(Name::queue)?;
    let meter = Meter::start()?;
    let until = meter.started + RATE_TIME;
    let mut tasks = JoinSet::new();
    for writer in 0..IN_FLIGHT.div_ceil(batch) {
        let (broker, body) = (broker.clone(), body());
        let queue = queues[writer % NAMES].clone();
        let done = Arc::clone(&meter.done);
        tasks.spawn(async move {
            while Instant::now() < until {
                let call = (0..batch).map(|_| Enqueue {
                    queue: queue.clone(),
                    message: message(&body),
                    policy: QueuePolicy::default(),
                    dedup: None,
                });
                for result in broker.enqueue(call.collect()).await {
                    result?;
                }
                done.fetch_add(batch as u64, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    all_of(tasks).await?;
    meter.print(&format!("enqueue, {batch} a call"))
}

/// Receives and acknowledges what was enqueued, 128 messages at a time, for some time.
pub async fn receive_rate(broker: &Broker) -> Result<(), Failure> {
    let queues = names(Name::queue)?;
    let meter = Meter::start()?;
    let until = meter.started + RATE_TIME;
    let mut tasks = JoinSet::new();
    for receiver in 0..RECEIVERS {
        let broker = broker.clone();
        let queue = queues[receiver % NAMES].clone();
        let done = Arc::clone(&meter.done);
        tasks.spawn(async move {
            let session = broker.open_session();
            while Instant::now() < until {
                let receive = Receive {
                    queue: queue.clone(),
                    messages_max: (IN_FLIGHT / RECEIVERS) as u32,
                    bytes_max: 4 << 20,
                    wait: Duration::from_millis(100),
                    fill: Fill::Linger(Duration::ZERO),
                    visibility: None,
                    answer_within: None,
                };
                let got = session.receive(receive).await?;
                if got.messages.is_empty() {
                    break;
                }
                let ack = session.settle(&queue, got.lease, Selection::All, Settlement::Ack);
                ack.await?;
                done.fetch_add(got.messages.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        });
    }
    all_of(tasks).await?;
    meter.print("receive and acknowledge, 128 a call")
}

/// Publishes so many messages.
pub async fn write(broker: &Broker, count: u64) -> Result<(), Failure> {
    let meter = Meter::start()?;
    publish_while(broker, 64, &meter, move |begun| begun < count).await?;
    meter.print(&format!("write {count}"))
}

/// Reads back everything that was written.
pub async fn read(broker: &Broker, count: u64) -> Result<(), Failure> {
    let meter = Meter::start()?;
    let mut tasks = JoinSet::new();
    for topic in names(Name::topic)? {
        let (broker, done) = (broker.clone(), Arc::clone(&meter.done));
        tasks.spawn(async move {
            let end = broker.topic(&topic).await?.next;
            let request = SubscribeTopic {
                topic,
                start: Start::First,
                cursor: CursorMode::None,
                buffer_messages: 2_048,
                buffer_bytes: 2 << 20,
            };
            let mut subscription = broker.subscribe_topic(request).await?;
            loop {
                let deliveries = subscription.next().await?;
                done.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
                let Some(last) = deliveries.last() else {
                    return Err("a delivery without messages".into());
                };
                subscription.done(last.offset);
                if last.offset.0 + 1 >= end.0 {
                    return Ok(());
                }
            }
        });
    }
    all_of(tasks).await?;
    let read = meter.done.load(Ordering::Relaxed);
    if read < count {
        return Err(format!("{read} messages read, {count} written").into());
    }
    meter.print(&format!("read {read}"))
}
