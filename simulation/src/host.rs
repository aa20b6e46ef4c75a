//! One host: its disk, its clock, and the lives of its node.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flotilla_cluster::{Cluster, ClusterConfig};
use flotilla_storage::testing::{EndOfLife, FaultyDisk};
use flotilla_storage::{LogConfig, error_chain};
use tokio::sync::oneshot;

use crate::clock::HostClock;
use crate::machine::files::{self, Unsynced};
use crate::machine::{self, Random};
use crate::network::{Port, Wires};

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process is killed; its machine stays up.
    Kill,
    /// What was not synced is gone, or torn, page by page.
    PowerCut { torn: bool },
}

/// For a graceful end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// What is common to all hosts of a simulation.
pub struct Setup {
    pub root: PathBuf,
    pub wires: Wires,
    /// The settings that all nodes share.
    pub config: ClusterConfig,
    /// Disks say yes to syncs and do nothing.
    pub syncs_lie: bool,
}

pub struct Host {
    pub number: u32,
    setup: Arc<Setup>,
    clock: Arc<HostClock>,
    disk: FaultyDisk,
    lives: u32,
    random: Random,
    life: Option<Life>,
    is_leaving: bool,
}

/// One run of the node.
struct Life {
    port: Arc<Port>,
    state: Arc<LifeState>,
    stop: oneshot::Sender<bool>,
    ended: Arc<AtomicBool>,
}

pub struct LifeState {
    stage: Mutex<Stage>,
    is_dead: AtomicBool,
}

#[derive(Clone)]
enum Stage {
    Starting,
    Up(Cluster),
    Refused(String),
    Over,
}

impl LifeState {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call gives back is worth nothing once the node that it was made at is dead.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }
}

/// A node that takes calls.
#[derive(Clone)]
pub struct Site {
    pub number: u32,
    pub cluster: Cluster,
    life: Arc<LifeState>,
}

impl Site {
    pub fn is_dead(&self) -> bool {
        self.life.is_dead()
    }
}

impl Host {
    pub fn new(number: u32, setup: Arc<Setup>, clock: HostClock, random: Random) -> Self {
        let disk = FaultyDisk::new();
        if setup.syncs_lie {
            disk.lie_about_syncs();
        }
        Self {
            number,
            setup,
            clock: Arc::new(clock),
            disk,
            lives: 1,
            random,
            life: None,
            is_leaving: false,
        }
    }

    pub fn clock(&self) -> &HostClock {
        &self.clock
    }

    pub fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    fn dir_name(&self, life: u32) -> String {
        format!("host{}/life{life}", self.number)
    }

    fn dir(&self, life: u32) -> PathBuf {
        self.setup.root.join("current").join(self.dir_name(life))
    }

    /// Whether its node runs, or is about to end gracefully.
    pub fn is_up(&self) -> bool {
        self.life.is_some() || self.is_leaving
    }

    /// The node, if it takes calls.
    pub fn site(&self) -> Option<Site> {
        let life = self.life.as_ref()?;
        match &*life.state.stage() {
            Stage::Up(cluster) => Some(Site {
                number: self.number,
                cluster: cluster.clone(),
                life: life.state.clone(),
            }),
            Stage::Starting | Stage::Refused(_) | Stage::Over => None,
        }
    }

    /// Why the node would not start.
    pub fn refusal(&self) -> Option<String> {
        match &*self.life.as_ref()?.state.stage() {
            Stage::Refused(reason) => Some(reason.clone()),
            Stage::Starting | Stage::Up(_) | Stage::Over => None,
        }
    }

    /// Where the log of the node is, and on which disk, for a look at it when the node is down.
    pub fn log(&self) -> (LogConfig, FaultyDisk) {
        (self.config(&self.dir(self.lives)).log, self.disk.clone())
    }

    fn config(&self, dir: &Path) -> ClusterConfig {
        let shared = &self.setup.config;
        let mut config = shared.clone();
        config.data_dir = dir.to_owned();
        config.log = LogConfig {
            dir: dir.to_owned(),
            ..shared.log.clone()
        };
        config.node_name = format!("n{}", self.number);
        config.disk = Arc::new(self.disk.clone());
        config.time = self.clock.clone();
        config
    }

