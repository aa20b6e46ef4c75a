//! Group commit: one actor per shard turns what waits in the ingress into entries.
//!
//! While entries are being made durable, submissions gather; the next entry takes as many as fit.
//! An idle shard proposes at once, a busy one shares each sync. Outcomes go back to one reply slot
//! per submission.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use flotilla_cluster::{ClusterError, Shard};
use flotilla_model::batch::{ProposalBuilder, Ticket};
use flotilla_model::command::Command;
use flotilla_model::outcome::Outcome;
use futures::{FutureExt, stream};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::unconstrained;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::ingress::{EntryReply, ShardIngress, Submission, Work, fits_entry};

/// Entries of a shard between proposal and outcome. More would only be made smaller.
const ENTRIES_IN_FLIGHT_MAX: usize = 3;
/// After storage refused an entry, settlements are proposed apart from payload for this long.
const FULL_STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// Something is in the ingress.
struct Woken;

/// The actor of one shard.
pub(crate) struct ShardActor {
    core: Arc<Core>,
    shard: Shard,
    ingress: Arc<ShardIngress>,
    entries_in_flight: usize,
    storage_full_until: Option<Instant>,
    drained: Vec<oneshot::Sender<()>>,
}

/// Answers when nothing waits and nothing is in flight.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain(pub oneshot::Sender<()>);

/// A caller whose commands are in an entry.
struct Caller {
    reply: oneshot::Sender<Result<EntryReply, BrokerError>>,
    tickets: Vec<Ticket>,
    stores: bool,
    /// The commands once more, if the entry also holds payload of others and may be refused for it.
    again: Vec<Command>,
    room: OwnedSemaphorePermit,
}

struct Entry {
    commands: Vec<Command>,
    slots: Vec<Bytes>,
    callers: Vec<Caller>,
}

impl ShardActor {
    pub fn new(core: Arc<Core>, shard: Shard) -> Self {
        Self {
            ingress: Arc::clone(core.ingress(shard.id())),
            core,
            shard,
            entries_in_flight: 0,
            storage_full_until: None,
            drained: Vec::new(),
        }
    }

    fn pump(&mut self, context: &mut Context<Self>) {
        while self.entries_in_flight < ENTRIES_IN_FLIGHT_MAX {
            let Some(entry) = self.next_entry() else {
                break;
            };
            self.propose(entry, context);
        }
        if self.entries_in_flight == 0 && self.ingress.is_empty() {
            for drained in self.drained.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = drained.send(());
            }
        }
    }

    fn next_entry(&mut self) -> Option<Entry> {
        let apart = self
            .storage_full_until
            .is_some_and(|until| Instant::now() < until);
        let mut held = (0, 0, 0);
        let mut stores = None;
        let taken = self.ingress.take_while(|next| {
            let more = (next.works.len(), next.slots, next.bytes);
            let same = !apart || *stores.get_or_insert(next.stores) == next.stores;
            let fits = same && fits_entry(held, more);
            if fits {
                held = (held.0 + more.0, held.1 + more.1, held.2 + more.2);
            }
            fits
        });
        (!taken.is_empty()).then(|| build(taken))
    }

    fn propose(&mut self, entry: Entry, context: &mut Context<Self>) {
        let Entry {
            commands,
            slots,
            callers,
        } = entry;
        self.entries_in_flight += 1;
        let shard = self.shard.clone();
        let deadline = Instant::now() + self.core.config.propose_wait_max;
        // Entries enter the log in the order of the first polls, and actix promises none: hence this
        // poll here and now, outside tokio's budget, which could turn it into a poll that does nothing.
        let mut proposal = Box::pin(unconstrained(async move {
            shard.propose(commands, slots, deadline).await
        }));
        match proposal.as_mut().now_or_never() {
            Some(result) => self.finish(callers, result),
            None => {
                context.spawn(proposal.into_actor(self).map(|result, actor, context| {
                    actor.finish(callers, result);
                    actor.pump(context);
                }));
            }
        }
    }

    fn finish(&mut self, callers: Vec<Caller>, result: Result<Arc<[Outcome]>, ClusterError>) {
        self.entries_in_flight -= 1;
        match result {
            Ok(outcomes) => {
                for caller in callers {
                    let answer = EntryReply::new(Arc::clone(&outcomes), caller.tickets);
                    // A caller that stopped waiting has no use for the answer.
                    let _ = caller.reply.send(Ok(answer));
                }
            }
            Err(error) => self.fail(callers, error),
        }
    }

    fn fail(&mut self, callers: Vec<Caller>, error: ClusterError) {
        if matches!(error, ClusterError::Full { .. }) {
            self.storage_full_until = Some(Instant::now() + FULL_STORAGE_PAUSE);
        }
        let retry = matches!(error, ClusterError::Full { .. });
        let told = BrokerError::from(error);
        let mut again = Vec::new();
        for caller in callers {
            if retry && !caller.stores && !caller.again.is_empty() {
                again.push(Submission {
                    works: caller.again.into_iter().map(Work::control).collect(),
                    slots: 0,
                    bytes: 0,
                    stores: false,
                    reply: caller.reply,
                    room: caller.room,
                });
            } else {
                let _ = caller.reply.send(Err(told.clone()));
            }
        }
        self.ingress.put_back(again);
    }
}

fn build(taken: Vec<Submission>) -> Entry {
    let mixed = taken.iter().any(|next| next.stores) && taken.iter().any(|next| !next.stores);
    // What fits was decided when the submissions were taken; a lone one may be of any size.
    let mut builder = ProposalBuilder::with_bytes_max(usize::MAX);
    let mut callers = Vec::with_capacity(taken.len());
    for submission in taken {
        let again = if mixed && !submission.stores {
            submission
                .works
                .iter()
                .map(|work| work.command.clone())
                .collect()
        } else {
            Vec::new()
        };
        let tickets: Result<Vec<_>, _> = submission
            .works
            .into_iter()
            .map(|work| builder.push(work.command, work.slots))
            .collect();
        match tickets {
            Ok(tickets) => callers.push(Caller {
                reply: submission.reply,
                tickets,
                stores: submission.stores,
                again,
                room: submission.room,
            }),
            // Sizes were checked before; if they disagree, a part of the works may be in the entry.
            Err(_) => {
                let _ = submission.reply.send(Err(BrokerError::OutcomeUnknown));
            }
        }
    }
    let (commands, slots) = builder.finish();
    Entry {
        commands,
        slots,
        callers,
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let ingress = Arc::clone(&self.ingress);
        context.add_stream(stream::unfold(ingress, |ingress| async move {
            ingress.wake.notified().await;
            Some((Woken, ingress))
        }));
    }
}

impl Drop for ShardActor {
    fn drop(&mut self) {
        let what = format!("the actor of shard {}", self.shard.id());
        self.core.lose(&what);
        // Nobody will propose what waits: say so, and take no more.
        self.ingress.end(&self.core.gone(&what));
    }
}

impl StreamHandler<Woken> for ShardActor {
    fn handle(&mut self, _: Woken, context: &mut Context<Self>) {
        self.pump(context);
    }
}

impl Handler<Drain> for ShardActor {
    type Result = ();

    fn handle(&mut self, message: Drain, context: &mut Context<Self>) {
        self.drained.push(message.0);
        self.pump(context);
    }
}
