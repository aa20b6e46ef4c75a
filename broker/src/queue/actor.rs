//! The actor of one queue with waiting receivers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use flotilla_model::command::Command;
use flotilla_model::ids::SessionId;
use flotilla_model::name::Name;
use flotilla_model::outcome::Outcome;
use flotilla_model::query::{self, QueueInfo};
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::api::queue::Fill;
use crate::convert::unexpected;
use crate::core::Core;
use crate::fault::Fault;
use crate::ingress::{EntryReply, SUBMISSION_WORKS_MAX, Work};
use crate::queue::deliver::{self, Answer, AnswerSlot, LeaseGuard};
use crate::queue::waiters::{Stock, WaitList, Waiter};
use crate::wake::{Wake, Woken};

/// After a round that brought nothing although something was there: the count and the queue disagree.
const EMPTY_ROUND_PAUSE: Duration = Duration::from_millis(50);

/// Waits for messages.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<oneshot::Receiver<Result<Answer, Fault>>, Fault>")]
pub(crate) struct Wait {
    pub session: SessionId,
    pub messages_max: u32,
    pub bytes_max: u64,
    pub deadline: Instant,
    pub fill: Fill,
    pub visibility_ms: Option<u64>,
}

/// Waits until there is something, and takes nothing.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<oneshot::Receiver<Result<Answer, Fault>>, Fault>")]
pub(crate) struct Look {
    pub deadline: Instant,
}

/// Ends all waits.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// A receiver as the actor knows it.
struct Receiver {
    /// `None` of one that only looks.
    session: Option<SessionId>,
    visibility_ms: Option<u64>,
    expired: u64,
    slot: AnswerSlot,
}

/// The actor of one queue.
pub(crate) struct QueueActor {
    core: Arc<Core>,
    name: Name,
    wake: Arc<Wake>,
    waiting: WaitList<Receiver>,
    /// When this node last led the shard.
    reign: u64,
    /// A lease round or a look at the queue is under way.
    busy: bool,
    pause_until: Option<Instant>,
    timer: Option<(Instant, SpawnHandle)>,
    idle_timer: Option<SpawnHandle>,
}

impl QueueActor {
    pub fn new(core: Arc<Core>, name: Name, wake: Arc<Wake>) -> Self {
        Self {
            reign: core.reign(core.cluster.shard_of(&name)),
            core,
            name,
            wake,
            waiting: WaitList::default(),
            busy: false,
            pause_until: None,
            timer: None,
            idle_timer: None,
        }
    }

    /// Serves who can be served. Called whenever anything may have changed.
    fn tend(&mut self, context: &mut Context<Self>) {
        self.check_reign();
        self.waiting.retain(|waiter| !waiter.tag.slot.is_closed());
        self.wake.set_subscribers(self.waiting.len());
        if !self.busy && !self.waiting.is_empty() {
            let (shard, _) = self.core.shard_for(&self.name);
            let name = &self.name;
            match shard.read_now(|records| query::queue_info(records, name)) {
                Ok(Some(info)) => self.share_out(stock(info.as_ref()), context),
                Ok(None) => self.look_up(context),
                Err(error) => self.answer_all(&Fault::from(error)),
            }
        }
        self.sleep_soon(context);
    }

    /// Whether receivers are served here; false once another node may lead the shard.
    fn serves(&self) -> bool {
        let (shard, _) = self.core.shard_for(&self.name);
        self.core.serves(shard) && self.core.reign(shard.id()) == self.reign
    }

    /// Sends those who wait to the next leader when this node no longer leads the shard, or did not
    /// for a while. Those who are being served get what is leased for them, from whatever leader.
    fn check_reign(&mut self) {
        if self.serves() {
            return;
        }
        self.answer_all(&Fault::Moved);
        let (shard, _) = self.core.shard_for(&self.name);
        // Read first: if the role changes in between, the actor is rung once more.
        let reign = self.core.reign(shard.id());
        if self.core.serves(shard) {
            self.reign = reign;
        }
    }

    /// The queue's record is not in memory: have it loaded.
    fn look_up(&mut self, context: &mut Context<Self>) {
        self.busy = true;
        let (core, name) = (Arc::clone(&self.core), self.name.clone());
        let looking = async move {
            let (shard, _) = core.shard_for(&name);
            shard
                .read(|records| query::queue_info(records, &name))
                .await
        };
        context.spawn(looking.into_actor(self).map(|result, actor, context| {
            actor.busy = false;
            match result {
                Ok(info) => actor.share_out(stock(info.as_ref()), context),
                Err(error) => actor.answer_all(&Fault::from(error)),
            }
            actor.sleep_soon(context);
        }));
    }

