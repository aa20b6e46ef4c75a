//! Who sends to topics and queues.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::command::{Command, EnqueueRun};
use flotilla_model::name::Name;
use flotilla_model::outcome::Outcome;
use flotilla_tests::checker::Name as Message;
use flotilla_tests::history::Send;
use flotilla_tests::workload::message;

use super::{Answer, PATIENCE, Queue, answer, pause};
use crate::host::Site;
use crate::machine::Random;
use crate::world::World;

/// Patience of one that sends again when it has no answer.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// Where a producer sends to.
#[derive(Clone)]
pub enum Target {
    Topic(Name),
    Queue(Queue),
}

impl Target {
    fn name(&self) -> &Name {
        match self {
            Self::Topic(name) => name,
            Self::Queue(queue) => &queue.name,
        }
    }

    fn command(&self, count: u32) -> Command {
        match self {
            Self::Topic(topic) => Command::Append {
                topic: topic.clone(),
                count,
                dedup: Vec::new(),
            },
            Self::Queue(queue) => Command::Enqueue {
                queue: queue.name.clone(),
                runs: vec![EnqueueRun {
                    count,
                    policy: queue.policy.clone(),
                    moved: None,
                }],
                dedup: Vec::new(),
            },
        }
    }

    fn record(&self, world: &World, sends: Vec<Send>) {
        let mut history = world.recorder().history();
        let name = self.name().text();
        match self {
            Self::Topic(_) => history.topic(name).sends.extend(sends),
            Self::Queue(_) => history.queue(name).sends.extend(sends),
        }
    }
}

/// Sends until the load is over.
pub struct Producer {
    pub world: World,
    pub number: u32,
    pub target: Target,
    pub random: Random,
    pub pause_ms_max: u64,
    /// Sends again what has no answer, under no number: what a node without one would do.
    pub repeats_blindly: bool,
}

impl Producer {
    pub async fn run(mut self) {
        let mut next = 1;
        while !self.world.is_load_over() {
            let pause_ms_max = self.pause_ms_max;
            pause(&mut self.random, pause_ms_max).await;
            let Some(site) = self.world.pick(&mut self.random) else {
                continue;
            };
            let count = match self.random.once_in(4) {
                true => self.random.between(1, 8),
                false => 1,
            };
            let messages: Vec<Message> = (next..next + count)
                .map(|number| Message {
                    producer: self.number,
                    number,
                })
                .collect();
            next += count;
            self.send(&site, &messages).await;
        }
    }

    async fn send(&mut self, site: &Site, messages: &[Message]) {
        let slots: Vec<Bytes> = messages.iter().map(|name| message::body(*name)).collect();
        let command = self.target.command(messages.len() as u32);
        let shard = site.cluster.shard_for(self.target.name());
        let invoked = self.world.recorder().now();
        let is_done = |outcome: &Outcome| {
            matches!(outcome, Outcome::Appended { .. } | Outcome::Enqueued { .. })
        };
        let mut known = Answer::Unknown;
        let patience = match self.repeats_blindly {
            true => IMPATIENCE,
            false => PATIENCE,
        };
        for _ in 0..2 {
            let deadline = Instant::now() + patience;
            let outcome = shard
                .propose(vec![command.clone()], slots.clone(), deadline)
                .await;
            known = answer(site, &outcome, is_done);
            if known != Answer::Unknown || !self.repeats_blindly {
                break;
            }
        }
        let answered = self.world.recorder().now();
        let channel = self.target.name().text();
        let (first, last) = (messages[0], messages[messages.len() - 1]);
        let word = match known {
            Answer::Done => "acknowledged",
            Answer::Refused => "refused",
            Answer::Unknown => "unknown",
        };
        self.world.tell(&format!(
            "{channel}: messages {}-{} of producer {} at node {}: {word}",
            first.number, last.number, self.number, site.number
        ));
        if known == Answer::Refused {
            for message in messages {
                self.world.refuse(channel, *message);
            }
        }
        let sends = messages.iter().map(|name| Send {
            name: *name,
            invoked,
            answered,
            acknowledged: known == Answer::Done,
        });
        self.target.record(&self.world, sends.collect());
    }
}
