//! A batch on its way into a shard's log, until its outcome is known.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flotilla_model::command::{Command, EntryHead, Proposal};
use flotilla_model::format::encode_head;
use flotilla_model::ids::{NodeId, Origin, ShardTime, WallTime};
use flotilla_model::outcome::{Outcome, Refusal};
use flotilla_storage::EntryBody;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::ClusterError;

/// Outcomes per proposal, per command.
pub(crate) type Outcomes = Vec<Arc<[Outcome]>>;
pub(crate) type Reply = oneshot::Sender<Result<Outcomes, ClusterError>>;

/// Who a batch is from.
pub(crate) enum From {
    /// This node. The number is given when the batch is first put into the log, so that a batch that
    /// never was leaves no hole.
    Node { sequence: Option<u64> },
    /// Someone else, who numbers its proposals itself: (origin, sequence, commands, slots taken).
    Elsewhere(Vec<ForeignProposal>),
}

/// A numbered proposal of an origin that is not this node.
pub(crate) struct ForeignProposal {
    pub origin: Origin,
    pub sequence: u64,
    pub commands: Vec<Command>,
    pub slot_count: u32,
}

/// A request to put a batch into the log.
pub(crate) struct Submission {
    pub from: From,
    /// Of a batch of this node; a foreign one carries its own.
    pub commands: Vec<Command>,
    pub slots: Vec<Bytes>,
    pub deadline: Instant,
    pub reply: Reply,
}

impl Submission {
    /// What it counts against the node's budget: payload, and a little for every command.
    pub fn budget_bytes(&self) -> u64 {
        const COMMAND_BYTES: usize = 64;
        let payload: usize = self.slots.iter().map(Bytes::len).sum();
        (payload + self.commands.len() * COMMAND_BYTES) as u64
    }
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// To be put into the log, for the first time or again.
    Waiting,
    /// In Raft's hands.
    Proposed,
}

pub(crate) struct Pending {
    pub from: From,
    pub commands: Vec<Command>,
    pub slots: Vec<Bytes>,
    pub deadline: Instant,
    /// `None` once the caller was answered, while the batch goes on.
    pub reply: Option<Reply>,
    pub stage: Stage,
    /// Some attempt may have reached the log.
    pub maybe_logged: bool,
    /// Why a later attempt was refused for good. Only the log can tell whether an earlier one reached it,
    /// so the batch goes on, emptied: what comes back is the outcome that it had, or that of nothing.
    refused: Option<ClusterError>,
    /// Given back when nobody waits for the batch any more, or it is emptied: it may have to stay for as long as
    /// its shard has no leader, and other shards must not wait for that.
    budget: Option<OwnedSemaphorePermit>,
}

/// What the answer to an attempt means for its batch.
pub(crate) enum Verdict {
    Over(Result<Outcomes, ClusterError>),
    /// Not applied: try again once the batches before it are through.
    Again,
}

impl Pending {
    pub fn new(submission: Submission, budget: OwnedSemaphorePermit) -> Self {
        Self {
            from: submission.from,
            commands: submission.commands,
            slots: submission.slots,
            deadline: submission.deadline,
            reply: Some(submission.reply),
            stage: Stage::Waiting,
            maybe_logged: false,
            refused: None,
            budget: Some(budget),
        }
    }

    pub fn answer(&mut self, answer: Result<Outcomes, ClusterError>) {
        self.budget = None;
        if let Some(reply) = self.reply.take() {
            // The caller may have gone away; its batch was applied or not all the same.
            let _ = reply.send(answer);
        }
    }

    /// Takes the contents out of a batch that never reached the log. Its number stays: the batches
    /// behind it could not be applied across a hole.
    pub fn hollow(&mut self) {
        self.commands = vec![no_operation()];
        self.slots = Vec::new();
        self.budget = None;
        if let From::Elsewhere(proposals) = &mut self.from {
            proposals.clear();
        }
    }

    /// An attempt was refused, and asking again would not change that. What was never logged is over; of
    /// what may have been the log is asked, with nothing in hand that could be refused again.
    pub fn refuse(&mut self, error: ClusterError) {
        let is_numbered = matches!(self.from, From::Node { sequence: Some(_) });
        // A foreign batch is repeated by whoever numbered it.
        if self.maybe_logged && is_numbered {
            self.refused = Some(error);
        } else {
            self.answer(Err(error));
        }
        self.hollow();
    }

