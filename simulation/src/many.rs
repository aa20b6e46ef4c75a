//! Many seeds, each in a process of its own: nothing of one life is left for the next.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::single::root_of;

/// A process that takes longer hangs: a thread of it spins.
const PROCESS_MAX: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Runs all seeds; whether all promises were kept.
pub fn run(options: &Options) -> std::io::Result<bool> {
    let program = std::env::current_exe()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(options.first);
    let end = options.first.saturating_add(options.seeds);
    let failures = Mutex::new(Vec::new());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.unwrap_or(processors).max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let outcome = run_one(&program, seed, options);
                    let (is_good, words) = match outcome {
                        Ok(outcome) => outcome,
                        Err(error) => (false, format!("seed {seed} could not be run: {error}\n")),
                    };
                    print!("{words}");
                    if !is_good && let Ok(mut failures) = failures.lock() {
                        failures.push(seed);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort_unstable();
    println!(
        "{} seeds from {} in {:.0} s: {} failed",
        options.seeds,
        options.first,
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    for seed in &failures {
        println!("again, told as it happens: make simulate SEED={seed}");
    }
    Ok(failures.is_empty())
}

/// Runs one seed in a process; whether it was good, and what it said.
fn run_one(
    program: &std::path::Path,
    seed: u64,
    options: &Options,
) -> std::io::Result<(bool, String)> {
    let mut command = Command::new(program);
    command.args(["--quiet", "--seed", &seed.to_string()]);
    if let Some(defect) = options.defect {
        let value = clap::ValueEnum::to_possible_value(&defect);
        let name = value.map_or_else(String::new, |value| value.get_name().to_owned());
        command.args(["--defect", &name]);
    }
    let output = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let deadline = Instant::now() + PROCESS_MAX;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(LOOK_PERIOD);
    };
    let root = root_of(child.id());
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    let mut words = read_from_start(output)?;
    let is_good = status.is_some_and(|status| status.success());
    match status {
        None => words.push_str(&format!("seed {seed}: FAILED: it does not end\n")),
        Some(status) if !is_good => {
            words.push_str(&format!(
                "seed {seed}: FAILED: the process ended with {status}\n"
            ));
        }
        Some(_) => {}
    }
    Ok((is_good, words))
}

fn read_from_start(mut output: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
