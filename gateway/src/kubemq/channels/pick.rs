//! Which channels of many a list tells: those that are searched for and that its client has any use for.
//!
//! A search is what a client made up, and names may be long: to look at one may take a while. It is done apart
//! from the threads that serve connections, and ends with the call, at the next name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_broker::ObjectSummary;
use flotilla_model::name::{DEFAULT_NAMESPACE, Name};
use tokio::sync::OwnedSemaphorePermit;

use super::search::Search;
use crate::access::{Action, Caller};
use crate::kubemq::apart::apart;

/// Picks channels for one call, until it is dropped.
pub struct Picker {
    wanted: Arc<Wanted>,
}

struct Wanted {
    search: Search,
    caller: Caller,
    client: String,
    /// Nobody waits for the list any more.
    is_over: AtomicBool,
    /// The call's turn among the lists: it lasts until nothing is picked for it any more.
    _turn: OwnedSemaphorePermit,
}

impl Picker {
    pub fn new(search: Search, caller: Caller, client: String, turn: OwnedSemaphorePermit) -> Self {
        Self {
            wanted: Arc::new(Wanted {
                search,
                caller,
                client,
                is_over: AtomicBool::new(false),
                _turn: turn,
            }),
        }
    }

    /// Those of a page that are wanted.
    pub async fn pick(&self, mut page: Vec<ObjectSummary>) -> Vec<ObjectSummary> {
        page.retain(|item| item.name.namespace() == DEFAULT_NAMESPACE);
        if self.wanted.is_all() {
            return page;
        }
        let wanted = Arc::clone(&self.wanted);
        apart(move || {
            let is_wanted = |item: &ObjectSummary| wanted.has(&item.name);
            let goes_on = |_: &ObjectSummary| !wanted.is_over.load(Ordering::Relaxed);
            page.into_iter()
                .take_while(goes_on)
                .filter(is_wanted)
                .collect()
        })
        .await
    }
}

impl Drop for Picker {
    fn drop(&mut self) {
        self.wanted.is_over.store(true, Ordering::Relaxed);
    }
}

impl Wanted {
    fn is_all(&self) -> bool {
        self.search.is_for_all() && self.caller.is_unrestricted()
    }

    fn has(&self, name: &Name) -> bool {
        let may = |action| self.caller.may(&self.client, action, name);
        self.search.matches(name.text()) && (may(Action::Read) || may(Action::Write))
    }
}
