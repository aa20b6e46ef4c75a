//! The actor of one subscribed topic: reads what its readers want, and hands it to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use flotilla_model::ids::{ObjectId, Offset};
use flotilla_model::name::Name;
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::topic::group::MemberId;
use crate::topic::reader::{Durable, Group, Position, Reader};
use crate::topic::run::{self, MESSAGES_PER_READ_MAX, Run};
use crate::wake::{Wake, Woken};

/// Reads of one topic at the same time.
const READS_MAX: usize = 4;
/// A run that nobody could use for this long is given back: its readers have no room. While there is no room for
/// another read, so is one that was read that long ago: whoever takes a few messages a second has it read again.
const RUN_IDLE: Duration = Duration::from_secs(1);
/// After a failed read.
const READ_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Failed reads in a row until subscriptions end with the error.
const READ_FAILURES_MAX: u32 = 25;

/// The actor of one topic.
pub(crate) struct TopicActor {
    pub(super) core: Arc<Core>,
    pub(super) name: Name,
    pub(super) wake: Arc<Wake>,
    /// The incarnation that is read; `None` while the topic does not exist.
    object: Option<ObjectId>,
    /// The offset after the last message known.
    end: Offset,
    pub(super) deletions: u64,
    pub(super) readers: Vec<Reader>,
    pub(super) groups: BTreeMap<String, Group>,
    runs: Vec<Run>,
    reads: BTreeSet<Offset>,
    read_failures: u32,
    last_member: MemberId,
    /// Requests being worked on: the actor must not go to sleep meanwhile.
    pub(super) busy: usize,
    /// When this node last led the shard: readers of an earlier time are gone to another leader.
    reign: u64,
    /// Positions of cursors whose readers are gone, still to be told.
    pub(super) parting: BTreeMap<String, (Durable, Position)>,
    /// Positions of cursors whose readers went while another was being added: what that one found in
    /// the shard may be older.
    pub(super) departed: BTreeMap<String, Position>,
    pub(super) flushes_in_flight: usize,
    pub(super) flush_timer: Option<SpawnHandle>,
    run_timer: Option<SpawnHandle>,
    gather_timer: Option<SpawnHandle>,
    idle_timer: Option<SpawnHandle>,
    pub(super) stopping: Vec<oneshot::Sender<()>>,
}

impl TopicActor {
    pub fn new(core: Arc<Core>, name: Name, wake: Arc<Wake>) -> Self {
        Self {
            reign: core.reign(core.cluster.shard_of(&name)),
            core,
            name,
            wake,
            object: None,
            end: Offset::FIRST,
            deletions: 0,
            readers: Vec::new(),
            groups: BTreeMap::new(),
            runs: Vec::new(),
            reads: BTreeSet::new(),
            read_failures: 0,
            last_member: 0,
            busy: 0,
            parting: BTreeMap::new(),
            departed: BTreeMap::new(),
            flushes_in_flight: 0,
            flush_timer: None,
            run_timer: None,
            gather_timer: None,
            idle_timer: None,
            stopping: Vec::new(),
        }
    }

    pub(super) fn next_member(&mut self) -> MemberId {
        self.last_member += 1;
        self.last_member
    }

    pub(super) fn subscriptions(&self) -> usize {
        let members = self.groups.values().map(|group| group.members.len());
        self.readers.len() + members.sum::<usize>()
    }

    /// Learns of a topic's state from the shard; news from the log may be further already.
    pub(super) fn learn(&mut self, object: Option<ObjectId>, end: Offset) {
        if object.is_some() && self.object.is_none() {
            self.object = object;
        }
        if object == self.object {
            self.end = self.end.max(end);
        }
    }

    /// Takes in all news, hands out what there is, and asks for what is missing.
    pub(super) fn tend(&mut self, context: &mut Context<Self>) {
        self.hear_news();
        self.look_at_readers(context);
        self.check_reign(context);
        self.deliver(context);
        self.flush_soon(context);
        self.sleep_soon(context);
        self.wake.set_subscribers(self.subscriptions());
    }

    fn hear_news(&mut self) {
        let news = self.wake.news();
        if news.deletions != self.deletions {
            self.deletions = news.deletions;
            self.start_over();
        }
        if news.object.is_some() {
            if self.object.is_some() && self.object != news.object {
                self.start_over();
            }
            self.object = news.object;
            self.end = self.end.max(news.next);
        }
    }

