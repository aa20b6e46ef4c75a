//! A whole workload: started, watched, ended and read back.

use super::consume::Consumer;
use super::follow::Follower;
use super::produce::{Failures, Producer, Target};
use super::read_back::{Node, drain_queue, read_topic, send_marker};
use super::route::Route;
use crate::checker::Name;
use crate::history::{Fault, History, Moment, Recorder};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const POLL: Duration = Duration::from_millis(10);
/// How long a client may take to finish what it is doing.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// How much of what.
#[derive(Clone, Debug)]
pub struct Plan {
    pub topics: u32,
    pub queues: u32,
    /// Of each topic and each queue, with different homes.
    pub producers_each: u32,
    pub consumers_each: u32,
    /// Of a producer after each send, at least.
    pub pause: Duration,
    pub seed: u64,
}

impl Plan {
    /// Enough to have something to lose on every shard, and little enough for two cores.
    pub fn small(seed: u64) -> Self {
        Self {
            topics: 8,
            queues: 4,
            producers_each: 3,
            consumers_each: 2,
            pause: Duration::from_millis(15),
            seed,
        }
    }

    pub fn topic(number: u32) -> String {
        format!("topic-{number}")
    }

    pub fn queue(number: u32) -> String {
        format!("queue-{number}")
    }

    fn topics(&self) -> Vec<String> {
        (0..self.topics).map(Self::topic).collect()
    }

    /// Where messages go that the last queue's consumers rejected too often.
    const DEAD_LETTERS: &str = "dead-letters";
    const RECEIVE_COUNT_MAX: u32 = 3;

    fn target(&self, queue: u32) -> Target {
        let dead_letter = (Self::RECEIVE_COUNT_MAX, Self::DEAD_LETTERS.to_owned());
        Target::Queue {
            name: Self::queue(queue),
            dead_letter: self.rejects(queue).then_some(dead_letter),
        }
    }

    /// Whether a queue's consumers reject much.
    fn rejects(&self, queue: u32) -> bool {
        queue + 1 == self.queues
    }
}

/// A time in which no send to a topic was accepted.
#[derive(Clone, Debug)]
pub struct Gap {
    pub topic: String,
    pub began: Moment,
    pub lasted: Duration,
}

impl Gap {
    /// Tells it for a report, with the moments of what was done to the cluster.
    pub fn describe(&self, faults: &[Fault]) -> String {
        let ms = |moment: Moment| moment.0 / 1_000_000;
        let faults: Vec<String> = faults
            .iter()
            .map(|one| format!("{} of {:?} at {} ms", one.what, one.nodes, ms(one.from)))
            .collect();
        format!(
            "no write to {} for {} ms from {} ms on; {}",
            self.topic,
            self.lasted.as_millis(),
            ms(self.began),
            faults.join(", ")
        )
    }
}

/// A running workload.
pub struct Workload {
    plan: Plan,
    nodes: Vec<SocketAddr>,
    recorder: Recorder,
    failures: Failures,
    /// The last event of each topic, once its producers have ended.
    markers: BTreeMap<String, Name>,
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
    runtime: Runtime,
    next_producer: u32,
    next_consumer: u32,
}

impl Workload {
    /// Starts all clients. Their homes are these nodes in turn.
    pub fn start(nodes: &[SocketAddr], plan: Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut workload = Self {
            plan: plan.clone(),
            nodes: nodes.to_vec(),
            recorder: Recorder::default(),
            failures: Failures::default(),
            markers: BTreeMap::new(),
            stop: watch::Sender::new(false),
            clients: Vec::new(),
            runtime,
            next_producer: 0,
            next_consumer: 0,
        };
        for topic in plan.topics() {
            for _ in 0..plan.producers_each {
                workload.produce(Target::Topic(topic.clone()));
            }
            workload.follow(topic);
        }
        for queue in 0..plan.queues {
            for _ in 0..plan.producers_each {
                workload.produce(plan.target(queue));
            }
            for _ in 0..plan.consumers_each {
                workload.consume(queue);
            }
        }
        if plan.queues > 0 {
            let mut history = workload.recorder.history();
            let rejecting = history.queue(&Plan::queue(plan.queues - 1));
            rejecting.receive_count_max = Some(Plan::RECEIVE_COUNT_MAX);
            rejecting.dead_letter = Some(Plan::DEAD_LETTERS.to_owned());
        }
        workload
    }

    fn produce(&mut self, target: Target) {
        self.next_producer += 1;
        let producer = Producer {
            number: self.next_producer,
            target,
            route: self.route(self.next_producer),
            recorder: self.recorder.clone(),
            failures: self.failures.clone(),
            pause: self.plan.pause,
            seed: self.plan.seed,
        };
        let running = self.runtime.spawn(producer.run(self.stop.subscribe()));
        self.clients.push(running);
    }

    fn follow(&mut self, topic: String) {
        self.next_consumer += 1;
        let follower = Follower {
            topic,
            route: self.route(self.next_consumer),
            recorder: self.recorder.clone(),
            number: self.next_consumer,
        };
        let running = self.runtime.spawn(follower.run(self.stop.subscribe()));
        self.clients.push(running);
    }

    fn consume(&mut self, queue: u32) {
        self.next_consumer += 1;
        let consumer = Consumer {
            number: self.next_consumer,
            queue: Plan::queue(queue),
            route: self.route(self.next_consumer),
            recorder: self.recorder.clone(),
            rejects: if self.plan.rejects(queue) { 60 } else { 2 },
            seed: self.plan.seed,
        };
        let running = self.runtime.spawn(consumer.run(self.stop.subscribe()));
        self.clients.push(running);
    }

