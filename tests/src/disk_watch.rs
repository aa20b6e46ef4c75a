//! Whether the machine's disk answers at all. Virtual disks stand still now and then, for everyone and for
//! many seconds: what a server does not do meanwhile is not its fault.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(200);
/// A sync that takes longer is one of a disk that stands still; a busy one takes less.
const STILL: Duration = Duration::from_secs(2);

/// Writes a little again and again, beside the data of the tests, until it is dropped.
pub struct DiskWatch {
    state: Arc<State>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    syncs: Mutex<Syncs>,
}

#[derive(Default)]
struct Syncs {
    /// When the disk stood still.
    still: Vec<(Instant, Instant)>,
    /// Since when one is under way.
    running: Option<Instant>,
}

impl State {
    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskWatch {
    pub fn start() -> Self {
        let file = tempfile::tempfile().expect("the temporary directory takes new files");
        let state = Arc::new(State::default());
        let watcher = std::thread::spawn({
            let state = state.clone();
            move || watch(file, &state)
        });
        Self {
            state,
            watcher: Some(watcher),
        }
    }

    /// For how long the disk has stood still since a moment.
    pub fn stood_still_since(&self, moment: Instant) -> Duration {
        let syncs = self.state.syncs();
        let now = Instant::now();
        let running = syncs.running.map(|began| (began, now));
        let all = syncs.still.iter().copied().chain(running);
        all.map(|(began, ended)| ended.saturating_duration_since(began.max(moment)))
            .filter(|stood| *stood >= STILL)
            .sum()
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            // A panic of it would have been printed.
            let _ = watcher.join();
        }
    }
}

fn watch(mut file: File, state: &State) {
    while !state.is_over.load(Ordering::Relaxed) {
        let began = Instant::now();
        state.syncs().running = Some(began);
        let synced = file.write_all(&[1; 512]).and_then(|()| file.sync_data());
        let mut syncs = state.syncs();
        syncs.running = None;
        if began.elapsed() >= STILL {
            syncs.still.push((began, Instant::now()));
        }
        drop(syncs);
        if let Err(error) = synced {
            eprintln!("the machine's disk is not watched any more: {error}");
            return;
        }
        std::thread::sleep(PERIOD);
    }
}
