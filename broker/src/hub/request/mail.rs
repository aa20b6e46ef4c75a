//! What one pass over the calls has to say: gathered, so that each receiver is rung for once.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_model::ids::NodeId;

use crate::api::error::BrokerError;
use crate::api::request::{Answer, CallId, Reply};
use crate::hub::request::absence::Absence;
use crate::hub::request::asker::Inbox;
use crate::hub::request::call::{Asker, Call, Party};
use crate::hub::request::parcel::{Parcel, ReplyParcel};
use crate::hub::request::responder::Given;

/// Requests for responders, parcels for nodes, answers for requesters.
#[derive(Default)]
pub(super) struct Mail {
    pub members: BTreeMap<u64, Vec<Given>>,
    pub nodes: BTreeMap<NodeId, Vec<Parcel>>,
    pub answers: BTreeMap<u64, (Arc<Inbox>, Vec<Answer>)>,
}

impl Mail {
    pub fn answer(&mut self, inbox: &Arc<Inbox>, tag: u64, outcome: Result<Reply, BrokerError>) {
        let (_, answers) = self
            .answers
            .entry(inbox.id())
            .or_insert_with(|| (Arc::clone(inbox), Vec::new()));
        answers.push(Answer { tag, outcome });
    }

    /// Tells the nodes that have a request, but for who replied, that nobody waits for it any more.
    pub fn call_off(&mut self, id: CallId, call: &Call, replied: Option<Party>) {
        for party in call.parties().filter(|party| Some(*party) != replied) {
            if let Party::Node(node) = party {
                self.nodes.entry(node).or_default().push(Parcel::Over(id));
            }
        }
    }

    /// Tells whoever asked what came of it.
    pub fn tell(&mut self, call: Call, outcome: Result<Reply, Absence>) {
        match call.asker {
            Asker::Here { inbox, tag } => {
                let name = &call.letter.name;
                let outcome = outcome.map_err(|absence| absence.error(name));
                self.answer(&inbox, tag, outcome);
            }
            Asker::There { node, call } => self.send_back(node, call, outcome),
        }
    }

    /// Tells another node what came of a request of its.
    pub fn send_back(&mut self, node: NodeId, call: CallId, outcome: Result<Reply, Absence>) {
        let parcel = ReplyParcel {
            call,
            seal: None,
            outcome,
        };
        let parcels = self.nodes.entry(node).or_default();
        parcels.push(Parcel::Reply(parcel));
    }
}