    /// Nothing needs to be put into the log any more.
    pub fn is_moot(&self) -> bool {
        match &self.from {
            From::Node { sequence } => sequence.is_none() && self.reply.is_none(),
            From::Elsewhere(proposals) => proposals.is_empty() && self.reply.is_none(),
        }
    }

    /// The entry for one attempt. `number` is the node's next sequence, taken if it is needed.
    pub fn encode(
        &mut self,
        origin: Origin,
        number: &mut u64,
        now: ShardTime,
        wall: WallTime,
    ) -> Result<EntryBody, ClusterError> {
        let proposals = match &mut self.from {
            From::Node { sequence } => {
                let sequence = *sequence.get_or_insert_with(|| {
                    *number += 1;
                    *number
                });
                vec![Proposal {
                    origin,
                    sequence,
                    first_slot: 0,
                    commands: std::mem::take(&mut self.commands),
                }]
            }
            From::Elsewhere(foreign) => foreign_proposals(foreign),
        };
        let mut head = EntryHead {
            now,
            wall,
            proposals,
        };
        let encoded = encode_head(&head);
        // The commands are kept for another attempt; a head owns them while it is encoded.
        match &mut self.from {
            From::Node { .. } => {
                if let Some(proposal) = head.proposals.pop() {
                    self.commands = proposal.commands;
                }
            }
            From::Elsewhere(foreign) => {
                for (kept, proposal) in foreign.iter_mut().zip(head.proposals) {
                    kept.commands = proposal.commands;
                }
            }
        }
        EntryBody::builder()
            .head(encoded)
            .slots(self.slots.iter().cloned())
            .build()
            .map_err(ClusterError::from)
    }

    /// Reads the answer of the state machine.
    pub fn judge(&mut self, outcomes: Outcomes) -> Verdict {
        let From::Node {
            sequence: Some(sequence),
        } = self.from
        else {
            return Verdict::Over(Ok(outcomes));
        };
        let gap = outcomes
            .first()
            .and_then(|outcomes| match outcomes.first() {
                Some(Outcome::Refused(Refusal::OriginGap { last, .. })) => Some(*last),
                _ => None,
            });
        match gap {
            Some(last) if last < sequence => Verdict::Again,
            // No batch with a payload, and only those are refused, has the outcome of nothing.
            None if self.refused.is_some() && is_of_nothing(&outcomes) => {
                Verdict::Over(self.refused.take().map_or(Ok(outcomes), Err))
            }
            Some(_) => Verdict::Over(Err(ClusterError::OutcomeUnknown {
                reason: "the batch was applied, and its outcome is no longer kept".to_owned(),
            })),
            None => Verdict::Over(Ok(outcomes)),
        }
    }
}

/// A command that changes nothing and has an outcome, for a number that must be used up: without an
/// outcome there would be no telling whether it was.
pub(crate) fn no_operation() -> Command {
    Command::EndOldSessions {
        node: NodeId(0),
        incarnation: 0,
    }
}

/// Whether these are the outcomes of [`no_operation`] alone.
fn is_of_nothing(outcomes: &Outcomes) -> bool {
    matches!(&outcomes[..], [only] if **only == [Outcome::Done])
}

