//! From a lease to the receiver: payloads are read, and nothing is lost on the way.
//!
//! What nobody can read holds up nothing: it is taken out of the answer, and comes again after a pause.

use std::sync::Arc;
use std::time::Duration;

use flotilla_model::command::{Command, QueuePolicy, Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence, SessionId};
use flotilla_model::message::Message;
use flotilla_model::name::Name;
use flotilla_model::outcome::{LeasedMessage, Outcome, Refusal};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::api::error::BrokerError;
use crate::api::queue::{QueueDelivery, Received};
use crate::convert::unexpected;
use crate::core::Core;
use crate::fault::Fault;
use crate::ingress::Work;
use crate::payload::{self, Found, Unreadable};

/// A message that cannot be read is not tried again before that: each try asks all nodes that hold it.
const UNREAD_PAUSE_MS: u64 = 30_000;
/// In a shard that cannot keep it back for so long yet: between answers that are empty because of it.
const SPOILT_PAUSE: Duration = Duration::from_secs(1);

/// A lease that nobody has taken over yet: dropped, it ends as if there had been none, since the consumer
/// got nothing of it.
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

    fn settling(&self, lease: LeaseId, which: Selection, how: Settlement) -> Command {
        Command::Settle {
            queue: self.queue.clone(),
            session: self.session,
            lease,
            which,
            how,
        }
    }

    /// Whether messages can be settled so by now. A node that does not hold the shard does not know it,
    /// and settles in a way that was always known: that is worse, and never wrong.
    fn knows(&self, how: &Settlement) -> bool {
        let (shard, _) = self.core.shard_for(&self.queue);
        how.feature_level() <= shard.feature_level()
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let mut how = Settlement::Withdraw { pause_ms: 0 };
            if !self.knows(&how) {
                how = Settlement::Release;
            }
            let command = self.settling(lease, Selection::All, how);
            let shard = self.core.cluster.shard_of(&self.queue);
            let what = "release of messages whose receiver is gone";
            self.core.run_in_background(shard, what, vec![command]);
        }
    }
}

/// An answer on its way to its receiver.
pub(crate) struct Answer {
    pub received: Received,
    /// Nothing is left of it after unreadable messages were taken out: the receiver should ask again.
    pub spoilt: bool,
    pub guard: Option<LeaseGuard>,
    /// Of a message that is more than its receiver made room for.
    pub room: Option<OwnedSemaphorePermit>,
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
            room: None,
        }
    }

    /// The receiver has it: from now on its session answers for the lease.
    pub fn accept(mut self) -> (Received, bool) {
        if let Some(guard) = &mut self.guard {
            guard.lease = None;
        }
        // Whose it is counts it from now on.
        drop(self.room.take());
        (self.received, self.spoilt)
    }
}

/// Where an answer goes.
pub(crate) type AnswerSlot = oneshot::Sender<Result<Answer, Fault>>;

/// Reads the payloads of a lease and answers its receiver, which made room for so many bytes.
///
/// One message always comes, however large. Then it waits for room of its own, for many receivers may have
/// asked for little at the same moment, and get what is large.
pub(crate) async fn deliver(
    guard: LeaseGuard,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
    bytes_max: u64,
    expired: u64,
    mut slot: AnswerSlot,
) {
    let room = match messages[..] {
        [LeasedMessage { at, .. }] if u64::from(at.bytes) > bytes_max => tokio::select! {
            room = guard.core.large_permit(at.bytes.into()) => room,
            () = slot.closed() => return,
        },
        _ => None,
    };
    if slot.is_closed() {
        return;
    }
    let answer = match read_surely(&guard.core, &guard.queue, lease, messages).await {
        Ok((deliveries, unread)) => match take_out(&guard, lease, unread).await {
            Ok(true) => Ok(Answer {
                room,
                ..answer(guard, lease, deliveries, expired)
            }),
            Ok(false) => Ok(answer(guard, lease, Vec::new(), expired)),
            Err(fault) => Err(fault),
        },
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
        // The lease is over, so that nothing is left to release.
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
        room: None,
    }
}

/// Sequences of messages that could not be read.
#[derive(Default)]
struct Unread {
    /// They are damaged on all nodes that hold them.
    lost: Vec<Sequence>,
    /// Another node may come back with them.
    missing: Vec<Sequence>,
    /// Nothing else was leased.
    is_all: bool,
}

