//! What connects the hosts: delays, cuts, and who listens where.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use flotilla_cluster::Socket;
use tokio::time::Instant;

use super::pipe::Pipe;
use crate::machine::Random;

/// How good the network is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub latency_min: Duration,
    pub latency_max: Duration,
    /// One piece of so many is lost and sent again.
    pub loss_odds: u64,
    /// One connection attempt of so many gets nowhere.
    pub refusal_odds: u64,
}

/// After a loss, and after a cut was mended.
const RETRANSMISSION_MIN: Duration = Duration::from_millis(20);
const RETRANSMISSION_MAX: Duration = Duration::from_millis(300);

/// Clones are the same network.
#[derive(Clone)]
pub struct Wires {
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    random: Random,
    weather: Weather,
    /// From whom to whom nothing arrives.
    cut: BTreeSet<(u32, u32)>,
    listeners: BTreeMap<String, Listener>,
    pipes: Vec<Weak<Pipe>>,
}

pub(super) struct Listener {
    pub host: u32,
    pub waiting: VecDeque<Box<dyn Socket>>,
    pub waker: Option<Waker>,
}

impl Wires {
    pub fn new(random: Random, weather: Weather) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                random,
                weather,
                cut: BTreeSet::new(),
                listeners: BTreeMap::new(),
                pipes: Vec::new(),
            })),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing arrives any more that one host sends to another.
    pub fn cut(&self, from: u32, to: u32) {
        self.lock().cut.insert((from, to));
    }

    /// Everything arrives again; what was sent meanwhile is sent once more.
    pub fn mend(&self) {
        self.lock().cut.clear();
        for pipe in self.pipes() {
            let pause = self.lock().retransmission();
            pipe.delay_until(Instant::now() + pause);
        }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Resets every connection between two hosts.
    pub fn reset(&self, one: u32, other: u32) {
        for pipe in self.pipes() {
            let ends = (pipe.from, pipe.to);
            if ends == (one, other) || ends == (other, one) {
                pipe.reset();
            }
        }
    }

    /// Lets go of what a host has open, as its kernel does when the process is gone.
    pub fn close_host(&self, host: u32) {
        self.stop_listening(host);
        for pipe in self.pipes() {
            if pipe.from == host || pipe.to == host {
                pipe.reset();
            }
        }
    }

    /// What a host has open neither sends nor answers any more.
    pub fn silence_host(&self, host: u32) {
        self.stop_listening(host);
        for pipe in self.pipes() {
            if pipe.from == host || pipe.to == host {
                pipe.silence();
            }
        }
    }

    fn stop_listening(&self, host: u32) {
        let mut state = self.lock();
        let addresses: Vec<String> = state
            .listeners
            .iter()
            .filter(|(_, listener)| listener.host == host)
            .map(|(address, _)| address.clone())
            .collect();
        let removed: Vec<Listener> = addresses
            .iter()
            .filter_map(|address| state.listeners.remove(address))
            .collect();
        drop(state);
        // With them go connections that nobody took, which tell the other side.
        drop(removed);
    }

    fn pipes(&self) -> Vec<Arc<Pipe>> {
        let mut state = self.lock();
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        state.pipes.iter().filter_map(Weak::upgrade).collect()
    }
}

impl State {
    pub fn is_cut(&self, from: u32, to: u32) -> bool {
        self.cut.contains(&(from, to))
    }

    pub fn pipe(&mut self, wires: &Wires, from: u32, to: u32) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe::new(wires.clone(), from, to));
        self.pipes.push(Arc::downgrade(&pipe));
        if self.pipes.len().is_multiple_of(256) {
            self.pipes.retain(|pipe| pipe.strong_count() > 0);
        }
        pipe
    }

    pub fn listeners(&mut self) -> &mut BTreeMap<String, Listener> {
        &mut self.listeners
    }

    pub fn is_refused(&mut self) -> bool {
        let odds = self.weather.refusal_odds;
        self.random.once_in(odds)
    }

    /// How long something takes from one host to another.
    pub fn latency(&mut self) -> Duration {
        let Weather {
            latency_min,
            latency_max,
            loss_odds,
            ..
        } = self.weather;
        let latency = self.within(latency_min, latency_max);
        match self.random.once_in(loss_odds) {
            true => latency + self.retransmission(),
            false => latency,
        }
    }

    /// How much of so many bytes goes in one piece.
    pub fn piece(&mut self, bytes: usize) -> usize {
        match bytes > 1 && self.random.once_in(64) {
            true => self.random.between(1, bytes as u64) as usize,
            false => bytes,
        }
    }

    fn retransmission(&mut self) -> Duration {
        self.within(RETRANSMISSION_MIN, RETRANSMISSION_MAX)
    }

    fn within(&mut self, min: Duration, max: Duration) -> Duration {
        let (min, max) = (min.as_nanos() as u64, max.as_nanos() as u64);
        Duration::from_nanos(self.random.between(min, max.max(min + 1)))
    }
}
