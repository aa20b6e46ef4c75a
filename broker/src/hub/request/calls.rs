//! The requests under way on one node: who asked, who may reply, and when time is over. No clock and no
//! channels: what is to be said to whom is left to the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;
use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::api::request::CallId;
use crate::hub::interest::Key;
use crate::hub::request::asker::Inbox;

/// Why somebody who could have replied will not. Of several reasons the last in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) enum Absence {
    /// There is nobody, and nobody took the request.
    Nobody,
    /// Whoever took it is gone.
    Lost,
    /// Whoever is there has no room for it.
    Busy,
}

impl Absence {
    /// What whoever asked is told.
    pub fn error(self, name: &Name) -> BrokerError {
        let name = name.to_string();
        match self {
            Self::Nobody => BrokerError::NoResponder { name },
            Self::Lost => BrokerError::ResponderLost { name },
            Self::Busy => BrokerError::Busy {
                what: format!("those who serve {name} have as many requests as they may"),
            },
        }
    }
}

/// Who has to do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A requester of this node.
    Asker(u64),
    /// A responder of this node that has the request.
    Member(u64),
    /// A node that has it.
    Node(NodeId),
}

/// What is asked: shared by all who get it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub name: Arc<Name>,
    pub message: Arc<Message>,
    pub extra: Bytes,
    pub bytes: u64,
}

/// Who waits for the reply.
#[derive(Clone)]
pub(crate) enum Asker {
    Here {
        inbox: Arc<Inbox>,
        tag: u64,
    },
    /// Another node, which calls it by its own number.
    There {
        node: NodeId,
        call: CallId,
    },
}

/// Somebody who may reply.
pub(crate) struct With {
    pub party: Party,
    /// The groups in whose name it has the request.
    pub groups: Vec<Arc<Key>>,
}

/// A request under way.
pub(crate) struct Call {
    pub asker: Asker,
    pub letter: Letter,
    pub deadline: Instant,
    /// It is over as soon as nobody can reply any more.
    pub fails_early: bool,
    /// How often it was given to somebody else of a group.
    pub rerouted: u32,
    with: Vec<With>,
    absence: Absence,
}

impl Call {
    pub fn new(asker: Asker, letter: Letter, deadline: Instant, fails_early: bool) -> Self {
        Self {
            asker,
            letter,
            deadline,
            fails_early,
            rerouted: 0,
            with: Vec::new(),
            absence: Absence::Nobody,
        }
    }

    /// Who has it.
    pub fn parties(&self) -> impl Iterator<Item = Party> {
        self.with.iter().map(|with| with.party)
    }

    fn asker(&self) -> Option<Party> {
        match &self.asker {
            Asker::Here { inbox, .. } => Some(Party::Asker(inbox.id())),
            Asker::There { .. } => None,
        }
    }
}

/// All calls of a node.
#[derive(Default)]
pub(crate) struct Calls {
    last: u64,
    calls: BTreeMap<CallId, Call>,
    deadlines: BTreeSet<(Instant, CallId)>,
    parties: BTreeSet<(Party, CallId)>,
    bytes: u64,
}

