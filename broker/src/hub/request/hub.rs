//! The hub of requests: takes in what is asked, said and told, one batch at a time.

use std::sync::Arc;
use std::time::Instant;

use flotilla_model::name::{Kind, Name};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::api::error::BrokerError;
use crate::api::request::{Request, WhenNobody};
use crate::config::BrokerConfig;
use crate::core::Core;
use crate::hub::buffer::Bounds;
use crate::hub::links::HubLinks;
use crate::hub::names::Seen;
use crate::hub::request::absence;
use crate::hub::request::asker::Inbox;
use crate::hub::request::call::{Asker, Call, Party};
use crate::hub::request::check::{self, Asked};
use crate::hub::request::mail::Mail;
use crate::hub::request::parcel::Parcel;
use crate::hub::request::room::Room;
use crate::hub::request::route::State;
use crate::hub::request::seal::Sealer;

/// One client may have this part of the room for all: it takes several to leave none for others.
pub(super) const CLIENTS_PER_ROOM: u64 = 4;

/// The hub; one per node.
pub(crate) struct RequestHub {
    pub links: HubLinks<Parcel>,
    pub(super) state: Mutex<State>,
    /// Rung when a deadline comes before the one that the timer waits for.
    pub timer: Arc<Notify>,
    pub(super) sealer: Sealer,
    /// Of the replies that requesters have not taken.
    replies: Arc<Room>,
}

impl Drop for RequestHub {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}

impl RequestHub {
    pub fn new(config: &BrokerConfig) -> Self {
        let bounds = Bounds::hard(config.request_calls_max, config.request_bytes_max);
        Self {
            links: HubLinks::new(bounds),
            state: Mutex::new(State::new(config)),
            timer: Arc::default(),
            sealer: Sealer::new(),
            replies: Arc::new(Room::new(config.request_bytes_max)),
        }
    }

    pub fn open_inbox(&self, config: &BrokerConfig) -> Arc<Inbox> {
        let mut state = self.state.lock();
        let id = state.table.next_id();
        let open_max = config.request_calls_per_client_max;
        let bytes_max = config.request_bytes_max / CLIENTS_PER_ROOM;
        let inbox = Inbox::new(id, open_max, bytes_max, &self.replies);
        let inbox = Arc::new(inbox);
        if state.is_closing {
            inbox.end(BrokerError::ShuttingDown);
        }
        state.inboxes.insert(id, Arc::clone(&inbox));
        inbox
    }

    /// Gives up what a requester waits for.
    pub fn close_inbox(&self, core: &Core, inbox: &Inbox) {
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        state.inboxes.remove(&inbox.id());
        for id in state.calls.of(Party::Asker(inbox.id())) {
            if let Some(call) = state.calls.end(id) {
                state.release_all(&call);
                mail.call_off(id, &call, None);
            }
        }
        self.post(core, state, mail);
    }

    /// Takes requests; each is answered into the inbox.
    pub fn ask(&self, core: &Core, inbox: &Arc<Inbox>, batch: Vec<(u64, Request)>) {
        let now = Instant::now();
        let mut mail = Mail::default();
        let mut asked = Asked::default();
        let mut state = self.state.lock();
        for (tag, request) in batch {
            let kind = request.name.kind();
            let checked = check::contents(core, &request)
                .and_then(|contents| state.admit(contents, Some(&inbox.asked), now));
            let letter = match checked {
                Ok(letter) => letter,
                Err(error) => {
                    core.metrics.refused(kind, &error);
                    mail.answer(inbox, tag, Err(error));
                    continue;
                }
            };
            let asker = Asker::Here {
                inbox: Arc::clone(inbox),
                tag,
            };
            let fails_early = request.when_nobody == WhenNobody::Fail;
            let found = state.table.find(&letter.name);
            asked.count(core, &mut state, &letter, found.count, now);
            let call = Call::new(asker, letter, now + request.timeout, fails_early);
            let id = state.calls.open(call);
            state.give(id, found, &mut mail);
        }
        asked.note(core, &mut state, now);
        self.post(core, state, mail);
    }

    /// Ends the calls whose time is over; returns when to look again.
    pub fn expire(&self, core: &Core) -> Option<Instant> {
        let now = Instant::now();
        let mut mail = Mail::default();
        let mut state = self.state.lock();
        while let Some(call) = state.calls.next_due(now) {
            state.release_all(&call);
            // Another node looks at its own time.
            if let Asker::Here { inbox, tag } = &call.asker {
                let name = absence::shown(&call.letter.name);
                mail.answer(inbox, *tag, Err(BrokerError::RequestTimeout { name }));
            }
        }
        state.armed = state.calls.next_deadline();
        let next = state.armed;
        self.post(core, state, mail);
        next
    }

    /// Names that were used lately on this node, with how many serve them.
    pub fn names(
        &self,
        kind: Kind,
        after: Option<&Name>,
        limit: usize,
    ) -> Vec<(Arc<Name>, Seen, u64)> {
        let mut state = self.state.lock();
        let found = state.names.after(kind, after, limit);
        let counted = found.into_iter().map(|(name, seen)| {
            let responders = state.table.count(&name);
            (name, seen, responders)
        });
        counted.collect()
    }

    /// Lists a name from now on that nobody was asked for yet.
    pub fn introduce(&self, name: &Arc<Name>) {
        self.state.lock().names.note(name, 0, 0, Instant::now());
    }

    /// Lists a name no longer; false if it was not listed.
    pub fn forget(&self, name: &Name) -> bool {
        self.state.lock().names.drop_name(name)
    }

    /// Ends all subscriptions and waits.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.is_closing = true;
        for place in state.table.places() {
            place.listener.buffer.end(BrokerError::ShuttingDown);
        }
        for inbox in state.inboxes.values() {
            inbox.end(BrokerError::ShuttingDown);
        }
        self.timer.notify_one();
    }

    /// Says what there is to say, and has the timer look earlier if it must.
    pub(super) fn post(&self, core: &Core, mut state: MutexGuard<'_, State>, mail: Mail) {
        // Whoever gets a request finds it counted; what nobody has room for is over once that is known.
        core.metrics.set_requests_under_way(state.calls.len());
        state.post(&self.links, &core.metrics, mail);
        core.metrics.set_requests_under_way(state.calls.len());
        let next = state.calls.next_deadline();
        if let Some(next) = next
            && state.armed.is_none_or(|armed| next < armed)
        {
            state.armed = Some(next);
            self.timer.notify_one();
        }
    }
}
