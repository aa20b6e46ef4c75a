//! Power cuts under load, on a disk that forgets what was not synced: nothing acknowledged is lost.

use flotilla_tests::admin;
use flotilla_tests::load::{Load, Verdict};
use flotilla_tests::lossyfs::{Disk, Mounted, Survival, SyncBehaviour};
use flotilla_tests::seed;
use flotilla_tests::server::{self, Options, Server, ServerError};
use flotilla_tests::workdir::WorkDir;
use rand::Rng;
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Acknowledgements before a cut, so that every round has something to lose.
const PROGRESS: usize = 20;
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);
const CUT_DELAY_MS_MAX: u64 = 1000;
/// A quarter of the rounds begin with a cut within this time after a start.
const RECOVERY_CUT_DELAY_MS_MAX: u64 = 200;

/// A server on a disk whose power is cut.
struct Machine {
    work: WorkDir,
    mountpoint: PathBuf,
    options: Options,
    address: SocketAddr,
    random: StdRng,
    seed: u64,
}

impl Machine {
    fn new(test: &str) -> Self {
        let work = WorkDir::new(test);
        let seed = seed::seed();
        let mountpoint = work.join("mount");
        std::fs::create_dir(&mountpoint).expect("the work directory takes new directories");
        let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
        let options = Options::new(&mountpoint.join("data"), &work.join("server.log"))
            .set("FLOTILLA_LISTEN_KUBEMQ", address.to_string())
            .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "1MiB")
            .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
            .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "500ms");
        Self {
            work,
            mountpoint,
            options,
            address,
            random: seed::random(seed),
            seed,
        }
    }

    fn load(&self) -> Load {
        Load::start(self.address, &self.work.join("load"), self.seed)
    }

    fn mount(&self, disk: Disk) -> Mounted {
        Mounted::new(disk, &self.mountpoint).expect("mounting needs root and /dev/fuse")
    }

    /// Runs until the power is cut at a random moment under load, and gives the disk that is found
    /// afterwards.
    fn run_until_power_cut(
        &mut self,
        disk: Disk,
        load: &mut Load,
        survival: Survival,
    ) -> Result<Disk, ServerError> {
        let mounted = self.mount(disk);
        let server = self.options.start()?;
        assert!(
            load.wait_for_progress(PROGRESS, PROGRESS_LIMIT),
            "nothing was acknowledged, the server's log:\n{}",
            server.log()
        );
        std::thread::sleep(seed::moment(&mut self.random, CUT_DELAY_MS_MAX));
        self.cut_power(mounted, server, survival)
    }

    /// Cuts the power while the server recovers.
    fn cut_recovery(&mut self, disk: Disk, survival: Survival) -> Result<Disk, ServerError> {
        let mounted = self.mount(disk);
        let server = self.options.start_unready()?;
        std::thread::sleep(seed::moment(&mut self.random, RECOVERY_CUT_DELAY_MS_MAX));
        self.cut_power(mounted, server, survival)
    }

    fn cut_power(
        &mut self,
        mounted: Mounted,
        server: Server,
        survival: Survival,
    ) -> Result<Disk, ServerError> {
        // First the power: what the server says from now on it says without a disk.
        mounted.disk().cut_power();
        server.kill()?;
        let disk = mounted.unmount().expect("nothing uses the mount any more");
        Ok(disk.after_power_cut(survival, &mut self.random))
    }

    fn verdict(&self, disk: Disk, load: Load) -> Verdict {
        let mounted = self.mount(disk);
        let server = self
            .options
            .start()
            .unwrap_or_else(|error| panic!("at the end: {error}"));
        let verdict = load.verdict();
        let status = server.terminate().expect("a graceful end");
        assert!(status.success(), "the server ended with {status}");
        mounted.unmount().expect("nothing uses the mount any more");
        verdict
    }
}

#[test]
fn acknowledged_messages_survive_power_cuts() {
    let mut machine = Machine::new("powercut");
    let mut load = machine.load();
    let mut disk = Disk::new(SyncBehaviour::Honest);
    let rounds = seed::rounds();
    for round in 1..=rounds {
        let survival = if round % 2 == 0 {
            Survival::Torn
        } else {
            Survival::Nothing
        };
        if machine.random.random_ratio(1, 4) {
            disk = machine
                .cut_recovery(disk, survival)
                .unwrap_or_else(|error| panic!("round {round}, seed {}: {error}", machine.seed));
        }
        disk = machine
            .run_until_power_cut(disk, &mut load, survival)
            .unwrap_or_else(|error| panic!("round {round}, seed {}: {error}", machine.seed));
    }
    let verdict = machine.verdict(disk, load);
    println!("{rounds} rounds: {}", verdict.report());
    assert!(
        verdict.violations.is_empty(),
        "seed {}: {}",
        machine.seed,
        verdict.report()
    );
    assert!(verdict.acknowledged as u64 >= rounds * PROGRESS as u64);
}

/// Runs a round on an honest disk, and a second one as told.
fn two_rounds(machine: &mut Machine, load: &mut Load, second: SyncBehaviour) -> Disk {
    let mut disk = Disk::new(SyncBehaviour::Honest);
    for behaviour in [SyncBehaviour::Honest, second] {
        disk.set_syncs(behaviour);
        disk = machine
            .run_until_power_cut(disk, load, Survival::Nothing)
            .unwrap_or_else(|error| panic!("seed {}: {error}", machine.seed));
    }
    disk.set_syncs(SyncBehaviour::Honest);
    disk
}

/// A disk that ignores all syncs for one round looks like a server that acknowledges without them. The checker must see the loss.
#[test]
fn a_missing_sync_is_found_as_a_loss() {
    let mut machine = Machine::new("missing-sync");
    let mut load = machine.load();
    let disk = two_rounds(&mut machine, &mut load, SyncBehaviour::IgnoresAll);
    let verdict = machine.verdict(disk, load);
    println!("{}", verdict.report());
    assert!(
        verdict.count_lost() > 0,
        "nothing was lost although nothing was synced: {}",
        verdict.report()
    );
}

/// When only the log's segments lose what was synced, the index knows of entries that are gone: the
/// server itself must say so.
#[test]
fn a_log_that_lost_synced_entries_is_reported() {
    let mut machine = Machine::new("lost-entries");
    let mut load = machine.load();
    let disk = two_rounds(
        &mut machine,
        &mut load,
        SyncBehaviour::Ignores(|name| name.ends_with(".data")),
    );
    drop(load);
    let mounted = machine.mount(disk);
    let server = machine
        .options
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    let damage = admin::get(server.admin(), "/api/v1/damage").expect("the admin port");
    assert!(
        damage.0 == 200 && damage.1.contains("segment"),
        "{damage:?}, the server's log:\n{}",
        server.log()
    );
    server.kill().expect("a running server can be killed");
    mounted.unmount().expect("nothing uses the mount any more");
}
