//! Everything of one simulation that its parts share: hosts, history, and whether it is over.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_model::ids::SessionId;
use flotilla_tests::checker::Name as Message;
use flotilla_tests::history::Recorder;

use crate::host::{Host, Site};
use crate::machine::{self, Random};
use crate::network::Wires;

/// Clones are the same world.
#[derive(Clone)]
pub struct World {
    parts: Arc<Parts>,
}

struct Parts {
    hosts: Vec<Mutex<Host>>,
    wires: Wires,
    recorder: Recorder,
    /// Sends that were answered with an error: on which channel, and what.
    refused: Mutex<BTreeSet<(String, Message)>>,
    violations: Mutex<Vec<String>>,
    is_load_over: AtomicBool,
    next_session: AtomicU64,
    prints: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn new(hosts: Vec<Host>, wires: Wires, prints: bool) -> Self {
        Self {
            parts: Arc::new(Parts {
                hosts: hosts.into_iter().map(Mutex::new).collect(),
                wires,
                recorder: Recorder::default(),
                refused: Mutex::default(),
                violations: Mutex::default(),
                is_load_over: AtomicBool::new(false),
                next_session: AtomicU64::new(1),
                prints,
            }),
        }
    }

    /// Tells what happens to who follows one seed, and mixes it into the digest.
    pub fn tell(&self, what: &str) {
        what.bytes().for_each(|byte| machine::note(u64::from(byte)));
        if self.parts.prints {
            println!("{:>12.6} s  {what}", machine::now().as_secs_f64());
        }
    }

    pub fn host_count(&self) -> u32 {
        self.parts.hosts.len() as u32
    }

    /// A host by its number, 1 and up.
    pub fn host(&self, number: u32) -> MutexGuard<'_, Host> {
        locked(&self.parts.hosts[number as usize - 1])
    }

    pub fn hosts(&self) -> impl Iterator<Item = MutexGuard<'_, Host>> {
        self.parts.hosts.iter().map(locked)
    }

    pub fn wires(&self) -> &Wires {
        &self.parts.wires
    }

    pub fn recorder(&self) -> &Recorder {
        &self.parts.recorder
    }

    /// A node that takes calls.
    pub fn pick(&self, random: &mut Random) -> Option<Site> {
        let sites = self.sites();
        if sites.is_empty() {
            return None;
        }
        let place = random.below(sites.len() as u64) as usize;
        sites.into_iter().nth(place)
    }

    pub fn sites(&self) -> Vec<Site> {
        self.hosts().filter_map(|host| host.site()).collect()
    }

    /// For a consumer of its own.
    pub fn session(&self, site: &Site) -> SessionId {
        SessionId {
            node: site.cluster.node().id,
            incarnation: site.cluster.session_generation(),
            number: self.parts.next_session.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Notes a send that was answered with an error: it must not be there.
    pub fn refuse(&self, channel: &str, message: Message) {
        locked(&self.parts.refused).insert((channel.to_owned(), message));
    }

    pub fn take_refused(&self) -> BTreeSet<(String, Message)> {
        std::mem::take(&mut locked(&self.parts.refused))
    }

    pub fn violate(&self, what: String) {
        self.tell(&what);
        locked(&self.parts.violations).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        locked(&self.parts.violations).clone()
    }

    pub fn end_load(&self) {
        self.parts.is_load_over.store(true, Ordering::SeqCst);
    }

    pub fn is_load_over(&self) -> bool {
        self.parts.is_load_over.load(Ordering::SeqCst)
    }
}
