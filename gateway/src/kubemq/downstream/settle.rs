//! The settlements of a downstream: what a request asks for, and what became of it.

use std::sync::Arc;

use flotilla_broker::{BrokerError, Session, Settled};
use flotilla_model::command::Settlement;
use flotilla_model::name::Name;

use super::reply::{Origin, Outgoing};
use super::transactions::{Taken, Transactions};
use crate::kubemq::error::{RequestError, Verb};
use crate::kubemq::protocol::{QueuesDownstreamRequest, QueuesDownstreamRequestType as Type};
use crate::kubemq::validate;

/// What a request does to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    verb: Verb,
    is_range: bool,
    is_close: bool,
}

/// A settlement to be made.
pub struct Settling {
    origin: Origin,
    verb: Verb,
    settlement: Settlement,
    taken: Taken,
}

/// A settlement that was made, or not.
pub struct Done {
    settling: Settling,
    result: Result<Settled, BrokerError>,
}

impl How {
    /// `None` if the request settles nothing.
    pub fn of(kind: Type) -> Option<Self> {
        let (verb, is_range, is_close) = match kind {
            Type::AckAll => (Verb::Ack, false, false),
            Type::AckRange => (Verb::Ack, true, false),
            Type::NAckAll => (Verb::Nack, false, false),
            Type::NAckRange => (Verb::Nack, true, false),
            Type::ReQueueAll => (Verb::Requeue, false, false),
            Type::ReQueueRange => (Verb::Requeue, true, false),
            Type::CloseByClient => (Verb::Nack, false, true),
            _ => return None,
        };
        Some(Self {
            verb,
            is_range,
            is_close,
        })
    }

    /// The queue that messages are moved to, if they are.
    pub fn target(self, request: &QueuesDownstreamRequest) -> Option<Name> {
        match self.settlement(request) {
            Ok(Settlement::Move { to }) => Some(to),
            _ => None,
        }
    }

    /// What becomes of the messages, if that is said properly.
    pub fn settlement(self, request: &QueuesDownstreamRequest) -> Result<Settlement, RequestError> {
        Ok(match (self.is_close, self.verb) {
            (true, _) => Settlement::Release,
            (false, Verb::Ack) => Settlement::Ack,
            (false, Verb::Nack) => Settlement::Return,
            (false, Verb::Requeue) if request.re_queue_channel.is_empty() => {
                return Err(RequestError::RequeueTarget);
            }
            (false, Verb::Requeue) => Settlement::Move {
                to: validate::queue_name(&request.re_queue_channel)?,
            },
        })
    }
}

/// Takes a request's messages out of their transactions; the second part is what to tell the client
/// at once.
pub fn begin(
    transactions: &mut Transactions,
    how: How,
    request: &QueuesDownstreamRequest,
) -> (Vec<Settling>, Option<Outgoing>) {
    let origin = Origin::of(request);
    let refuse = |error: RequestError| Some(origin.clone().error(&error));
    let settlement = match how.settlement(request) {
        Ok(settlement) => settlement,
        Err(refused) => return (Vec::new(), refuse(refused)),
    };
    let settling = |taken| Settling {
        origin: origin.clone(),
        verb: how.verb,
        settlement: settlement.clone(),
        taken,
    };
    let id = &request.ref_transaction_id;
    if how.is_close && id.is_empty() {
        let all = transactions.ids();
        // What is taken already is being settled and needs no closing.
        let taken = all
            .iter()
            .filter_map(|id| transactions.take_all(id, how.verb).ok());
        return (taken.map(settling).collect(), None);
    }
    if how.is_range {
        match transactions.take(id, how.verb, &request.sequence_range) {
            Ok((taken, refused)) => (
                taken.map(settling).into_iter().collect(),
                refused.and_then(refuse),
            ),
            Err(refused) => (Vec::new(), refuse(refused)),
        }
    } else {
        match transactions.take_all(id, how.verb) {
            Ok(taken) => (vec![settling(taken)], None),
            Err(refused) => (Vec::new(), refuse(refused)),
        }
    }
}

impl Settling {
    /// Makes the settlement.
    pub async fn run(self, session: Arc<Session>) -> Done {
        let Taken { queue, lease, .. } = &self.taken;
        let (which, how) = (self.taken.selection(), self.settlement.clone());
        let result = session.settle(queue, *lease, which, how).await;
        Done {
            settling: self,
            result,
        }
    }
}