    fn share_out(&mut self, stock: Stock, context: &mut Context<Self>) {
        let now = Instant::now();
        let paused = self.pause_until.filter(|until| now < *until);
        let stock = if paused.is_some() {
            Stock::default()
        } else {
            stock
        };
        let plan = self.waiting.plan(now, stock);
        for waiter in plan.answer {
            let answer = Answer::empty(waiter.tag.expired);
            // A receiver that is gone needs no answer.
            drop(waiter.tag.slot.send(Ok(answer)));
        }
        let mut serve = plan.serve;
        let later = serve.split_off(serve.len().min(SUBMISSION_WORKS_MAX));
        self.waiting.put_back(later);
        if !serve.is_empty() {
            self.lease(serve, context);
        }
        let again_at = match (plan.again_at, paused) {
            (Some(at), Some(paused)) => Some(at.min(paused)),
            (at, paused) => at.or(paused),
        };
        self.wake.set_subscribers(self.waiting.len());
        self.set_timer(again_at, context);
    }

    /// One lease command per receiver, all in one submission.
    fn lease(&mut self, serve: Vec<Waiter<Receiver>>, context: &mut Context<Self>) {
        let works = serve
            .iter()
            .filter_map(|waiter| {
                Some(Work::control(Command::Lease {
                    queue: self.name.clone(),
                    session: waiter.tag.session?,
                    messages_max: u32::try_from(waiter.messages_max).unwrap_or(u32::MAX),
                    bytes_max: waiter.bytes_max,
                    visibility_ms: waiter.tag.visibility_ms,
                }))
            })
            .collect();
        self.busy = true;
        let (_, ingress) = self.core.shard_for(&self.name);
        let ingress = Arc::clone(ingress);
        let leasing = async move { ingress.run(works).await };
        context.spawn(leasing.into_actor(self).map(|result, actor, context| {
            actor.busy = false;
            actor.leased(serve, result);
            actor.tend(context);
        }));
    }

    fn leased(&mut self, served: Vec<Waiter<Receiver>>, result: Result<EntryReply, BrokerError>) {
        let now = Instant::now();
        let (mut brought, mut back) = (false, Vec::new());
        for (work, mut waiter) in served.into_iter().enumerate() {
            let outcome = result
                .as_ref()
                .map_err(BrokerError::clone)
                .and_then(|reply| reply.outcome(work));
            let (lease, messages, expired) = match outcome {
                Ok((
                    Outcome::Leased {
                        lease,
                        messages,
                        expired,
                    },
                    _,
                )) => (*lease, messages, u64::from(*expired)),
                Ok((other, _)) => {
                    drop(waiter.tag.slot.send(Err(unexpected(other).into())));
                    continue;
                }
                Err(error) => {
                    drop(waiter.tag.slot.send(Err(error.into())));
                    continue;
                }
            };
            brought |= !messages.is_empty() || expired > 0;
            waiter.tag.expired += expired;
            if !messages.is_empty() {
                self.hand_over(lease, messages.clone(), waiter.bytes_max, waiter.tag);
            } else if waiter.deadline <= now {
                drop(waiter.tag.slot.send(Ok(Answer::empty(waiter.tag.expired))));
            } else {
                back.push(waiter);
            }
        }
        self.pause_until = (!brought && !back.is_empty()).then(|| now + EMPTY_ROUND_PAUSE);
        self.waiting.put_back(back);
    }

    fn hand_over(
        &self,
        lease: flotilla_model::ids::LeaseId,
        messages: Vec<flotilla_model::outcome::LeasedMessage>,
        bytes_max: u64,
        receiver: Receiver,
    ) {
        let Some(session) = receiver.session else {
            return;
        };
        let guard = LeaseGuard::new(Arc::clone(&self.core), self.name.clone(), session, lease);
        let (expired, slot) = (receiver.expired, receiver.slot);
        let delivering = deliver::deliver(guard, lease, messages, bytes_max, expired, slot);
        self.core.runtime.spawn(delivering);
    }

    fn answer_all(&mut self, fault: &Fault) {
        for waiter in self.waiting.drain() {
            drop(waiter.tag.slot.send(Err(fault.clone())));
        }
        self.wake.set_subscribers(0);
    }

