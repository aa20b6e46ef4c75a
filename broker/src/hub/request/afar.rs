//! The other nodes' side of the hub: requests for responders here, replies to what was asked here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_cluster::PeerIdentity;
use flotilla_model::ids::NodeId;

use crate::api::request::CallId;
use crate::core::Core;
use crate::hub::interest::Key;
use crate::hub::request::absence::Absence;
use crate::hub::request::call::{Asker, Call, Party};
use crate::hub::request::check;
use crate::hub::request::hub::RequestHub;
use crate::hub::request::letter::Contents;
use crate::hub::request::mail::Mail;
use crate::hub::request::parcel::{Parcel, ReplyParcel};
use crate::hub::request::serve::close;
use crate::hub::table::Told;

/// A request from another node.
pub(crate) struct Arrival {
    /// The other node's number of it.
    pub call: CallId,
    pub contents: Contents,
    pub to_all: bool,
    pub groups: Vec<Key>,
    pub timeout_left: Duration,
}

impl RequestHub {
    /// Another node sent requests for responders of this one.
    pub fn arrived(&self, core: &Core, node: NodeId, batch: Vec<Arrival>) {
        let now = Instant::now();
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        for arrival in batch {
            let name = Arc::clone(&arrival.contents.name);
            let Ok(letter) = state.admit(arrival.contents, None, now) else {
                mail.send_back(node, arrival.call, Err(Absence::Busy));
                continue;
            };
            let asker = Asker::There {
                node,
                call: arrival.call,
            };
            let call = Call::new(asker, letter, now + arrival.timeout_left, true);
            let id = state.calls.open(call);
            let found = state
                .table
                .find_here(&name, arrival.to_all, &arrival.groups);
            state.give_here(id, found, &mut mail);
        }
        self.post(core, state, mail);
    }

    /// Another node tells what became of requests, or that somebody there has replied by token.
    pub fn answered(&self, core: &Core, node: NodeId, batch: Vec<ReplyParcel>) {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        for ReplyParcel {
            call: id,
            seal,
            outcome,
        } in batch
        {
            // Of a late one nobody is told: it is counted.
            let _ = match (outcome, seal) {
                (Ok(reply), None) => {
                    let from = Party::Node(node);
                    let over = state.calls.reply(id, from).map(|call| (call, Some(from)));
                    close(core, &state, id, over, reply, &mut mail)
                }
                (Ok(reply), Some(seal)) => {
                    self.reply_sealed(core, &mut state, id, &seal, reply, &mut mail)
                }
                // It may still come by token. Who would rather wait goes on waiting for it.
                (Err(Absence::Lost), _)
                    if state.calls.get(id).is_some_and(|call| !call.fails_early) =>
                {
                    Ok(())
                }
                (Err(absence), _) => {
                    state.withdraw(id, Party::Node(node), absence, &mut mail);
                    if absence == Absence::Lost {
                        let parcels = mail.nodes.entry(node).or_default();
                        parcels.push(Parcel::Over(id));
                    }
                    Ok(())
                }
            };
        }
        self.post(core, state, mail);
    }

    /// Nobody waits any more for requests of another node, by its numbers of them.
    pub fn called_off(&self, core: &Core, node: NodeId, batch: &[CallId]) {
        let mut state = self.state.lock();
        for call in batch {
            if let Some(id) = state.calls.asked_by(node, *call) {
                state.forget(id);
            }
        }
        self.post(core, state, Mail::default());
    }

    /// Another node begins a conversation: what it asked before it was started anew is forgotten, there
    /// and here.
    pub fn met(&self, core: &Core, from: PeerIdentity) {
        let PeerIdentity { node, incarnation } = from;
        let mut state = self.state.lock();
        let life = state.lives.entry(node).or_insert(incarnation);
        if *life >= incarnation {
            return;
        }
        *life = incarnation;
        for id in state.calls.all_asked_by(node) {
            state.forget(id);
        }
        self.post(core, state, Mail::default());
    }

    /// Another node told who serves there.
    pub fn told(&self, core: &Core, mut told: Told) {
        told.entries
            .retain(|(key, _)| check::kind(key.kind).is_ok());
        let keys_max = core.config.request_responders_max;
        self.state.lock().table.told(told, keys_max);
    }

    /// Another node's conversation ended.
    pub fn gone(&self, core: &Core, node: NodeId, conversation: u64) {
        if self.state.lock().table.gone(node, conversation) {
            self.unreachable(core, node);
        }
    }

    /// What was sent to a node may be lost, or its replies. Who would rather wait goes on waiting.
    pub fn unreachable(&self, core: &Core, node: NodeId) {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        let party = Party::Node(node);
        for id in state.calls.of(party) {
            if state.calls.get(id).is_some_and(|call| call.fails_early) {
                state.withdraw(id, party, Absence::Lost, &mut mail);
            }
        }
        self.post(core, state, mail);
    }
}
