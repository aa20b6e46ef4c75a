//! What a node knows of the others while it looks for a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::ids::DiskId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::message::{Claim, Greeting, Seen};

/// A node that was not reached for this long is not there.
pub(super) const SIGHT_MAX: Duration = Duration::from_secs(4);
/// Nodes remembered. More than this do not form a cluster.
const NODES_MAX: usize = 1_024;

/// What a node said of itself.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub greeting: Greeting,
    /// Where it answered.
    pub address: String,
    /// When it was asked: what it said is not older than this.
    pub asked_at: Instant,
}

/// Shared by the one who asks and the one who answers.
#[derive(Clone, Default)]
pub(crate) struct Board {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Nodes that were reached, by their disks.
    sightings: BTreeMap<DiskId, Sighting>,
    /// Which disk answered at an address, and when it was asked.
    at_address: BTreeMap<String, (DiskId, Instant)>,
    /// Addresses of nodes that asked, or were named by others.
    rumours: BTreeSet<String>,
}

impl Board {
    /// A node answered.
    pub fn reached(&self, address: &str, mut greeting: Greeting, asked_at: Instant) {
        greeting.sees.truncate(NODES_MAX);
        let mut state = self.inner.state.lock();
        let disk = greeting.node.disk;
        if state.sightings.len() >= NODES_MAX && !state.sightings.contains_key(&disk) {
            return;
        }
        let known = state.sightings.get(&disk);
        if known.is_some_and(|known| known.asked_at > asked_at) {
            return;
        }
        if known.is_none_or(|known| known.greeting.claim != greeting.claim) {
            self.inner.news.notify_one();
        }
        state.note_rumours(&greeting);
        for place in [address, &greeting.node.address] {
            state.at_address.insert(place.to_owned(), (disk, asked_at));
        }
        state.sightings.insert(
            disk,
            Sighting {
                greeting,
                address: address.to_owned(),
                asked_at,
            },
        );
        // A disk that gave its place to another one is gone.
        let State {
            sightings,
            at_address,
            ..
        } = &mut *state;
        sightings.retain(|disk, sighting| {
            at_address
                .get(&sighting.greeting.node.address)
                .is_none_or(|(present, _)| present == disk)
        });
    }

    /// A node asked. What it says may have been on its way for long, so it is only looked up.
    pub fn heard(&self, greeting: &Greeting) {
        let mut state = self.inner.state.lock();
        let disk = greeting.node.disk;
        let changed = state
            .sightings
            .get(&disk)
            .is_none_or(|known| known.greeting.claim != greeting.claim);
        state.note_rumours(greeting);
        if changed {
            self.inner.news.notify_one();
        }
    }

    /// Forgets who was not reached for a while.
    pub fn expire(&self, now: Instant) {
        let mut state = self.inner.state.lock();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < SIGHT_MAX;
        state
            .sightings
            .retain(|_, sighting| is_recent(sighting.asked_at));
        state.at_address.retain(|_, (_, at)| is_recent(*at));
    }

    pub(super) fn sightings(&self) -> Vec<Sighting> {
        self.inner
            .state
            .lock()
            .sightings
            .values()
            .cloned()
            .collect()
    }

    /// Who answered at an address that was asked after an instant.
    pub fn disk_at(&self, address: &str, asked_after: Instant) -> Option<DiskId> {
        let state = self.inner.state.lock();
        let (disk, asked_at) = state.at_address.get(address)?;
        (*asked_at > asked_after).then_some(*disk)
    }

    /// Fresh nodes that were reached.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner
            .state
            .lock()
            .sightings
            .iter()
            .filter(|(_, sighting)| sighting.greeting.claim == Claim::Fresh)
            .map(|(disk, sighting)| Seen {
                disk: *disk,
                address: sighting.greeting.node.address.clone(),
            })
            .collect()
    }

    /// Addresses to ask besides the seeds, once: who answers is then asked because it was reached.
    pub fn take_rumours(&self) -> BTreeSet<String> {
        let mut state = self.inner.state.lock();
        let mut addresses = std::mem::take(&mut state.rumours);
        addresses.extend(
            state
                .sightings
                .values()
                .map(|sighting| sighting.greeting.node.address.clone()),
        );
        addresses
    }

    /// Waits until someone was met who was not known, or is now something else.
    pub async fn news(&self) {
        self.inner.news.notified().await;
    }
}

impl State {
    fn note_rumours(&mut self, greeting: &Greeting) {
        let named = greeting.sees.iter().map(|seen| &seen.address);
        for address in named.chain([&greeting.node.address]) {
            if self.rumours.len() < NODES_MAX && !address.is_empty() {
                self.rumours.insert(address.clone());
            }
        }
    }
}
