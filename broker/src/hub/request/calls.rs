//! The requests under way on one node, and how they end. No clock and no channels: what is to be said to
//! whom is left to the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::NodeId;

use crate::api::request::CallId;
use crate::hub::interest::Key;
use crate::hub::request::absence::Absence;
use crate::hub::request::call::{Call, Party, With};

/// All calls of a node.
pub(crate) struct Calls {
    last: u64,
    calls: BTreeMap<CallId, Call>,
    deadlines: BTreeSet<(Instant, CallId)>,
    parties: BTreeSet<(Party, CallId)>,
    /// The calls of other nodes, by their numbers there.
    elsewhere: BTreeMap<(NodeId, CallId), CallId>,
}

impl Calls {
    /// Without any yet.
    ///
    /// The numbers begin anywhere: a node that has started again must not give out those of its life
    /// before, since other nodes may still reply to them. Half of them are left to be counted up.
    pub fn new() -> Self {
        Self {
            last: rand::random::<u64>() >> 1,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            parties: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// How often somebody has to do with one of them.
    pub fn parties(&self) -> usize {
        self.parties.len()
    }

    pub fn get(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id)
    }

    pub fn open(&mut self, call: Call) -> CallId {
        self.last += 1;
        let id = CallId(self.last);
        self.deadlines.insert((call.deadline, id));
        if let Some(asker) = call.asker_here() {
            self.parties.insert((asker, id));
        }
        if let Some(asker) = call.asker_there() {
            self.elsewhere.insert(asker, id);
        }
        self.calls.insert(id, call);
        id
    }

    /// Somebody gets the request, in the name of these groups.
    pub fn give(&mut self, id: CallId, party: Party, groups: Vec<Arc<Key>>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        // One call may have very many: they are looked through only for whoever is among them already.
        if self.parties.insert((party, id)) {
            call.with.push(With { party, groups });
        } else if let Some(with) = call.with.iter_mut().find(|with| with.party == party) {
            with.groups.extend(groups);
        }
    }

    /// Whether a request was given to somebody, or not taken by it, so that it need not be given again.
    pub fn is_known_to(&self, id: CallId, party: Party) -> bool {
        let has_passed = |call: &Call| call.passed.contains(&party);
        self.parties.contains(&(party, id)) || self.calls.get(&id).is_some_and(has_passed)
    }

    /// The call that somebody replies to, which is over with this; `None` if it has nothing to say.
    pub fn reply(&mut self, id: CallId, from: Party) -> Option<Call> {
        if !self.parties.contains(&(from, id)) {
            return None;
        }
        self.end(id)
    }

    /// Somebody will not reply. Returns in whose name it had the request, if it had it.
    pub fn withdraw(&mut self, id: CallId, party: Party, absence: Absence) -> Option<With> {
        let call = self.calls.get_mut(&id)?;
        let place = call.with.iter().position(|with| with.party == party)?;
        let with = call.with.swap_remove(place);
        call.absence = call.absence.and(absence);
        if !with.groups.is_empty() {
            call.passed.push(party);
        }
        self.parties.remove(&(party, id));
        Some(with)
    }

    /// Somebody will not get the request.
    pub fn note(&mut self, id: CallId, absence: Absence) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.absence = call.absence.and(absence);
        }
    }

    /// A member of a group will not get the request, and is not to be asked again.
    pub fn pass_over(&mut self, id: CallId, party: Party) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.passed.push(party);
        }
    }

    /// Why a call goes on in vain: nobody has it any more, and whoever asked does not want to wait.
    pub fn vain(&self, id: CallId) -> Option<Absence> {
        let call = self.calls.get(&id)?;
        // Whoever waits for somebody to come still learns that those who are there are overloaded.
        let is_over = call.fails_early || call.absence == Absence::Busy;
        (call.with.is_empty() && is_over).then_some(call.absence)
    }

    /// Ends a call without more ado.
    pub fn end(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.deadlines.remove(&(call.deadline, id));
        for party in call.parties().chain(call.asker_here()) {
            self.parties.remove(&(party, id));
        }
        if let Some(asker) = call.asker_there()
            && self.elsewhere.get(&asker) == Some(&id)
        {
            self.elsewhere.remove(&asker);
        }
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

    /// The call that another node has this number for.
    pub fn asked_by(&self, node: NodeId, call: CallId) -> Option<CallId> {
        self.elsewhere.get(&(node, call)).copied()
    }

    /// The calls that another node asked.
    pub fn all_asked_by(&self, node: NodeId) -> Vec<CallId> {
        let first = Bound::Included((node, CallId(0)));
        let last = Bound::Included((node, CallId(u64::MAX)));
        let found = self.elsewhere.range((first, last));
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

    use bytes::Bytes;
    use flotilla_model::name::Name;

    use super::*;
    use crate::hub::request::call::Asker;
    use crate::hub::request::letter::{Contents, Letter};
    use crate::hub::request::room::Room;

    const ONE: Party = Party::Member(1);
    const TWO: Party = Party::Member(2);

    fn call(deadline: Instant, fails_early: bool) -> Call {
        let name = Arc::new(Name::request("a").expect("a name"));
        let contents = Contents::new(name, Arc::default(), Bytes::new(), 9);
        let room = Arc::new(Room::new(1_000));
        let letter = Letter::new(contents, &room, None).expect("there is room");
        let asker = Asker::There {
            node: NodeId(9),
            call: CallId(1),
        };
        Call::new(asker, letter, deadline, fails_early)
    }

    fn assert_empty(calls: &Calls) {
        assert_eq!((calls.len(), calls.parties()), (0, 0));
        assert!(calls.elsewhere.is_empty() && calls.deadlines.is_empty());
    }

    #[test]
    fn only_who_has_a_request_may_reply_and_only_once() {
        let mut calls = Calls::new();
        let id = calls.open(call(Instant::now(), true));
        calls.give(id, ONE, Vec::new());
        assert!(calls.reply(id, TWO).is_none(), "it was not given to it");
        assert!(calls.reply(id, ONE).is_some());
        assert!(calls.reply(id, ONE).is_none(), "it is over");
        assert_empty(&calls);
    }

    #[test]
    fn a_call_is_vain_when_the_last_who_has_it_is_gone() {
        let mut calls = Calls::new();
        let id = calls.open(call(Instant::now(), true));
        for party in [ONE, TWO] {
            calls.give(id, party, Vec::new());
        }
        assert!(calls.withdraw(id, ONE, Absence::Lost).is_some());
        assert_eq!(calls.vain(id), None, "another one has it");
        assert!(calls.withdraw(id, ONE, Absence::Lost).is_none());
        assert!(calls.withdraw(id, TWO, Absence::Nobody).is_some());
        assert_eq!(calls.vain(id), Some(Absence::Lost));
        calls.end(id);
        assert_empty(&calls);
    }

    #[test]
    fn a_node_that_starts_again_does_not_give_out_the_numbers_of_its_life_before() {
        let mut lives = [Calls::new(), Calls::new()];
        let numbers = lives
            .each_mut()
            .map(|calls| calls.open(call(Instant::now(), true)));
        assert!(
            numbers[0].0.abs_diff(numbers[1].0) > 1_000_000_000,
            "{numbers:?}"
        );
    }

    #[test]
    fn whoever_did_not_take_a_request_for_its_group_is_known() {
        let mut calls = Calls::new();
        let id = calls.open(call(Instant::now(), true));
        let group = Arc::new(Key {
            kind: flotilla_model::name::Kind::Request,
            namespace: "default".to_owned(),
            pattern: "a".to_owned(),
            group: Some("g".to_owned()),
        });
        calls.give(id, ONE, vec![group]);
        assert!(calls.is_known_to(id, ONE) && !calls.is_known_to(id, TWO));
        calls.withdraw(id, ONE, Absence::Busy);
        calls.pass_over(id, TWO);
        assert!(calls.is_known_to(id, ONE) && calls.is_known_to(id, TWO));
        assert!(calls.reply(id, ONE).is_none(), "it has it no more");
    }

    #[test]
    fn a_call_is_found_by_the_number_of_the_node_that_asked_as_long_as_it_goes_on() {
        let mut calls = Calls::new();
        let id = calls.open(call(Instant::now(), true));
        assert_eq!(calls.asked_by(NodeId(9), CallId(1)), Some(id));
        assert_eq!(calls.all_asked_by(NodeId(9)), [id]);
        assert!(calls.all_asked_by(NodeId(8)).is_empty());
        calls.end(id);
        assert_eq!(calls.asked_by(NodeId(9), CallId(1)), None);
        assert_empty(&calls);
    }

    #[test]
    fn a_call_that_waits_is_vain_only_if_all_are_busy() {
        let mut calls = Calls::new();
        let id = calls.open(call(Instant::now(), false));
        assert_eq!(calls.vain(id), None);
        calls.give(id, ONE, Vec::new());
        calls.withdraw(id, ONE, Absence::Busy);
        assert_eq!(calls.vain(id), Some(Absence::Busy));
        calls.end(id);
        assert_empty(&calls);
    }

    #[test]
    fn calls_are_due_in_the_order_of_their_deadlines() {
        let mut calls = Calls::new();
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