impl Done {
    /// What the client is told of it: only a failure.
    pub fn reply(&self) -> Option<Outgoing> {
        let error = match &self.result {
            // They went back to the queue when they had been held for too long.
            Ok(settled) => RequestError::SequenceUnknown {
                verb: self.settling.verb,
                sequence: i64::try_from(settled.not_held.first()?.0).unwrap_or(i64::MAX),
            },
            Err(BrokerError::StaleLease) => RequestError::TransactionUnknown,
            Err(error) => error.clone().into(),
        };
        Some(self.settling.origin.clone().error(&error))
    }
}

/// Writes down what became of a settlement; the answer is what to tell.
pub fn finish(transactions: &mut Transactions, done: &Done) -> Option<Outgoing> {
    let Taken {
        transaction,
        sequences,
        ..
    } = &done.settling.taken;
    match &done.result {
        Ok(_) => transactions.settled(transaction, &[]),
        Err(BrokerError::StaleLease) => transactions.lost(transaction),
        Err(_) => transactions.settled(transaction, sequences),
    }
    done.reply()
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::{LeaseId, Sequence};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::access::Caller;
    use crate::kubemq::downstream::holders::Desk;

    fn request(kind: Type, id: &str, sequences: &[i64]) -> QueuesDownstreamRequest {
        QueuesDownstreamRequest {
            request_id: "r".to_owned(),
            request_type_data: kind as i32,
            ref_transaction_id: id.to_owned(),
            sequence_range: sequences.to_vec(),
            ..QueuesDownstreamRequest::default()
        }
    }

    fn two_transactions() -> Transactions {
        let mut transactions = Transactions::default();
        let desk = Desk::new(Arc::default(), Caller::default());
        for (lease, id) in [(1, "one"), (2, "two")] {
            transactions.open(
                id.to_owned(),
                Name::queue("q").unwrap(),
                LeaseId(lease),
                [Sequence(lease * 10), Sequence(lease * 10 + 1)],
                desk.list(id, "c".to_owned()),
            );
        }
        transactions
    }

    fn start(
        transactions: &mut Transactions,
        kind: Type,
        id: &str,
        sequences: &[i64],
    ) -> (Vec<Settling>, Option<String>) {
        let how = How::of(kind).unwrap();
        let (settling, reply) = begin(transactions, how, &request(kind, id, sequences));
        (settling, reply.map(|reply| reply.response.error))
    }

    fn done(settling: Settling, result: Result<Settled, BrokerError>) -> Done {
        Done { settling, result }
    }

    fn well(count: u32) -> Result<Settled, BrokerError> {
        Ok(Settled {
            count,
            not_held: Vec::new(),
            remaining: 0,
        })
    }

    #[test]
    fn each_request_type_has_its_settlement() {
        let to_other = Settlement::Move {
            to: Name::queue("other").unwrap(),
        };
        let expected = [
            (Type::AckAll, Some(Settlement::Ack)),
            (Type::AckRange, Some(Settlement::Ack)),
            (Type::NAckAll, Some(Settlement::Return)),
            (Type::NAckRange, Some(Settlement::Return)),
            (Type::ReQueueAll, Some(to_other.clone())),
            (Type::ReQueueRange, Some(to_other)),
            (Type::CloseByClient, Some(Settlement::Release)),
            (Type::Get, None),
            (Type::CloseByServer, None),
        ];
        for (kind, settlement) in expected {
            let request = QueuesDownstreamRequest {
                re_queue_channel: "other".to_owned(),
                ..request(kind, "one", &[])
            };
            let made = How::of(kind).map(|how| how.settlement(&request).unwrap());
            assert_eq!(made, settlement, "{kind:?}");
        }
    }

    #[test]
    fn a_requeue_without_a_proper_target_takes_nothing() {
        let mut transactions = two_transactions();
        for (target, text) in [
            (
                "",
                "cannot requeue messages with empty channel destination ",
            ),
            (
                "a.*",
                "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot",
            ),
        ] {
            for kind in [Type::ReQueueAll, Type::ReQueueRange] {
                let request = QueuesDownstreamRequest {
                    re_queue_channel: target.to_owned(),
                    ..request(kind, "one", &[10])
                };
                let how = How::of(kind).unwrap();
                let (settling, reply) = begin(&mut transactions, how, &request);
                assert!(settling.is_empty());
                assert_eq!(reply.unwrap().response.error, text);
            }
        }
        assert_eq!(transactions.held("one").unwrap().len(), 2);
    }

    #[test]
    fn success_is_silent_and_completes_the_transaction() {
        let mut transactions = two_transactions();
        let (mut settling, reply) = start(&mut transactions, Type::AckAll, "one", &[]);
        assert_eq!(reply, None);
        let over = done(settling.remove(0), well(2));
        assert!(finish(&mut transactions, &over).is_none());
        assert_eq!(transactions.ids(), ["two"]);
    }

    #[test]
    fn a_close_without_a_transaction_closes_all_and_is_silent() {
        let mut transactions = two_transactions();
        let (settling, reply) = start(&mut transactions, Type::CloseByClient, "", &[]);
        assert_eq!(reply, None);
        assert_eq!(settling.len(), 2);
        for one in settling {
            assert!(finish(&mut transactions, &done(one, well(2))).is_none());
        }
        let (settling, reply) = start(&mut transactions, Type::CloseByClient, "", &[]);
        assert!(settling.is_empty() && reply.is_none());
    }

    #[test]
    fn a_failed_settlement_is_told_and_can_be_tried_again() {
        let mut transactions = two_transactions();
        let (mut settling, _) = start(&mut transactions, Type::AckRange, "one", &[11]);
        let failure = BrokerError::Unavailable {
            reason: "no leader".to_owned(),
        };
        let over = done(settling.remove(0), Err(failure));
        let reply = finish(&mut transactions, &over).unwrap().response;
        assert!(reply.is_error);
        assert_eq!(reply.error, "unavailable: no leader");
        assert_eq!(reply.request_type_data, Type::AckRange as i32);
        assert_eq!(reply.transaction_id, "one");
        assert_eq!(
            transactions.held("one").unwrap(),
            [Sequence(10), Sequence(11)]
        );
    }

    #[test]
    fn a_lease_that_ran_out_ends_the_transaction() {
        let mut transactions = two_transactions();
        let (mut settling, _) = start(&mut transactions, Type::NAckAll, "two", &[]);
        let over = done(settling.remove(0), Err(BrokerError::StaleLease));
        let reply = finish(&mut transactions, &over).unwrap().response;
        assert_eq!(
            reply.error,
            "transaction is completed or transaction id not found"
        );
        assert_eq!(transactions.ids(), ["one"]);
    }

    #[test]
    fn a_bad_sequence_is_told_and_those_before_it_are_settled() {
        let mut transactions = two_transactions();
        let (settling, reply) = start(&mut transactions, Type::NAckRange, "one", &[10, 99, 11]);
        assert_eq!(reply.unwrap(), "invalid nack sequence id 99");
        assert_eq!(settling[0].taken.sequences, [Sequence(10)]);
    }

    proptest! {
        /// What was bent on its way is settled as it says, or refused; no message is lost sight of.
        #[test]
        fn any_bytes_are_refused_or_understood(
            kind in 0i32..12,
            sequences in proptest::collection::vec(9i64..13, 0..4),
            bends in proptest::collection::vec((0usize..40, any::<u8>()), 0..4),
        ) {
            let mut transactions = two_transactions();
            let whole = QueuesDownstreamRequest {
                re_queue_channel: "other".to_owned(),
                request_type_data: kind,
                ..request(Type::Get, "one", &sequences)
            };
            let mut bytes = whole.encode_to_vec();
            let length = bytes.len();
            for (place, byte) in bends {
                bytes[place % length] = byte;
            }
            let bent = QueuesDownstreamRequest::decode(bytes.as_slice());
            if let Ok(bent) = bent
                && let Ok(kind) = Type::try_from(bent.request_type_data)
                && let Some(how) = How::of(kind)
            {
                let (settling, _) = begin(&mut transactions, how, &bent);
                let taken: usize = settling.iter().map(|one| one.taken.sequences.len()).sum();
                let held: usize = transactions.ids().iter().map(|id| transactions.held(id).unwrap().len()).sum();
                prop_assert_eq!(taken + held, 4);
                for one in settling {
                    finish(&mut transactions, &done(one, Err(BrokerError::OutcomeUnknown)));
                }
                let held: usize = transactions.ids().iter().map(|id| transactions.held(id).unwrap().len()).sum();
                prop_assert_eq!(held, 4);
            }
        }
    }
}
