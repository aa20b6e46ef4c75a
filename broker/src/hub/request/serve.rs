//! The responders' side of the hub: who serves, who leaves, and what they reply.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::api::request::{CallId, Reply, ReplyToken, SubscribeRequests};
use crate::core::Core;
use crate::hub::interest::Key;
use crate::hub::request::absence::Absence;
use crate::hub::request::call::{Call, Party};
use crate::hub::request::check;
use crate::hub::request::hub::{CLIENTS_PER_ROOM, RequestHub};
use crate::hub::request::mail::Mail;
use crate::hub::request::parcel::{Parcel, ReplyParcel};
use crate::hub::request::responder::Responder;
use crate::hub::request::route::State;

impl RequestHub {
    /// Adds a responder; it is live on this node at once, and everywhere once all peers know the version
    /// of interest that comes with it.
    pub fn serve(
        &self,
        core: &Core,
        request: SubscribeRequests,
    ) -> Result<(Arc<Responder>, u64), BrokerError> {
        check::kind(request.kind)?;
        let SubscribeRequests {
            kind,
            namespace,
            pattern,
            group,
            calls_max,
        } = request;
        let (key, pattern) = Key::checked(kind, namespace, pattern, group)?;
        let config = &core.config;
        let mut state = self.state.lock();
        if state.is_closing {
            return Err(BrokerError::ShuttingDown);
        }
        let responders_max = config.request_responders_max;
        if state.table.listeners() >= responders_max {
            return Err(BrokerError::Busy {
                what: format!("{responders_max} serve requests already"),
            });
        }
        let calls_max = usize::try_from(calls_max).unwrap_or(usize::MAX);
        let responder = Arc::new(Responder::new(
            state.table.next_id(),
            calls_max.clamp(1, config.request_calls_per_client_max),
            config.request_bytes_max / CLIENTS_PER_ROOM,
        ));
        let joined = Arc::clone(&responder);
        state.table.join(joined, key.clone(), pattern);
        if let Some(name) = key.exact_name() {
            state.names.note(&name, 0, 0, Instant::now());
        }
        let version = self.links.change(|interest| interest.join(key));
        core.metrics.set_responders(state.table.listeners());
        Ok((responder, version))
    }

    /// A responder is gone: what it had not taken goes to others.
    pub fn leave(&self, core: &Core, responder: u64) {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        let Some(place) = state.table.leave(responder) else {
            return;
        };
        let key = place.key.as_ref().clone();
        self.links.change(|interest| interest.leave(key));
        core.metrics.set_responders(state.table.listeners());
        let party = Party::Member(responder);
        for untaken in place.listener.buffer.close() {
            state.withdraw(untaken.call, party, Absence::Nobody, &mut mail);
        }
        for id in state.calls.of(party) {
            state.withdraw(id, party, Absence::Lost, &mut mail);
        }
        self.post(core, state, mail);
    }

    /// What requests are for; `None` for those that are over.
    pub fn names_of(&self, calls: &[CallId]) -> Vec<Option<Arc<Name>>> {
        let state = self.state.lock();
        let name = |call: &Call| Arc::clone(&call.letter.name);
        let names = calls.iter().map(|id| state.calls.get(*id).map(name));
        names.collect()
    }

    /// A responder is not to have requests that it was given: they go to others, as if it were not there.
    pub fn decline(&self, core: &Core, responder: u64, calls: Vec<CallId>) {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        for id in calls {
            state.withdraw(id, Party::Member(responder), Absence::Nobody, &mut mail);
        }
        self.post(core, state, mail);
    }

    /// A responder replies.
    pub fn reply(
        &self,
        core: &Core,
        responder: u64,
        batch: Vec<(CallId, Reply)>,
    ) -> Vec<Result<(), BrokerError>> {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        let replying = batch.into_iter().map(|(id, reply)| {
            check::reply(core, &reply)?;
            let from = Party::Member(responder);
            let over = state.calls.reply(id, from).map(|call| (call, Some(from)));
            close(core, &state, id, over, reply, &mut mail)
        });
        let results = replying.collect();
        self.post(core, state, mail);
        results
    }

    /// Somebody with tokens replies. What another node gave out goes there, and is not heard of again.
    pub fn reply_by_token(
        &self,
        core: &Core,
        batch: Vec<(ReplyToken, Reply)>,
    ) -> Vec<Result<(), BrokerError>> {
        let me = core.cluster.node().id;
        let mut mail = Mail::default();
        let mut rooms = BTreeMap::new();
        let mut state = self.state.lock();
        let replying = batch.into_iter().map(|(token, reply)| {
            check::reply(core, &reply)?;
            if token.node == me {
                return self.reply_sealed(
                    core,
                    &mut state,
                    token.call,
                    &token.seal,
                    reply,
                    &mut mail,
                );
            }
            let room = rooms
                .entry(token.node)
                .or_insert_with(|| self.room_for_sealed(token.node));
            take_sealed(room, token.node, reply.bytes())?;
            let parcel = ReplyParcel {
                call: token.call,
                seal: Some(token.seal),
                outcome: Ok(reply),
            };
            let parcels = mail.nodes.entry(token.node).or_default();
            parcels.push(Parcel::Reply(parcel));
            Ok(())
        });
        let results = replying.collect();
        self.post(core, state, mail);
        results
    }

    /// Replies and bytes that whoever shows tokens may have on their way to another node. Anybody can make
    /// up tokens: others need the way too.
    fn room_for_sealed(&self, node: NodeId) -> Option<(u64, u64)> {
        let outlet = self.links.outlet(node)?;
        Some(outlet.room_in_part(CLIENTS_PER_ROOM))
    }

    pub(super) fn reply_sealed(
        &self,
        core: &Core,
        state: &mut State,
        id: CallId,
        seal: &[u8; 16],
        reply: Reply,
        mail: &mut Mail,
    ) -> Result<(), BrokerError> {
        let is_right = self.sealer.is_right(id, seal);
        let over = is_right.then(|| state.calls.end(id)).flatten();
        close(core, state, id, over.map(|call| (call, None)), reply, mail)
    }

    pub fn token(&self, core: &Core, call: CallId) -> ReplyToken {
        ReplyToken {
            node: core.cluster.node().id,
            call,
            seal: self.sealer.seal(call),
        }
    }
}

/// Passes a reply on to whoever asked, if the call was still open; `over` is that call, and who replied if
/// that is known.
pub(super) fn close(
    core: &Core,
    state: &State,
    id: CallId,
    over: Option<(Call, Option<Party>)>,
    reply: Reply,
    mail: &mut Mail,
) -> Result<(), BrokerError> {
    let Some((call, replied)) = over else {
        core.metrics.reply_dropped();
        return Err(BrokerError::Conflict {
            what: format!("request {id} is over, or was given to somebody else"),
        });
    };
    state.release_all(&call);
    mail.call_off(id, &call, replied);
    mail.tell(call, Ok(reply));
    Ok(())
}

fn take_sealed(room: &mut Option<(u64, u64)>, node: NodeId, more: u64) -> Result<(), BrokerError> {
    let Some((replies, bytes)) = room else {
        return Err(BrokerError::Conflict {
            what: format!("the token is of node {node}, which is not there"),
        });
    };
    if *replies == 0 || *bytes < more {
        return Err(BrokerError::Busy {
            what: format!("too many replies by token are on their way to node {node}"),
        });
    }
    *replies -= 1;
    *bytes -= more;
    Ok(())
}
