//! Which names have a live actor.
//!
//! Actors start on demand and go to sleep when idle, so a million idle names cost nothing here. An
//! actor that goes to sleep takes itself out of the directory first; a request that still reaches it
//! comes back unread, and is sent again to its successor.

use std::collections::HashMap;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::*;
use flotilla_model::name::Name;
use parking_lot::RwLock;

use crate::api::error::BrokerError;
use crate::wake::Wake;

/// How often a request is sent again because its actor went to sleep.
const SENDS_MAX: usize = 8;

/// A live actor: where it is and how it is woken.
pub(crate) struct Live<A: Actor> {
    pub address: Addr<A>,
    pub wake: Arc<Wake>,
}

impl<A: Actor> Clone for Live<A> {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            wake: Arc::clone(&self.wake),
        }
    }
}

/// The live actors of one kind, by name.
pub(crate) struct Directory<A: Actor> {
    live: RwLock<HashMap<Name, Live<A>>>,
    actors_max: usize,
}

impl<A: Actor> Directory<A> {
    pub fn new(actors_max: usize) -> Self {
        Self {
            live: RwLock::new(HashMap::new()),
            actors_max,
        }
    }

    pub fn len(&self) -> usize {
        self.live.read().len()
    }

    pub fn get(&self, name: &Name) -> Option<Live<A>> {
        self.live.read().get(name).cloned()
    }

    /// Looks at the wake of a live name, without starting anything.
    pub fn with_wake(&self, name: &Name, look: impl FnOnce(&Wake)) {
        if let Some(live) = self.live.read().get(name) {
            look(&live.wake);
        }
    }

    /// Rings the live names that are chosen.
    pub fn ring_where(&self, chosen: impl Fn(&Name) -> bool) {
        for (name, live) in self.live.read().iter() {
            if chosen(name) {
                live.wake.ring();
            }
        }
    }

    /// Subscriptions or waiting receivers of a name.
    pub fn subscribers(&self, name: &Name) -> u64 {
        self.live
            .read()
            .get(name)
            .map_or(0, |live| live.wake.subscribers())
    }

    /// Subscriptions or waiting receivers of all names.
    pub fn subscribers_total(&self) -> u64 {
        let live = self.live.read();
        live.values().map(|live| live.wake.subscribers()).sum()
    }

    pub fn all(&self) -> Vec<Live<A>> {
        self.live.read().values().cloned().collect()
    }

    /// Forgets an actor, unless the name has another one by now.
    pub fn remove(&self, name: &Name, wake: &Arc<Wake>) {
        let mut live = self.live.write();
        if live
            .get(name)
            .is_some_and(|found| Arc::ptr_eq(&found.wake, wake))
        {
            live.remove(name);
        }
    }

    fn get_or_start(
        &self,
        name: &Name,
        start: impl FnOnce(Arc<Wake>) -> Addr<A>,
    ) -> Result<Live<A>, BrokerError> {
        if let Some(live) = self.get(name) {
            return Ok(live);
        }
        let mut live = self.live.write();
        if let Some(found) = live.get(name) {
            return Ok(found.clone());
        }
        if live.len() >= self.actors_max {
            return Err(BrokerError::Busy {
                what: format!("{} names are in use already", self.actors_max),
            });
        }
        let wake = Arc::new(Wake::default());
        let started = Live {
            address: start(Arc::clone(&wake)),
            wake,
        };
        live.insert(name.clone(), started.clone());
        Ok(started)
    }

    /// Sends a request to the actor of a name, which is started if there is none.
    pub async fn call<M>(
        &self,
        name: &Name,
        start: impl Fn(Arc<Wake>) -> Addr<A>,
        message: impl Fn() -> M,
    ) -> Result<M::Result, BrokerError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        for _ in 0..SENDS_MAX {
            let live = self.get_or_start(name, &start)?;
            match live.address.send(message()).await {
                Ok(answer) => return Ok(answer),
                // It went to sleep or died: either way a new one takes its place.
                Err(_) => self.remove(name, &live.wake),
            }
        }
        Err(BrokerError::ShuttingDown)
    }
}
