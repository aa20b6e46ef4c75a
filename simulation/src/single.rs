//! One seed, in this process, which ends with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flotilla_tests::history::check::figures;

use crate::machine::{self, files};
use crate::options::Defect;
use crate::scenario;
use crate::world::World;

/// Virtual time that no scenario needs.
const TIME_MAX: Duration = Duration::from_secs(900);
/// Files in memory, where there is such a place.
const MEMORY_DIR: &str = "/dev/shm";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Where a process that runs a seed has its files.
pub fn root_of(process: u32) -> PathBuf {
    let memory = Path::new(MEMORY_DIR);
    let parent = match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    };
    parent.join(format!("flotilla-simulation-{process}"))
}

/// Runs a seed and ends the process: with code 0 if all promises were kept.
pub fn run(seed: u64, defect: Option<Defect>, prints: bool) -> ! {
    stay_on_one_processor();
    let root = root_of(std::process::id());
    notice_panics();
    machine::begin(seed, TIME_MAX);
    if prints {
        log_as_asked();
    }
    let code = match begin(seed, &root, defect, prints) {
        Ok(world) => verdict(seed, &world),
        Err(error) => {
            eprintln!("seed {seed} could not be run: {error}");
            2
        }
    };
    if let Err(error) = std::fs::remove_dir_all(&root) {
        eprintln!("{} is left: {error}", root.display());
    }
    let _ = std::io::stdout().flush();
    // The threads of the nodes have not ended, and need not.
    // SAFETY: it takes any code and does not return.
    unsafe { libc::_exit(code) }
}

fn begin(seed: u64, root: &Path, defect: Option<Defect>, prints: bool) -> std::io::Result<World> {
    files::follow(root, defect == Some(Defect::NoSync))?;
    warm_up(root)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let world = runtime.block_on(scenario::run(seed, root, defect, prints));
    std::mem::forget(runtime);
    Ok(world)
}

/// sled's first batch of a process turns a lock on that is common to all databases, and spins until
/// nobody reads without it. In a simulation a reader that waits for something else never gets on while
/// another thread spins, so this is done before there are others.
fn warm_up(root: &Path) -> std::io::Result<()> {
    let db = sled::Config::new()
        .path(root.join("warm-up"))
        .flush_every_ms(None)
        .open()?;
    let mut batch = sled::Batch::default();
    batch.insert(b"key", b"value");
    db.apply_batch(batch)?;
    Ok(())
}

fn verdict(seed: u64, world: &World) -> i32 {
    let violations = world.violations();
    let panics = PANICS.load(Ordering::SeqCst);
    println!(
        "seed {seed}: {} simulated, {} switches, {}, digest {:016x}",
        seconds(machine::now()),
        machine::switches(),
        figures(&world.recorder().history()),
        machine::digest(),
    );
    for violation in &violations {
        println!("seed {seed}: VIOLATED: {violation}");
    }
    if panics > 0 {
        println!("seed {seed}: VIOLATED: {panics} threads or tasks panicked");
    }
    i32::from(!violations.is_empty() || panics > 0)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// What nodes log, as far as `RUST_LOG` asks for it.
fn log_as_asked() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time();
    // Nobody else has set one.
    let _ = log.try_init();
}

/// A panic in a task ends that task only: it must not go unseen.
fn notice_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // sled panics at damaged files, which is caught, and the files are made anew.
        let of_sled = panic
            .location()
            .is_some_and(|location| location.file().contains("/sled-"));
        if !of_sled {
            PANICS.fetch_add(1, Ordering::SeqCst);
            print(panic);
        }
    }));
}

/// Handing the baton on is quicker without another processor, and there is never work for two.
fn stay_on_one_processor() {
    // SAFETY: an all-zero set is an empty one; the calls only read and write it.
    unsafe {
        let processor = libc::sched_getcpu();
        if let Ok(processor) = usize::try_from(processor) {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(processor, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}