/// The messages that can be read, and those that cannot.
///
/// A node that has lost the lead since it asked for the lease may lack what the others have: that is
/// no damage, and the messages are for the next leader to hand out.
async fn read_surely(
    core: &Core,
    queue: &Name,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
) -> Result<(Vec<QueueDelivery>, Unread), Fault> {
    let (shard, _) = core.shard_for(queue);
    let (mut deliveries, mut unreadable) = read(core, queue, lease, messages).await?;
    let gone = unreadable.extract_if(.., |(_, why)| matches!(why, Unreadable::Gone));
    let gone: Vec<LeasedMessage> = gone.map(|(message, _)| message).collect();
    if !gone.is_empty() {
        core.confirm_leadership(shard).await?;
        // Now all that was ever applied is here.
        let (late, still_gone) = read(core, queue, lease, gone).await?;
        deliveries.extend(late);
        deliveries.sort_by_key(|delivery| delivery.sequence);
        unreadable.extend(still_gone);
        unreadable.sort_by_key(|(message, _)| message.sequence);
    }
    let mut unread = Unread {
        is_all: deliveries.is_empty(),
        ..Unread::default()
    };
    for (message, why) in unreadable {
        let sequence = message.sequence;
        let (is_lost, reason) = match why {
            Unreadable::Damaged(reason) => (true, reason),
            Unreadable::OutOfReach(reason) => (false, reason),
            Unreadable::Gone => (shard.is_alone(), "its bytes are gone".to_owned()),
        };
        core.metrics.damaged_message();
        tracing::error!(%queue, %sequence, is_lost, reason, "a message cannot be read");
        match is_lost {
            true => unread.lost.push(sequence),
            false => unread.missing.push(sequence),
        }
    }
    Ok((deliveries, unread))
}

/// Takes what cannot be read out of its lease, before the receiver learns of the rest: it may settle all of
/// the lease at once. False if the lease is over meanwhile: then nobody may have the rest by it.
///
/// On a node without others, what is lost is given up. Elsewhere it counts as received, so that it becomes a
/// dead letter where there is a limit; what may only be out of reach does not.
async fn take_out(guard: &LeaseGuard, lease: LeaseId, unread: Unread) -> Result<bool, Fault> {
    if unread.lost.is_empty() && unread.missing.is_empty() {
        return Ok(true);
    }
    let (shard, ingress) = guard.core.shard_for(&guard.queue);
    let pause_ms = UNREAD_PAUSE_MS;
    let (mut lost, mut missing) = (
        Settlement::Postpone { pause_ms },
        Settlement::Withdraw { pause_ms },
    );
    if !guard.knows(&missing) {
        (lost, missing) = (Settlement::Return, Settlement::Return);
        if unread.is_all {
            tokio::time::sleep(SPOILT_PAUSE).await;
        }
    }
    if shard.is_alone() {
        lost = Settlement::Ack;
    }
    let works: Vec<Work> = [(unread.lost, lost), (unread.missing, missing)]
        .into_iter()
        .filter(|(sequences, _)| !sequences.is_empty())
        .map(|(sequences, how)| {
            let which = Selection::Sequences(sequences);
            Work::control(guard.settling(lease, which, how))
        })
        .collect();
    let count = works.len();
    let reply = ingress.run(works).await?;
    for work in 0..count {
        match reply.outcome(work)? {
            (Outcome::Settled { .. }, _) => {}
            // To read them took longer than they were to be held.
            (Outcome::Refused(Refusal::StaleLease { .. }), _) => return Ok(false),
            (other, _) => return Err(unexpected(other).into()),
        }
    }
    Ok(true)
}

/// The messages that can be read, and those that cannot.
pub(crate) async fn read(
    core: &Core,
    queue: &Name,
    lease: LeaseId,
    messages: Vec<LeasedMessage>,
) -> Result<(Vec<QueueDelivery>, Vec<(LeasedMessage, Unreadable)>), BrokerError> {
    let (shard, _) = core.shard_for(queue);
    let runs = payload::runs_of(messages.iter().map(|message| message.at));
    let found = payload::read(shard, runs).await?;
    let mut deliveries = Vec::with_capacity(messages.len());
    let mut unreadable = Vec::new();
    for (leased, found) in messages.into_iter().zip(found) {
        match found {
            Found::Message { message, .. } => deliveries.push(delivery(lease, leased, message)),
            Found::Unreadable(why) => unreadable.push((leased, why)),
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
