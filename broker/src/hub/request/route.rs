//! From a call to those who may reply, and on to others when they cannot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;

use crate::api::error::BrokerError;
use crate::api::request::CallId;
use crate::config::BrokerConfig;
use crate::hub::interest::Key;
use crate::hub::links::HubLinks;
use crate::hub::listener::Away;
use crate::hub::names::SeenNames;
use crate::hub::request::absence::Absence;
use crate::hub::request::asker::Inbox;
use crate::hub::request::call::{Asker, Call, Party};
use crate::hub::request::calls::Calls;
use crate::hub::request::letter::{Contents, Letter};
use crate::hub::request::mail::Mail;
use crate::hub::request::parcel::{Parcel, ReplyParcel, RequestParcel};
use crate::hub::request::responder::{Given, Responder};
use crate::hub::request::room::Room;
use crate::hub::table::{Chosen, Match, Table};
use crate::metrics::Metrics;

/// How often a request is given to another member of a group whose member did not take it.
const REROUTES_MAX: u32 = 8;
/// How many have to do with one call, on average, when there are as many calls as may be.
const PARTIES_PER_CALL: usize = 4;
/// Between looks for requests that nobody waits for any more, while there is no room.
const PURGE_PAUSE: Duration = Duration::from_millis(100);

/// What the hub's lock protects.
pub(super) struct State {
    pub table: Table<Responder>,
    pub calls: Calls,
    pub names: SeenNames,
    pub inboxes: HashMap<u64, Arc<Inbox>>,
    /// The start counter of each node that was heard of.
    pub lives: BTreeMap<NodeId, u64>,
    /// When the timer looks again.
    pub armed: Option<Instant>,
    pub is_closing: bool,
    /// Of the requests that somebody here still has.
    room: Arc<Room>,
    calls_max: usize,
    purged: Option<Instant>,
}