impl Calls {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// What the requests weigh.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id)
    }

    pub fn open(&mut self, call: Call) -> CallId {
        self.last += 1;
        let id = CallId(self.last);
        self.deadlines.insert((call.deadline, id));
        if let Some(asker) = call.asker() {
            self.parties.insert((asker, id));
        }
        self.bytes += call.letter.bytes;
        self.calls.insert(id, call);
        id
    }

    /// Somebody gets the request, in the name of these groups.
    pub fn give(&mut self, id: CallId, party: Party, groups: Vec<Arc<Key>>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match call.with.iter_mut().find(|with| with.party == party) {
            Some(with) => with.groups.extend(groups),
            None => {
                call.with.push(With { party, groups });
                self.parties.insert((party, id));
            }
        }
    }

    /// The call that somebody replies to, which is over with this; `None` if it has nothing to say.
    pub fn reply(&mut self, id: CallId, from: Party) -> Option<Call> {
        let call = self.calls.get(&id)?;
        call.parties().find(|party| *party == from)?;
        self.end(id)
    }

    /// Somebody will not reply. Returns in whose name it had the request, if it had it.
    pub fn withdraw(&mut self, id: CallId, party: Party, absence: Absence) -> Option<With> {
        let call = self.calls.get_mut(&id)?;
        let place = call.with.iter().position(|with| with.party == party)?;
        let with = call.with.swap_remove(place);
        call.absence = call.absence.max(absence);
        self.parties.remove(&(party, id));
        Some(with)
    }

    /// Somebody will not get the request.
    pub fn note(&mut self, id: CallId, absence: Absence) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.absence = call.absence.max(absence);
        }
    }

    /// Ends a call that nobody can reply to any more, unless it is to wait in any case.
    pub fn end_if_vain(&mut self, id: CallId) -> Option<(Call, Absence)> {
        let call = self.calls.get(&id)?;
        let absence = call.absence;
        // Whoever waits for somebody to come still learns that those who are there are overloaded.
        let is_over = call.fails_early || absence == Absence::Busy;
        if !call.with.is_empty() || !is_over {
            return None;
        }
        Some((self.end(id)?, absence))
    }

    /// Ends a call without more ado.
    pub fn end(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.deadlines.remove(&(call.deadline, id));
        for party in call.parties().chain(call.asker()) {
            self.parties.remove(&(party, id));
        }
        self.bytes -= call.letter.bytes;
        Some(call)
    }

    /// A call was given to somebody else.
    pub fn count_reroute(&mut self, id: CallId) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.rerouted += 1;
        }
    }

    /// The calls of somebody.
    pub fn of(&self, party: Party) -> Vec<CallId> {
        let first = Bound::Included((party, CallId(0)));
        let last = Bound::Included((party, CallId(u64::MAX)));
        let found = self.parties.range((first, last));
        found.map(|(_, id)| *id).collect()
    }

    /// A call whose time is over, which it is with this.
    pub fn next_due(&mut self, now: Instant) -> Option<Call> {
        let (deadline, id) = self.deadlines.first().copied()?;
        if deadline > now {
            return None;
        }
        self.end(id)
    }

    /// When the time of the next call is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: Party = Party::Member(1);
    const TWO: Party = Party::Member(2);

    fn call(deadline: Instant, fails_early: bool) -> Call {
        let letter = Letter {
            name: Arc::new(Name::request("a").expect("a name")),
            message: Arc::default(),
            extra: Bytes::new(),
            bytes: 10,
        };
        let asker = Asker::There {
            node: NodeId(9),
            call: CallId(1),
        };
        Call::new(asker, letter, deadline, fails_early)
    }

    fn assert_empty(calls: &Calls) {
        assert_eq!((calls.len(), calls.bytes()), (0, 0));
        assert!(calls.parties.is_empty() && calls.deadlines.is_empty());
    }

    #[test]
    fn only_who_has_a_request_may_reply_and_only_once() {
        let mut calls = Calls::default();
        let id = calls.open(call(Instant::now(), true));
        calls.give(id, ONE, Vec::new());
        assert!(calls.reply(id, TWO).is_none(), "it was not given to it");
        assert!(calls.reply(id, ONE).is_some());
        assert!(calls.reply(id, ONE).is_none(), "it is over");
        assert_empty(&calls);
    }

    #[test]
    fn a_call_ends_when_the_last_who_has_it_is_gone() {
        let mut calls = Calls::default();
        let id = calls.open(call(Instant::now(), true));
        for party in [ONE, TWO] {
            calls.give(id, party, Vec::new());
        }
        assert!(calls.withdraw(id, ONE, Absence::Lost).is_some());
        assert!(calls.end_if_vain(id).is_none(), "another one has it");
        assert!(calls.withdraw(id, ONE, Absence::Lost).is_none());
        assert!(calls.withdraw(id, TWO, Absence::Nobody).is_some());
        let (_, absence) = calls.end_if_vain(id).expect("nobody is left");
        assert_eq!(absence, Absence::Lost);
        assert_empty(&calls);
    }

    #[test]
    fn a_call_that_waits_ends_early_only_if_all_are_busy() {
        let mut calls = Calls::default();
        let id = calls.open(call(Instant::now(), false));
        assert!(calls.end_if_vain(id).is_none());
        calls.give(id, ONE, Vec::new());
        calls.withdraw(id, ONE, Absence::Busy);
        assert!(calls.end_if_vain(id).is_some());
        assert_empty(&calls);
    }

    #[test]
    fn calls_are_due_in_the_order_of_their_deadlines() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let after = |ms: u64| now + Duration::from_millis(ms);
        for ms in [30, 10, 20] {
            let id = calls.open(call(after(ms), false));
            calls.give(id, ONE, Vec::new());
        }
        assert_eq!(calls.of(ONE).len(), 3);
        assert_eq!(calls.next_deadline(), Some(after(10)));
        assert!(calls.next_due(after(9)).is_none());
        for ms in [10, 20, 30] {
            let due = calls.next_due(after(30)).expect("due");
            assert_eq!(due.deadline, after(ms));
        }
        assert!(calls.next_due(after(99)).is_none());
        assert_empty(&calls);
    }
}