    /// Starts the node in a thread of its own, and does not wait for it.
    pub fn start(&mut self) {
        let port = Arc::new(Port::new(&self.setup.wires, self.number));
        let mut config = self.config(&self.dir(self.lives));
        config.listen = Some(port.clone());
        config.network = port.clone();
        let state = Arc::new(LifeState {
            stage: Mutex::new(Stage::Starting),
            is_dead: AtomicBool::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let (number, living, has_ended) = (self.number, state.clone(), ended.clone());
        let spawned = thread::Builder::new()
            .name(format!("node-{number}"))
            .spawn(move || {
                machine::settle_on(number);
                live(config, &living, stopped);
                has_ended.store(true, Ordering::SeqCst);
            });
        assert!(spawned.is_ok(), "a thread for a node can be made");
        self.life = Some(Life {
            port,
            state,
            stop,
            ended,
        });
    }

    /// Ends the node's life from one moment to the next. What its threads still do does not matter: the
    /// next life has copies of its files, as of now.
    pub fn end(&mut self, end: End) {
        let Some(life) = self.life.take() else {
            return;
        };
        life.state.is_dead.store(true, Ordering::SeqCst);
        life.port.die(matches!(end, End::PowerCut { .. }));
        let (from, to) = (self.dir(self.lives), self.dir(self.lives + 1));
        let (disk_end, unsynced) = match end {
            End::Kill => (EndOfLife::Kill, Unsynced::Kept),
            End::PowerCut { torn: false } => {
                (EndOfLife::PowerCut { torn_seed: None }, Unsynced::Lost)
            }
            End::PowerCut { torn: true } => {
                let torn_seed = Some(self.random.next());
                let unsynced = Unsynced::Torn(self.random.split());
                (EndOfLife::PowerCut { torn_seed }, unsynced)
            }
        };
        self.disk = self.disk.survivor(&from, &to, disk_end);
        let (last, next) = (self.dir_name(self.lives), self.dir_name(self.lives + 1));
        if let Err(error) = files::revive(&last, &next, unsynced) {
            panic!("the files of a dead node could not be copied: {error}");
        }
        self.lives += 1;
        *life.state.stage() = Stage::Over;
        // It may have ended by itself.
        let _ = life.stop.send(false);
    }

    /// Ends the node gracefully; [`Self::has_left`] is to be called when the future is done.
    pub fn shut_down(&mut self) -> impl Future<Output = ()> + use<> {
        let life = self.life.take();
        self.is_leaving = true;
        async move {
            let Some(life) = life else {
                return;
            };
            let _ = life.stop.send(true);
            while !life.ended.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            life.state.is_dead.store(true, Ordering::SeqCst);
            life.port.die(false);
        }
    }
}

impl Host {
    /// It can be started again.
    pub fn has_left(&mut self) {
        self.is_leaving = false;
    }
}

/// The whole life of a node, in its own thread.
fn live(config: ClusterConfig, state: &LifeState, stop: oneshot::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            *state.stage() = Stage::Refused(error.to_string());
            return;
        }
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async {
        let mut stop = stop;
        let started = tokio::select! {
            started = Cluster::start(config, handle) => started,
            _ = &mut stop => return,
        };
        let cluster = match started {
            Ok(cluster) => cluster,
            Err(error) => {
                *state.stage() = Stage::Refused(error_chain(&error));
                let _ = stop.await;
                return;
            }
        };
        {
            let mut stage = state.stage();
            if matches!(*stage, Stage::Starting) {
                *stage = Stage::Up(cluster.clone());
            }
        }
        let is_graceful = stop.await.unwrap_or(false);
        *state.stage() = Stage::Over;
        if is_graceful && let Err(error) = cluster.shutdown(Instant::now() + SHUTDOWN_MAX).await {
            tracing::warn!(%error, "no graceful end");
        }
    });
    runtime.shutdown_background();
}
