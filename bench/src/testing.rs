//! A competitor that lives in this process: queues of bodies in memory.

use crate::BenchError;
use crate::target::{
    Competitor, Consumer, Family, Nodes, Outgoing, Place, Producer, Responder, Running, Source,
    Support,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

/// How many messages a consumer takes at a time.
const TAKEN_MAX: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Works,
    RefusesMessages,
    /// It takes messages and says nothing.
    NeverAnswers,
    SupportsNothing,
    IsNotMeasured,
    /// What a topic holds can be read once.
    ForgetsWhatIsRead,
}

pub struct Fake {
    name: &'static str,
    behaviour: Behaviour,
}

impl Fake {
    pub fn new(name: &'static str, behaviour: Behaviour) -> Self {
        Self { name, behaviour }
    }
}

#[async_trait]
impl Competitor for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn durability(&self, _: Family, _: Nodes) -> &'static str {
        "in memory"
    }

    fn supports(&self, _: Family, _: Nodes) -> Support {
        match self.behaviour {
            Behaviour::SupportsNothing => Support::Missing,
            Behaviour::IsNotMeasured => Support::NotMeasured,
            _ => Support::Measured,
        }
    }

    fn version(&self) -> Result<String, BenchError> {
        Ok("1".to_owned())
    }

    async fn start(&self, place: Place) -> Result<Box<dyn Running>, BenchError> {
        std::fs::write(place.directory.join("data"), "something")
            .map_err(BenchError::io("write"))?;
        Ok(Box::new(FakeServer {
            behaviour: self.behaviour,
            store: Arc::default(),
        }))
    }
}

#[derive(Default)]
struct Store {
    names: Mutex<BTreeMap<String, Name>>,
    changed: Notify,
}

#[derive(Default)]
struct Name {
    stored: Vec<Bytes>,
    waiting: VecDeque<Bytes>,
    listeners: Vec<mpsc::UnboundedSender<Bytes>>,
    was_read: bool,
}

impl Store {
    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        self.names.lock().expect("nobody panics while holding it")
    }

    fn add(&self, name: &str, body: Bytes) {
        let mut names = self.names();
        let name = names.entry(name.to_owned()).or_default();
        name.listeners
            .retain(|listener| listener.send(body.clone()).is_ok());
        name.stored.push(body.clone());
        name.waiting.push_back(body);
        drop(names);
        self.changed.notify_waiters();
    }
}

struct FakeServer {
    behaviour: Behaviour,
    store: Arc<Store>,
}

#[async_trait]
impl Running for FakeServer {
    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    async fn prepare(&self, _: Family, _: &[String]) -> Result<(), BenchError> {
        Ok(())
    }

    async fn producer(
        &self,
        _: Family,
        names: Arc<[String]>,
    ) -> Result<Box<dyn Producer>, BenchError> {
        Ok(Box::new(FakeProducer {
            behaviour: self.behaviour,
            store: self.store.clone(),
            names,
            done: 0,
        }))
    }

    async fn consumer(&self, source: Source<'_>) -> Result<Box<dyn Consumer>, BenchError> {
        let mut names = self.store.names();
        let (sender, bodies) = mpsc::unbounded_channel();
        match source {
            Source::Queue { queue } => {
                return Ok(Box::new(FakeWorker {
                    store: self.store.clone(),
                    queue: queue.to_owned(),
                }));
            }
            Source::Backlog { topic, .. } => {
                let name = names.entry(topic.to_owned()).or_default();
                if self.behaviour == Behaviour::ForgetsWhatIsRead
                    && std::mem::replace(&mut name.was_read, true)
                {
                    return Err(BenchError::NotSupported("reading again"));
                }
                for body in &names.entry(topic.to_owned()).or_default().stored {
                    // The receiver is below.
                    let _ = sender.send(body.clone());
                }
                names.entry(topic.to_owned()).or_default()
            }
            Source::Live { topic: name } | Source::Signals { name } => {
                names.entry(name.to_owned()).or_default()
            }
        }
        .listeners
        .push(sender);
        Ok(Box::new(FakeListener { bodies }))
    }

    async fn responder(&self, _: &str) -> Result<Box<dyn Responder>, BenchError> {
        Ok(Box::new(FakeResponder))
    }

    async fn stop(self: Box<Self>) -> Result<(), BenchError> {
        Ok(())
    }
}

struct FakeProducer {
    behaviour: Behaviour,
    store: Arc<Store>,
    names: Arc<[String]>,
    done: usize,
}

#[async_trait]
impl Producer for FakeProducer {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / 2).max(1)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        for message in messages {
            let name = &self.names[message.name];
            self.store.add(name, message.body.clone());
        }
        self.done += messages.len();
        // As a connection would.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        tokio::task::yield_now().await;
        match self.behaviour {
            Behaviour::Works | Behaviour::ForgetsWhatIsRead => Ok(std::mem::take(&mut self.done)),
            Behaviour::NeverAnswers => std::future::pending().await,
            _ => Err(BenchError::Refused {
                doing: "a message".to_owned(),
                text: "no space".to_owned(),
            }),
        }
    }
}

struct FakeListener {
    bodies: mpsc::UnboundedReceiver<Bytes>,
}

#[async_trait]
impl Consumer for FakeListener {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        self.bodies.recv_many(bodies, TAKEN_MAX).await;
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

struct FakeWorker {
    store: Arc<Store>,
    queue: String,
}

#[async_trait]
impl Consumer for FakeWorker {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        loop {
            let changed = self.store.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on a change is noticed.
            changed.as_mut().enable();
            if let Some(name) = self.store.names().get_mut(&self.queue) {
                let taken = name.waiting.len().min(TAKEN_MAX);
                bodies.extend(name.waiting.drain(..taken));
            }
            if !bodies.is_empty() {
                return Ok(());
            }
            changed.await;
        }
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Requests are answered by being taken.
struct FakeResponder;

#[async_trait]
impl Responder for FakeResponder {
    async fn serve(&mut self) -> Result<(), BenchError> {
        std::future::pending().await
    }
}