    fn add(
        &mut self,
        make: impl FnOnce(AnswerSlot) -> Waiter<Receiver>,
        context: &mut Context<Self>,
    ) -> Result<oneshot::Receiver<Result<Answer, Fault>>, Fault> {
        self.core.check_open()?;
        self.check_reign();
        if !self.serves() {
            return Err(Fault::Moved);
        }
        // Who was dropped before it heard that it waits did not ring.
        let most = self.core.config.waiters_per_name_max;
        let is_gone = |waiter: &Waiter<Receiver>| waiter.tag.slot.is_closed();
        if !self.waiting.has_room(most, is_gone) {
            return Err(Fault::Failed(BrokerError::Busy {
                what: format!("{} has too many waiting receivers", self.name),
            }));
        }
        let (slot, answer) = oneshot::channel();
        let waiter = make(slot);
        let deadline = waiter.deadline;
        self.waiting.push(waiter);
        if self.is_empty_now() && deadline > Instant::now() {
            // Nobody can be served: a crowd of waiters need not be gone through for each newcomer.
            self.wake.set_subscribers(self.waiting.len());
            let sooner = self.timer.as_ref().map(|(at, _)| (*at).min(deadline));
            self.set_timer(Some(sooner.unwrap_or(deadline)), context);
        } else {
            self.tend(context);
        }
        Ok(answer)
    }

    /// Whether the queue certainly has nothing for anybody.
    fn is_empty_now(&self) -> bool {
        let (shard, _) = self.core.shard_for(&self.name);
        let info = shard.read_now(|records| query::queue_info(records, &self.name));
        matches!(info, Ok(Some(info)) if stock(info.as_ref()).messages == 0)
    }

    fn set_timer(&mut self, at: Option<Instant>, context: &mut Context<Self>) {
        if self.timer.as_ref().map(|(at, _)| *at) == at {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_future(timer);
        }
        if let Some(at) = at {
            let after = at.saturating_duration_since(Instant::now());
            let timer = context.run_later(after, |actor, context| {
                actor.timer = None;
                actor.tend(context);
            });
            self.timer = Some((at, timer));
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.busy
    }

    fn sleep_soon(&mut self, context: &mut Context<Self>) {
        if !self.is_idle() {
            if let Some(timer) = self.idle_timer.take() {
                context.cancel_future(timer);
            }
        } else if self.idle_timer.is_none() {
            let config = &self.core.config;
            let crowded = self.core.queues.len() > config.actors_soft_max;
            let after = if crowded {
                Duration::from_millis(1)
            } else {
                config.idle_actor_timeout
            };
            self.idle_timer = Some(context.run_later(after, |actor, context| {
                actor.idle_timer = None;
                if actor.is_idle() {
                    actor.core.queues.remove(&actor.name, &actor.wake);
                    context.stop();
                }
            }));
        }
    }
}

fn stock(info: Option<&QueueInfo>) -> Stock {
    info.map_or(Stock::default(), |info| {
        let stored = info.available + info.leased + info.delayed;
        Stock {
            messages: info.available,
            message_bytes: info.bytes / stored.max(1),
        }
    })
}

impl Actor for QueueActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(self.core.config.mailbox_capacity);
        context.add_stream(Arc::clone(&self.wake).stream());
    }
}

impl Drop for QueueActor {
    fn drop(&mut self) {
        // However it ended, the next request must start a new one, and nobody may wait for ever.
        self.core.queues.remove(&self.name, &self.wake);
        let error = self.core.gone("the queue's actor");
        self.answer_all(&Fault::Failed(error));
    }
}

impl StreamHandler<Woken> for QueueActor {
    fn handle(&mut self, _: Woken, context: &mut Context<Self>) {
        self.tend(context);
    }
}

impl Handler<Wait> for QueueActor {
    type Result = Result<oneshot::Receiver<Result<Answer, Fault>>, Fault>;

    fn handle(&mut self, wait: Wait, context: &mut Context<Self>) -> Self::Result {
        let make = |slot| {
            let receiver = Receiver {
                session: Some(wait.session),
                visibility_ms: wait.visibility_ms,
                expired: 0,
                slot,
            };
            let messages_max = u64::from(wait.messages_max);
            Waiter::new(
                messages_max,
                wait.bytes_max,
                wait.deadline,
                wait.fill,
                receiver,
            )
        };
        self.add(make, context)
    }
}

impl Handler<Look> for QueueActor {
    type Result = Result<oneshot::Receiver<Result<Answer, Fault>>, Fault>;

    fn handle(&mut self, look: Look, context: &mut Context<Self>) -> Self::Result {
        let make = |slot| {
            let receiver = Receiver {
                session: None,
                visibility_ms: None,
                expired: 0,
                slot,
            };
            Waiter::looking(look.deadline, receiver)
        };
        self.add(make, context)
    }
}

impl Handler<Stop> for QueueActor {
    type Result = ();

    fn handle(&mut self, _: Stop, _: &mut Context<Self>) {
        self.answer_all(&Fault::Failed(BrokerError::ShuttingDown));
    }
}