fn foreign_proposals(foreign: &mut [ForeignProposal]) -> Vec<Proposal> {
    let mut first_slot = 0;
    foreign
        .iter_mut()
        .map(|proposal| {
            let first = first_slot;
            first_slot += proposal.slot_count;
            Proposal {
                origin: proposal.origin,
                sequence: proposal.sequence,
                first_slot: first,
                commands: std::mem::take(&mut proposal.commands),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_model::format::decode_head;
    use flotilla_model::ids::Offset;
    use tokio::sync::Semaphore;

    const ORIGIN: Origin = Origin::Node {
        node: NodeId(1),
        incarnation: 1,
    };

    fn pending(slots: Vec<Bytes>) -> Pending {
        within(&Arc::new(Semaphore::new(1)), slots)
    }

    fn within(budget: &Arc<Semaphore>, slots: Vec<Bytes>) -> Pending {
        let (reply, _) = oneshot::channel();
        let submission = Submission {
            from: From::Node { sequence: None },
            commands: vec![Command::EndOldSessions {
                node: NodeId(7),
                incarnation: 7,
            }],
            slots,
            deadline: Instant::now(),
            reply,
        };
        Pending::new(submission, budget.clone().try_acquire_owned().unwrap())
    }

    fn proposal_of(body: &EntryBody) -> Proposal {
        decode_head(&body.head(), 1).unwrap().proposals.remove(0)
    }

    fn encode(pending: &mut Pending, number: &mut u64) -> EntryBody {
        pending
            .encode(ORIGIN, number, ShardTime(1), WallTime(1))
            .unwrap()
    }

    #[test]
    fn a_repeat_carries_the_same_number_and_contents() {
        let mut number = 4;
        let mut pending = pending(vec![Bytes::from_static(b"slot")]);
        let first = encode(&mut pending, &mut number);
        let again = encode(&mut pending, &mut number);
        assert_eq!(number, 5);
        assert_eq!(proposal_of(&first), proposal_of(&again));
        assert_eq!(again.slot(0).unwrap(), "slot");
    }

    #[test]
    fn what_is_given_up_keeps_its_number_and_loses_its_contents() {
        let mut number = 0;
        let mut pending = pending(vec![Bytes::from_static(b"slot")]);
        encode(&mut pending, &mut number);
        pending.hollow();
        pending.answer(Err(ClusterError::Busy));
        assert!(!pending.is_moot(), "its number must still be used up");
        let body = encode(&mut pending, &mut number);
        assert_eq!((number, body.slot_count()), (1, 0));
        assert_eq!(proposal_of(&body).commands, [no_operation()]);
    }

    #[test]
    fn what_is_refused_after_it_may_have_been_logged_is_asked_of_the_log_without_its_payload() {
        let begin = || {
            let mut pending = pending(vec![Bytes::from_static(b"slot")]);
            encode(&mut pending, &mut 0);
            pending.maybe_logged = true;
            pending.refuse(ClusterError::Busy);
            assert!(pending.reply.is_some(), "nothing is known yet");
            let body = encode(&mut pending, &mut 1);
            assert_eq!(body.slot_count(), 0, "it could be refused again");
            pending
        };
        let never_logged: Outcomes = vec![Arc::new([Outcome::Done])];
        assert!(matches!(
            begin().judge(never_logged),
            Verdict::Over(Err(ClusterError::Busy))
        ));
        let logged: Outcomes = vec![Arc::new([Outcome::Appended {
            first: Offset(1),
            at: WallTime(1),
            duplicates: Vec::new(),
        }])];
        assert!(matches!(begin().judge(logged), Verdict::Over(Ok(_))));
    }

    #[test]
    fn what_nobody_waits_for_or_is_emptied_leaves_the_budget_to_others() {
        let budget = Arc::new(Semaphore::new(1));
        let end_of_wait = |pending: &mut Pending| {
            pending.answer(Err(ClusterError::OutcomeUnknown {
                reason: String::new(),
            }));
        };
        let refusal = |pending: &mut Pending| pending.refuse(ClusterError::Busy);
        for ends in [end_of_wait as fn(&mut Pending), refusal] {
            let mut pending = within(&budget, vec![Bytes::from_static(b"slot")]);
            encode(&mut pending, &mut 0);
            pending.maybe_logged = true;
            assert_eq!(budget.available_permits(), 0);
            ends(&mut pending);
            assert!(!pending.is_moot(), "it stays for its number");
            assert_eq!(budget.available_permits(), 1);
        }
    }

    #[test]
    fn what_never_had_a_number_is_over_once_it_is_answered() {
        let mut pending = pending(Vec::new());
        pending.hollow();
        pending.answer(Err(ClusterError::Busy));
        assert!(pending.is_moot());
    }

    #[test]
    fn a_gap_before_a_batch_means_again_and_a_forgotten_outcome_means_unknown() {
        let mut number = 4;
        let mut pending = pending(Vec::new());
        encode(&mut pending, &mut number);
        let refused = |last| -> Outcomes {
            vec![Arc::new([Outcome::Refused(Refusal::OriginGap {
                last,
                got: 5,
            })])]
        };
        assert!(matches!(pending.judge(refused(3)), Verdict::Again));
        assert!(matches!(
            pending.judge(refused(90)),
            Verdict::Over(Err(ClusterError::OutcomeUnknown { .. }))
        ));
        let done: Outcomes = vec![Arc::new([Outcome::Done])];
        assert!(matches!(pending.judge(done), Verdict::Over(Ok(_))));
    }
}