    /// The topic was deleted: whoever listens goes on with its successor, from its beginning.
    fn start_over(&mut self) {
        self.object = None;
        self.end = Offset::FIRST;
        self.runs.clear();
        self.parting.clear();
        self.departed.clear();
        let lost = |durable: &mut Durable| {
            durable.lost = true;
            durable.told = Some((Offset::FIRST, Vec::new()));
        };
        for reader in &mut self.readers {
            reader.move_to(Offset::FIRST);
            reader.durable.as_mut().map(lost);
        }
        for group in self.groups.values_mut() {
            group.move_to(Offset::FIRST);
            lost(&mut group.durable);
        }
    }

    /// Takes in what readers did, and lets go of those that are gone.
    pub(super) fn look_at_readers(&mut self, context: &mut Context<Self>) {
        let (parting, departed) = (&mut self.parting, &mut self.departed);
        let mut someone_left = false;
        self.readers.retain_mut(|reader| {
            let gone = reader.look();
            if gone && let Some(durable) = reader.durable.take() {
                let position = reader.position();
                departed.insert(durable.cursor.clone(), position.clone());
                if durable.told.as_ref() != Some(&position) {
                    parting.insert(durable.cursor.clone(), (durable, position));
                    someone_left = true;
                }
            }
            !gone
        });
        self.groups.retain(|name, group| {
            group.look();
            if group.members.is_empty() {
                let position = group.ledger.position();
                departed.insert(name.clone(), position.clone());
                if group.durable.told.as_ref() != Some(&position) {
                    parting.insert(name.clone(), (group.durable.clone(), position));
                    someone_left = true;
                }
            }
            !group.members.is_empty()
        });
        if self.busy == 0 {
            self.departed.clear();
        }
        if someone_left {
            self.flush(context);
        }
    }

    /// Whether the topic's readers are served here; false once another node may lead the shard.
    pub(super) fn serves(&self) -> bool {
        let shard = self.core.shard_for(&self.name).0;
        self.core.serves(shard) && self.core.reign(shard.id()) == self.reign
    }

    /// Sends all readers to the next leader when this node no longer leads the shard, or did not for
    /// a while. What they are done with is told first: that may be done from any node.
    fn check_reign(&mut self, context: &mut Context<Self>) {
        if self.serves() {
            return;
        }
        self.flush(context);
        for reader in self.readers.drain(..) {
            reader.buffer.leave();
        }
        for group in std::mem::take(&mut self.groups).values() {
            group.leave();
        }
        self.departed.clear();
        self.runs.clear();
        let shard = self.core.shard_for(&self.name).0;
        // Read first: if the role changes in between, the actor is rung once more.
        let reign = self.core.reign(shard.id());
        if self.core.serves(shard) {
            self.reign = reign;
        }
    }

    fn deliver(&mut self, context: &mut Context<Self>) {
        let now = Instant::now();
        let mut wants = BTreeSet::new();
        let (end, runs) = (self.end, &mut self.runs);
        for reader in &mut self.readers {
            while reader.next < end {
                let Some(run) = runs.iter_mut().find(|run| run.covers(reader.next)) else {
                    if reader.buffer.has_room() {
                        wants.insert(reader.next);
                    }
                    break;
                };
                if !reader.deliver(run) {
                    break;
                }
                run.last_used = now;
            }
        }
        let mut gathered_at = None;
        for group in self.groups.values_mut() {
            if let Some(until) = group.gathers_until(now) {
                gathered_at = Some(gathered_at.map_or(until, |at: Instant| at.min(until)));
                continue;
            }
            group.gathers_since = None;
            while group.ledger.wanted() < end {
                let wanted = group.ledger.wanted();
                let Some(run) = runs.iter_mut().find(|run| run.covers(wanted)) else {
                    if group.has_room() {
                        wants.insert(wanted);
                    }
                    break;
                };
                if !group.deliver(run) {
                    break;
                }
                run.last_used = now;
            }
        }
        if let Some(at) = gathered_at
            && self.gather_timer.is_none()
        {
            let after = at.saturating_duration_since(now);
            self.gather_timer = Some(context.run_later(after, |actor, context| {
                actor.gather_timer = None;
                actor.tend(context);
            }));
        }
        self.drop_runs(now, context);
        for wanted in wants {
            self.read(wanted, context);
        }
    }

