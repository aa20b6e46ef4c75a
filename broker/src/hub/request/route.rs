//! From a call to those who may reply, and on to others when they cannot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::NodeId;

use crate::api::error::BrokerError;
use crate::api::request::CallId;
use crate::config::BrokerConfig;
use crate::hub::interest::Key;
use crate::hub::links::HubLinks;
use crate::hub::listener::Away;
use crate::hub::names::SeenNames;
use crate::hub::request::asker::Inbox;
use crate::hub::request::calls::{Absence, Asker, Call, Calls, Party};
use crate::hub::request::mail::Mail;
use crate::hub::request::parcel::{Parcel, RequestParcel};
use crate::hub::request::responder::{Given, Responder};
use crate::hub::table::{Chosen, Match, Table};
use crate::metrics::Metrics;

/// How often a request is given to another member of a group whose member was just gone.
const REROUTES_MAX: u32 = 8;

/// What the hub's lock protects.
pub(super) struct State {
    pub table: Table<Responder>,
    pub calls: Calls,
    pub names: SeenNames,
    pub inboxes: HashMap<u64, Arc<Inbox>>,
    /// When the timer looks again.
    pub armed: Option<Instant>,
    pub is_closing: bool,
}

impl State {
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            table: Table::default(),
            calls: Calls::default(),
            names: SeenNames::new(config.signal_names_max, config.signal_name_idle),
            inboxes: HashMap::new(),
            armed: None,
            is_closing: false,
        }
    }

    /// Refuses a request that is too much for this node.
    pub fn check_room(&self, config: &BrokerConfig, bytes: u64) -> Result<(), BrokerError> {
        if self.is_closing {
            return Err(BrokerError::ShuttingDown);
        }
        let calls_max = config.request_calls_max;
        if self.calls.len() >= calls_max {
            return Err(BrokerError::Busy {
                what: format!("{calls_max} requests are under way already"),
            });
        }
        let bytes_max = config.request_bytes_max;
        // What is larger than the whole room is taken alone.
        if self.calls.len() > 0 && self.calls.bytes() + bytes > bytes_max {
            return Err(BrokerError::Busy {
                what: format!("requests of {bytes_max} bytes are under way already"),
            });
        }
        Ok(())
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
        let given = Given {
            call: id,
            letter: call.letter.clone(),
            deadline: call.deadline,
        };
        if !place.listener.try_begin() {
            self.calls.note(id, Absence::Busy);
            return;
        }
        let group = place.key.group.is_some().then(|| Arc::clone(&place.key));
        let groups = group.into_iter().collect();
        self.calls.give(id, Party::Member(member), groups);
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
        if absence == Absence::Nobody {
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
        let chosen = match call.asker {
            Asker::Here { .. } => self.table.choose(&group),
            // The node that asked knows the members elsewhere.
            Asker::There { .. } => self.table.choose_here(&group).map(Chosen::Here),
        };
        let has_it = |party: Party| call.parties().any(|one| one == party);
        match chosen {
            Some(Chosen::Here(member)) if !has_it(Party::Member(member)) => {
                self.calls.count_reroute(id);
                self.give_member(id, member, mail);
            }
            Some(Chosen::There(node)) if !has_it(Party::Node(node)) => {
                self.calls.count_reroute(id);
                let away = Away {
                    to_all: false,
                    groups: vec![group],
                };
                self.give_node(id, node, away, mail);
            }
            _ => {}
        }
    }

    fn end_if_vain(&mut self, id: CallId, mail: &mut Mail) {
        if let Some((call, absence)) = self.calls.end_if_vain(id) {
            mail.tell(call, Err(absence));
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
                        Parcel::Reply(_) => metrics.reply_dropped(),
                    }
                }
            }
        }
        for (inbox, answers) in mail.answers.into_values() {
            metrics.requests_answered(&answers);
            inbox.push(answers);
        }
    }
}
