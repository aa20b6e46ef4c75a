//! One node: its server process, its disk and its clock.

use super::clock::Clock;
use super::network::{Network, Place};
use crate::lossyfs::{Disk, Mounted, Survival, SyncBehaviour};
use crate::server::{Options, Server, ServerError};
use crate::tmpfs::Tmpfs;
use rand::Rng;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

const KUBEMQ_PORT: u16 = 50_000;
const KUBEMQ_REST_PORT: u16 = 9090;
const ADMIN_PORT: u16 = 8080;
pub const CLUSTER_PORT: u16 = 7600;

/// What the data of a node lies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskKind {
    /// A directory.
    #[default]
    Plain,
    /// A disk whose power can be cut, and that can be slow.
    Lossy,
    /// A small disk that can be filled.
    Small { bytes: u64 },
}

enum NodeDisk {
    Plain,
    /// None only while it is taken apart.
    Lossy(Option<Mounted>),
    Small(Tmpfs),
}

/// A node, running or not.
pub struct Node {
    number: u32,
    mountpoint: PathBuf,
    options: Options,
    disk: NodeDisk,
    clock: Clock,
    server: Option<Server>,
}

impl Node {
    /// Prepares a node, with all its files in a directory of its own.
    pub fn new(number: u32, network: &Network, directory: &Path, disk: DiskKind) -> Self {
        let mountpoint = directory.join("disk");
        std::fs::create_dir_all(&mountpoint).expect("the work directory takes new directories");
        let clock = Clock::new(directory).expect("the work directory takes new files");
        let address = Place::Node(number).address();
        let options = Options::new(&mountpoint.join("data"), &directory.join("server.log"))
            .namespace(network.namespace(number).clone())
            .set("FLOTILLA_NODE_NAME", format!("node-{number}"))
            // The test's network is reached by nobody else.
            .set("FLOTILLA_LISTEN_ALLOW_INSECURE", "true")
            .set("FLOTILLA_LISTEN_KUBEMQ", format!("{address}:{KUBEMQ_PORT}"))
            .set(
                "FLOTILLA_LISTEN_KUBEMQ_REST",
                format!("{address}:{KUBEMQ_REST_PORT}"),
            )
            .set("FLOTILLA_LISTEN_ADMIN", format!("{address}:{ADMIN_PORT}"))
            .set(
                "FLOTILLA_LISTEN_CLUSTER",
                format!("{address}:{CLUSTER_PORT}"),
            )
            .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "4MiB")
            .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
            .set("FLOTILLA_STORAGE_CACHE", "64MiB")
            .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "1s");
        let options = clock.give_to(options);
        let disk = match disk {
            DiskKind::Plain => NodeDisk::Plain,
            DiskKind::Lossy => {
                NodeDisk::Lossy(Some(mount(Disk::new(SyncBehaviour::Honest), &mountpoint)))
            }
            DiskKind::Small { bytes } => {
                NodeDisk::Small(Tmpfs::mount(&mountpoint, bytes).expect("mounting needs root"))
            }
        };
        Self {
            number,
            mountpoint,
            options,
            disk,
            clock,
            server: None,
        }
    }

    /// Sets an environment variable of the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.options = self.options.clone().set(key, value);
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn place(&self) -> Place {
        Place::Node(self.number)
    }

    pub fn kubemq(&self) -> SocketAddr {
        SocketAddr::from((self.place().address(), KUBEMQ_PORT))
    }

    pub fn kubemq_rest(&self) -> SocketAddr {
        SocketAddr::from((self.place().address(), KUBEMQ_REST_PORT))
    }

    pub fn admin(&self) -> SocketAddr {
        SocketAddr::from((self.place().address(), ADMIN_PORT))
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where its server keeps its data.
    pub fn data(&self) -> PathBuf {
        self.mountpoint.join("data")
    }

    pub fn log(&self) -> String {
        self.options.log()
    }

    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// Starts it, and does not wait for anything.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "node {} runs already", self.number);
        let server = self.options.start_unready();
        self.server = Some(server.unwrap_or_else(|error| panic!("{error}")));
    }

    fn running(&self) -> &Server {
        let server = self.server.as_ref();
        server.unwrap_or_else(|| panic!("node {} does not run", self.number))
    }

    fn take_running(&mut self) -> Server {
        let server = self.server.take();
        server.unwrap_or_else(|| panic!("node {} does not run", self.number))
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let killed = self.take_running().kill();
        killed.expect("a running server can be killed");
    }

    pub fn freeze(&self) {
        self.running()
            .freeze()
            .expect("a running server can be frozen");
    }

    pub fn unfreeze(&self) {
        self.running().unfreeze().expect("a frozen server goes on");
    }

    /// Asks it to end and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus, ServerError> {
        self.take_running().terminate()
    }

    /// Panics with its log when it has ended by itself.
    pub fn expect_running(&self) {
        if let Some(server) = &self.server {
            let runs = server.is_running().expect("asking for a child's state");
            assert!(runs, "node {} ended:\n{}", self.number, self.log_end());
        }
    }

    /// Where the log tells most.
    pub fn log_end(&self) -> String {
        const LINES_MAX: usize = 40;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }

    /// Forgets everything that it stored. It must not run.
    pub fn wipe(&mut self) {
        assert!(self.server.is_none(), "node {} runs", self.number);
        std::fs::remove_dir_all(self.data()).expect("the data directory can be removed");
    }

    /// The disk of [`DiskKind::Small`].
    pub fn small_disk(&self) -> &Tmpfs {
        match &self.disk {
            NodeDisk::Small(disk) => disk,
            _ => panic!("node {} has no small disk", self.number),
        }
    }

    fn lossy_disk(&self) -> &Mounted {
        match &self.disk {
            NodeDisk::Lossy(Some(disk)) => disk,
            _ => panic!("node {} has no disk that loses anything", self.number),
        }
    }

    /// Changes what the disk of [`DiskKind::Lossy`] does on a sync.
    pub fn set_syncs(&self, behaviour: SyncBehaviour) {
        self.lossy_disk().disk().set_syncs(behaviour);
    }

    /// Makes every sync of the disk of [`DiskKind::Lossy`] slow.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.lossy_disk().disk().set_sync_delay(delay);
    }

    /// Cuts the power of its disk: what it says from now on it says without one. Then it is to be
    /// [taken up](Self::after_power_cut).
    pub fn cut_power(&self) {
        self.lossy_disk().disk().cut_power();
    }

    /// Ends the server whose power was cut, and gives it back a disk with what was durable.
    pub fn after_power_cut(&mut self, survival: Survival, random: &mut impl Rng) {
        self.kill();
        let NodeDisk::Lossy(mounted) = &mut self.disk else {
            panic!("node {} has no disk that loses anything", self.number);
        };
        let mounted = mounted.take().expect("it is put back below");
        let disk = mounted.unmount().expect("nothing uses the mount any more");
        let disk = disk.after_power_cut(survival, random);
        self.disk = NodeDisk::Lossy(Some(mount(disk, &self.mountpoint)));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The server first: its disk is unmounted with the rest.
        self.server = None;
    }
}

fn mount(disk: Disk, mountpoint: &Path) -> Mounted {
    Mounted::new(disk, mountpoint).expect("mounting needs root and /dev/fuse")
}