impl State {
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            table: Table::default(),
            calls: Calls::new(),
            names: SeenNames::new(config.signal_names_max, config.signal_name_idle),
            inboxes: HashMap::new(),
            lives: BTreeMap::new(),
            armed: None,
            is_closing: false,
            room: Arc::new(Room::new(config.request_bytes_max)),
            calls_max: config.request_calls_max,
            purged: None,
        }
    }

    /// Takes room for a request; refuses what is too much for this node, or for its client.
    pub fn admit(
        &mut self,
        contents: Contents,
        client: Option<&Arc<Room>>,
        now: Instant,
    ) -> Result<Letter, BrokerError> {
        if self.is_closing {
            return Err(BrokerError::ShuttingDown);
        }
        if self.calls.len() >= self.calls_max {
            return Err(BrokerError::Busy {
                what: format!("{} requests are under way already", self.calls_max),
            });
        }
        Letter::new(contents, &self.room, client)
            .or_else(|contents| {
                self.purge(now);
                Letter::new(contents, &self.room, client)
            })
            .map_err(|_| BrokerError::Busy {
                what: format!(
                    "as many bytes of requests are under way as may be: {} on this node, {} of one client",
                    self.room.bytes_max(),
                    client.map_or(self.room.bytes_max(), |client| client.bytes_max()),
                ),
            })
    }

    /// Lets go of the requests that responders did not take in time.
    fn purge(&mut self, now: Instant) {
        if self.purged.is_some_and(|purged| now < purged + PURGE_PAUSE) {
            return;
        }
        self.purged = Some(now);
        for place in self.table.places() {
            place.listener.buffer.retain(|given| given.deadline > now);
        }
    }

    /// Gives a request to all who were found for it.
    pub fn give(&mut self, id: CallId, found: Match, mail: &mut Mail) {
        for member in found.listeners {
            self.give_member(id, member, mail);
        }
        for (node, (to_all, groups)) in found.nodes {
            self.give_node(id, node, Away { to_all, groups }, mail);
        }
        self.end_if_vain(id, mail);
    }

    /// Gives a request to responders of this node.
    pub fn give_here(&mut self, id: CallId, members: Vec<u64>, mail: &mut Mail) {
        for member in members {
            self.give_member(id, member, mail);
        }
        self.end_if_vain(id, mail);
    }

    fn give_member(&mut self, id: CallId, member: u64, mail: &mut Mail) {
        let (Some(call), Some(place)) = (self.calls.get(id), self.table.place(member)) else {
            return;
        };
        let party = Party::Member(member);
        let group = place.key.group.is_some().then(|| Arc::clone(&place.key));
        let is_too_much = self.calls.parties() >= self.calls_max.saturating_mul(PARTIES_PER_CALL);
        if is_too_much || !place.listener.try_begin() {
            self.calls.note(id, Absence::Busy);
            if let Some(group) = group {
                self.calls.pass_over(id, party);
                self.reroute(id, group, mail);
            }
            return;
        }
        let given = Given {
            call: id,
            letter: call.letter.clone(),
            deadline: call.deadline,
        };
        self.calls.give(id, party, group.into_iter().collect());
        mail.members.entry(member).or_default().push(given);
    }

    fn give_node(&mut self, id: CallId, node: NodeId, away: Away, mail: &mut Mail) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let parcel = RequestParcel {
            call: id,
            letter: call.letter.clone(),
            away: away.clone(),
            deadline: call.deadline,
        };
        self.calls.give(id, Party::Node(node), away.groups);
        let parcels = mail.nodes.entry(node).or_default();
        parcels.push(Parcel::Request(parcel));
    }

    /// Somebody will not reply: another member of its group gets what it had not taken, and if nobody is
    /// left the call may be over.
    pub fn withdraw(&mut self, id: CallId, party: Party, absence: Absence, mail: &mut Mail) {
        let Some(with) = self.calls.withdraw(id, party, absence) else {
            return;
        };
        self.release(party);
        if absence != Absence::Lost {
            for group in with.groups {
                self.reroute(id, group, mail);
            }
        }
        self.end_if_vain(id, mail);
    }

    fn reroute(&mut self, id: CallId, group: Arc<Key>, mail: &mut Mail) {
        let Some(call) = self
            .calls
            .get(id)
            .filter(|call| call.rerouted < REROUTES_MAX)
        else {
            return;
        };
        let calls = &self.calls;
        let is_tried = |chosen: Chosen| match chosen {
            Chosen::Here(member) => calls.is_known_to(id, Party::Member(member)),
            Chosen::There(node) => calls.is_known_to(id, Party::Node(node)),
        };
        let chosen = match call.asker {
            Asker::Here { .. } => self.table.choose_other(&group, is_tried),
            // The node that asked knows the members elsewhere.
            Asker::There { .. } => self.table.choose_other_here(&group, is_tried),
        };
        if chosen.is_some() {
            self.calls.count_reroute(id);
        }
        match chosen {
            Some(Chosen::Here(member)) => self.give_member(id, member, mail),
            Some(Chosen::There(node)) => {
                let away = Away {
                    to_all: false,
                    groups: vec![group],
                };
                self.give_node(id, node, away, mail);
            }
            None => {}
        }
    }

    fn end_if_vain(&mut self, id: CallId, mail: &mut Mail) {
        let Some(absence) = self.calls.vain(id) else {
            return;
        };
        let there = self.calls.get(id).and_then(Call::asker_there);
        match there {
            // Who took it may still reply by its token. The node that asked knows whether anybody waits for
            // that; if not, it says so.
            Some((node, call)) if absence == Absence::Lost => {
                mail.send_back(node, call, Err(absence));
            }
            _ => {
                if let Some(call) = self.calls.end(id) {
                    mail.tell(call, Err(absence));
                }
            }
        }
    }

    /// Nobody waits for the reply any more.
    pub fn forget(&mut self, id: CallId) {
        if let Some(call) = self.calls.end(id) {
            self.release_all(&call);
        }
    }

    /// A call is over: whoever had it has room for another.
    pub fn release_all(&self, call: &Call) {
        for party in call.parties() {
            self.release(party);
        }
    }

    fn release(&self, party: Party) {
        if let Party::Member(member) = party
            && let Some(place) = self.table.place(member)
        {
            place.listener.end_one();
        }
    }

    /// Hands everything over. What is not taken goes elsewhere, or becomes an answer.
    pub fn post(&mut self, links: &HubLinks<Parcel>, metrics: &Metrics, mut mail: Mail) {
        // Every round withdraws what the one before could not hand over; withdrawn for good, or
        // rerouted so many times at most.
        while !mail.members.is_empty() || !mail.nodes.is_empty() {
            for (member, given) in std::mem::take(&mut mail.members) {
                let Some(place) = self.table.place(member) else {
                    continue;
                };
                for refused in place.listener.buffer.push(given).dropped {
                    let party = Party::Member(member);
                    self.withdraw(refused.call, party, Absence::Busy, &mut mail);
                }
            }
            for (node, parcels) in std::mem::take(&mut mail.nodes) {
                let (refused, absence) = match links.outlet(node) {
                    Some(outlet) => (outlet.push(parcels).dropped, Absence::Busy),
                    None => (parcels, Absence::Nobody),
                };
                for parcel in refused {
                    match parcel {
                        Parcel::Request(request) => {
                            self.withdraw(request.call, Party::Node(node), absence, &mut mail);
                        }
                        Parcel::Reply(reply) => lose(node, reply, metrics, &mut mail),
                        // That node ends it when its time is over.
                        Parcel::Over(_) => {}
                    }
                }
            }
        }
        for (inbox, answers) in mail.answers.into_values() {
            let answers = inbox.admit(answers);
            metrics.requests_answered(answers.iter().map(|waiting| &waiting.answer));
            inbox.push(answers);
        }
    }
}

/// A reply was too much for the way to another node, where at least that is told; once.
fn lose(node: NodeId, reply: ReplyParcel, metrics: &Metrics, mail: &mut Mail) {
    if reply.outcome.is_err() {
        return;
    }
    metrics.reply_dropped();
    // Of a reply by token that node knows nothing: there is nothing to end.
    if reply.seal.is_none() {
        let lost = ReplyParcel {
            outcome: Err(Absence::Lost),
            ..reply
        };
        mail.nodes
            .entry(node)
            .or_default()
            .push(Parcel::Reply(lost));
    }
}
