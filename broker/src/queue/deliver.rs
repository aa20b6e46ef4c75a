//! From a lease to the receiver: payloads are read, and nothing is lost on the way.

use std::sync::Arc;

use flotilla_model::command::{Command, QueuePolicy, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence, SessionId};
use flotilla_model::message::Message;
use flotilla_model::name::Name;
use flotilla_model::outcome::LeasedMessage;
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::api::queue::{QueueDelivery, Received};
use crate::core::Core;
use crate::fault::Fault;
use crate::payload::{self, Found};

/// A lease that nobody has taken over yet: dropped, it is released.
pub(crate) struct LeaseGuard {
    core: Arc<Core>,
    queue: Name,
    session: SessionId,
    lease: Option<LeaseId>,
}

impl LeaseGuard {
    pub fn new(core: Arc<Core>, queue: Name, session: SessionId, lease: LeaseId) -> Self {
        Self {
            core,
            queue,
            session,
            lease: Some(lease),
        }
    }

    fn settle(&self, lease: LeaseId, which: Selection, how: Settlement, what: &'static str) {
        let command = Command::Settle {
            queue: self.queue.clone(),
            session: self.session,
            lease,
            which,
            how,
        };
        let shard = self.core.cluster.shard_of(&self.queue);
        self.core.run_in_background(shard, what, vec![command]);
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let what = "release of messages whose receiver is gone";
            self.settle(lease, Selection::All, Settlement::Release, what);
        }
    }
}

/// An answer on its way to its receiver.
pub(crate) struct Answer {
    pub received: Received,
    /// Nothing is left of it after damaged messages were taken out: the receiver should ask again.
    pub spoilt: bool,
    pub guard: Option<LeaseGuard>,
}

impl Answer {
    /// No messages in time.
    pub fn empty(expired: u64) -> Self {
        Self {
            received: Received {
                lease: LeaseId(0),
                messages: Vec::new(),
                expired,
            },
            spoilt: false,
            guard: None,
        }
    }

    /// The receiver has it: from now on its session answers for the lease.
    pub fn accept(mut self) -> (Received, bool) {
        if let Some(guard) = &mut self.guard {
            guard.lease = None;
        }
        (self.received, self.spoilt)
    }
}

/// Where an answer goes.
pub(crate) type AnswerSlot = oneshot::Sender<Result<Answer, Fault>>;

/// Reads the payloads of a lease and answers its receiver.
pub(crate) async fn deliver(
    guard: LeaseGuard,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
    expired: u64,
    slot: AnswerSlot,
) {
    if slot.is_closed() {
        return;
    }
    let answer = match read_surely(&guard.core, &guard.queue, lease, messages).await {
        Ok((deliveries, damaged)) => {
            if !damaged.is_empty() {
                // Nobody can ever read them: they would come back for ever.
                let what = "removal of damaged messages";
                guard.settle(lease, Selection::Sequences(damaged), Settlement::Ack, what);
            }
            Ok(answer(guard, lease, deliveries, expired))
        }
        Err(fault) => Err(fault),
    };
    // A receiver that is gone by now drops the answer, and with it the guard.
    drop(slot.send(answer));
}

fn answer(
    mut guard: LeaseGuard,
    lease: LeaseId,
    messages: Vec<QueueDelivery>,
    expired: u64,
) -> Answer {
    let spoilt = messages.is_empty();
    if spoilt {
        // All of the lease is being settled, so that nothing is left to release.
        guard.lease = None;
    }
    Answer {
        received: Received {
            lease: if spoilt { LeaseId(0) } else { lease },
            messages,
            expired,
        },
        spoilt,
        guard: (!spoilt).then_some(guard),
    }
}

/// The messages that can be read, and the sequences of those that nobody can.
///
/// A node that has lost the lead since it asked for the lease may lack what the others have: that is
/// no damage, and the messages are for the next leader to hand out. What is damaged here is read from
/// another replica; of what none of them could give, only a node without any others gives a message up.
async fn read_surely(
    core: &Core,
    queue: &Name,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
) -> Result<(Vec<QueueDelivery>, Vec<Sequence>), Fault> {
    let (mut deliveries, unreadable) = read(core, queue, lease, messages).await?;
    if unreadable.is_empty() {
        return Ok((deliveries, Vec::new()));
    }
    let (shard, _) = core.shard_for(queue);
    core.confirm_leadership(shard).await?;
    let unreadable = unreadable.into_iter().map(|(message, _)| message).collect();
    // Now all that was ever applied is here.
    let (late, unreadable) = read(core, queue, lease, unreadable).await?;
    if let Some((message, reason)) = unreadable.first()
        && !shard.is_alone()
    {
        // Another replica may come back with it: it is handed out again then.
        let sequence = message.sequence;
        core.metrics.damaged_message();
        tracing::error!(%queue, %sequence, reason, "a message cannot be read on any node");
        return Err(Fault::Failed(BrokerError::Unavailable {
            reason: format!("message {sequence} of {queue} is damaged, and kept: {reason}"),
        }));
    }
    deliveries.extend(late);
    deliveries.sort_by_key(|delivery| delivery.sequence);
    let damaged = unreadable.into_iter().map(|(message, reason)| {
        let sequence = message.sequence;
        core.metrics.damaged_message();
        tracing::error!(%queue, %sequence, reason, "a damaged message is removed");
        sequence
    });
    Ok((deliveries, damaged.collect()))
}

/// The messages that can be read here, and those that cannot, with the reason.
pub(crate) async fn read(
    core: &Core,
    queue: &Name,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
) -> Result<(Vec<QueueDelivery>, Vec<(LeasedMessage, String)>), BrokerError> {
    let (shard, _) = core.shard_for(queue);
    let runs = payload::runs_of(messages.iter().map(|message| message.at));
    let found = payload::read(shard, runs).await?;
    let mut deliveries = Vec::with_capacity(messages.len());
    let mut unreadable = Vec::new();
    for (leased, found) in messages.into_iter().zip(found) {
        match found {
            Found::Message { message, .. } => deliveries.push(delivery(lease, leased, message)),
            Found::Gone => unreadable.push((leased, "its bytes are gone".to_owned())),
            Found::Damaged(reason) => unreadable.push((leased, reason)),
        }
    }
    Ok((deliveries, unreadable))
}

fn delivery(lease: LeaseId, leased: LeasedMessage, message: Message) -> QueueDelivery {
    QueueDelivery {
        lease,
        sequence: leased.sequence,
        published: leased.published,
        receive_count: leased.receive_count,
        expires: leased.expires,
        policy: QueuePolicy {
            delay_ms: leased.delay_ms,
            ttl_ms: leased.ttl_ms,
            receive_count_max: leased.receive_count_max,
            dead_letter: leased.dead_letter,
        },
        moved_from: leased.moved_from,
        message,
    }
}