    fn route(&self, number: u32) -> Route {
        Route::new(&self.nodes, number as usize)
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// How many topics there are.
    pub fn topics(&self) -> usize {
        self.plan.topics as usize
    }

    /// Why sends failed so far.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Notes in the history what a test did to nodes from then until now.
    pub fn note_fault(&self, what: &str, nodes: &[u32], from: Moment) {
        let until = self.recorder.now();
        self.recorder.history().faults.push(Fault {
            what: what.to_owned(),
            nodes: nodes.to_vec(),
            from,
            until,
        });
    }

    /// For each topic, how long after a moment the first send that began after it was accepted, by
    /// whatever node; topics that had none in time are missing.
    pub fn first_accepted(&self, since: Moment, limit: Duration) -> BTreeMap<String, Duration> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.accepted_since(since);
            if found.len() == self.topics() || Instant::now() > deadline {
                return found;
            }
            std::thread::sleep(POLL);
        }
    }

    fn accepted_since(&self, since: Moment) -> BTreeMap<String, Duration> {
        let history = self.recorder.history();
        let mut found = BTreeMap::new();
        for (topic, events) in &history.topics {
            // In the order of their answers.
            let recent = events.sends.iter().rev();
            let first = recent
                .take_while(|send| send.answered > since)
                .filter(|send| send.acknowledged && send.invoked > since)
                .last();
            if let Some(first) = first {
                let after = Duration::from_nanos(first.answered.0 - since.0);
                found.insert(topic.clone(), after);
            }
        }
        found
    }

    /// The longest time in which no send to one of the topics was accepted, after a moment.
    pub fn longest_gap(&self, since: Moment) -> Gap {
        let now = self.recorder.now();
        let history = self.recorder.history();
        let gaps = history.topics.iter().flat_map(|(name, topic)| {
            let accepted = topic.sends.iter().filter(|send| send.acknowledged);
            let mut moments: Vec<Moment> = accepted
                .map(|send| send.answered)
                .filter(|at| *at > since)
                .collect();
            moments.extend([since, now]);
            moments.sort_unstable();
            let gap = |pair: &[Moment]| Gap {
                lasted: Duration::from_nanos(pair[1].0 - pair[0].0),
                began: pair[0],
                topic: name.clone(),
            };
            moments.windows(2).map(gap).collect::<Vec<_>>()
        });
        gaps.max_by_key(|gap| gap.lasted)
            .expect("a workload has topics")
    }

    /// Sends that were accepted so far.
    pub fn accepted(&self) -> usize {
        let history = self.recorder.history();
        let topics = history.topics.values().flat_map(|topic| &topic.sends);
        let queues = history.queues.values().flat_map(|queue| &queue.sends);
        topics
            .chain(queues)
            .filter(|send| send.acknowledged)
            .count()
    }

    /// Ends all clients, reads everything back through these nodes, and gives the history.
    pub fn finish(mut self, nodes: &[Node]) -> Result<History, String> {
        self.stop()?;
        self.read_topics(nodes)?;
        self.drain_queues(nodes)?;
        Ok(self.into_history())
    }

    /// Ends all clients.
    pub fn stop(&mut self) -> Result<(), String> {
        self.stop.send_replace(true);
        let clients = std::mem::take(&mut self.clients);
        self.runtime.block_on(async {
            for client in clients {
                match tokio::time::timeout(FINISH_WITHIN, client).await {
                    Ok(ended) => ended.map_err(|error| error.to_string())?,
                    Err(_) => return Err(format!("a client still runs after {FINISH_WITHIN:?}")),
                }
            }
            Ok(())
        })
    }

    /// Reads all topics whole from each of these nodes. All clients must have ended.
    pub fn read_topics(&mut self, nodes: &[Node]) -> Result<(), String> {
        let mut reading = JoinSet::new();
        for topic in self.plan.topics() {
            let marker = match self.markers.get(&topic) {
                Some(marker) => *marker,
                None => {
                    let sending = send_marker(&self.recorder, &topic, nodes);
                    let marker = self.runtime.block_on(sending)?;
                    self.markers.insert(topic.clone(), marker);
                    marker
                }
            };
            let (recorder, nodes) = (self.recorder.clone(), nodes.to_vec());
            let read = async move { read_topic(&recorder, &topic, marker, &nodes).await };
            reading.spawn_on(read, self.runtime.handle());
        }
        self.join(reading)
    }

    /// Empties all queues.
    pub fn drain_queues(&self, nodes: &[Node]) -> Result<(), String> {
        if self.plan.queues == 0 {
            return Ok(());
        }
        let mut draining = JoinSet::new();
        for queue in 0..self.plan.queues {
            let (recorder, nodes) = (self.recorder.clone(), nodes.to_vec());
            let queue = Plan::queue(queue);
            let drain = async move { drain_queue(&recorder, &queue, &nodes, false).await };
            draining.spawn_on(drain, self.runtime.handle());
        }
        self.join(draining)?;
        // Last: rejected messages may have gone there while their queue was drained.
        let draining = drain_queue(&self.recorder, Plan::DEAD_LETTERS, nodes, true);
        self.runtime.block_on(draining)
    }

    fn join(&self, mut tasks: JoinSet<Result<(), String>>) -> Result<(), String> {
        self.runtime.block_on(async {
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|error| error.to_string())??;
            }
            Ok(())
        })
    }

    /// What was recorded.
    pub fn into_history(self) -> History {
        self.recorder.take()
    }
}