    /// Gives back runs that nobody wants, or that nobody could use for a while.
    fn drop_runs(&mut self, now: Instant, context: &mut Context<Self>) {
        let readers = &self.readers;
        let groups = &self.groups;
        let is_crowded = self.core.is_read_room_taken();
        self.runs.retain(|run| {
            let wanted = readers.iter().any(|reader| run.covers(reader.next))
                || groups
                    .values()
                    .any(|group| run.covers(group.ledger.wanted()));
            let since = if is_crowded {
                run.read_at
            } else {
                run.last_used
            };
            wanted && now.duration_since(since) < RUN_IDLE
        });
        if !self.runs.is_empty() && self.run_timer.is_none() {
            self.run_timer = Some(context.run_later(RUN_IDLE, |actor, context| {
                actor.run_timer = None;
                actor.drop_runs(Instant::now(), context);
            }));
        }
    }

    fn read(&mut self, from: Offset, context: &mut Context<Self>) {
        let Some(object) = self.object else {
            return;
        };
        // A read that is under way and began not far below will probably bring it.
        let near = Offset(from.0.saturating_sub(MESSAGES_PER_READ_MAX - 1));
        let under_way = self.reads.range(near..=from).next().is_some();
        if under_way || self.reads.len() >= READS_MAX {
            return;
        }
        self.reads.insert(from);
        let (core, shard) = (
            Arc::clone(&self.core),
            self.core.shard_for(&self.name).0.clone(),
        );
        let reading = self
            .core
            .runtime
            .spawn(run::read(core, shard, object, from));
        context.spawn(reading.into_actor(self).map(move |result, actor, context| {
            let result = result.unwrap_or_else(|error| {
                Err(BrokerError::Unavailable {
                    reason: format!("a read did not finish: {error}"),
                })
            });
            actor.have_read(from, object, result, context);
        }));
    }

    fn have_read(
        &mut self,
        from: Offset,
        object: ObjectId,
        result: Result<Run, BrokerError>,
        context: &mut Context<Self>,
    ) {
        match result {
            Ok(run) => {
                self.reads.remove(&from);
                self.read_failures = 0;
                if self.object == Some(object) {
                    self.runs.push(run);
                }
                self.tend(context);
            }
            Err(error) => {
                self.read_failures += 1;
                tracing::warn!(topic = %self.name, %from, %error, "a read failed");
                if self.read_failures >= READ_FAILURES_MAX {
                    self.read_failures = 0;
                    self.end_all(&error);
                }
                context.run_later(READ_RETRY_PAUSE, move |actor, context| {
                    actor.reads.remove(&from);
                    actor.tend(context);
                });
            }
        }
    }

    /// Ends every subscription with an error.
    pub(super) fn end_all(&self, error: &BrokerError) {
        for reader in &self.readers {
            reader.buffer.end(error.clone());
        }
        for group in self.groups.values() {
            group.end(error);
        }
    }

    fn sleep_soon(&mut self, context: &mut Context<Self>) {
        if !self.is_idle() {
            if let Some(timer) = self.idle_timer.take() {
                context.cancel_future(timer);
            }
        } else if self.idle_timer.is_none() {
            let config = &self.core.config;
            let crowded = self.core.topics.len() > config.actors_soft_max;
            let after = if crowded {
                Duration::from_millis(1)
            } else {
                config.idle_actor_timeout
            };
            self.idle_timer = Some(context.run_later(after, |actor, context| {
                actor.idle_timer = None;
                if actor.is_idle() {
                    actor.core.topics.remove(&actor.name, &actor.wake);
                    context.stop();
                }
            }));
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.readers.is_empty()
            && self.groups.is_empty()
            && self.busy == 0
            && self.parting.is_empty()
            && self.flushes_in_flight == 0
    }
}

impl Actor for TopicActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(self.core.config.mailbox_capacity);
        context.add_stream(Arc::clone(&self.wake).stream());
    }
}

impl Drop for TopicActor {
    fn drop(&mut self) {
        // However it ended, the next request must start a new one, and no reader may wait for ever.
        self.core.topics.remove(&self.name, &self.wake);
        self.end_all(&self.core.gone("the topic's actor"));
    }
}

impl StreamHandler<Woken> for TopicActor {
    fn handle(&mut self, _: Woken, context: &mut Context<Self>) {
        self.tend(context);
    }
}
