//! The brokers that people would pick instead, each with the client library that its users would take.
//!
//! `scripts/bench-deps.sh` installs them. A run starts its own instances: on free ports of the loopback
//! interface, with data, configuration and logs in the folder of the run. Each one has the settings that
//! its documentation recommends for throughput at the durability that its name says.

use crate::BenchError;
use crate::target::Competitor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

mod fleet;
mod nats;
mod pending;
mod postgres;
mod rabbitmq;
mod redis;

/// What to do when one is missing.
const HINT: &str = "run scripts/bench-deps.sh";

/// All of them, in all configurations.
pub fn all() -> Vec<Arc<dyn Competitor>> {
    vec![
        Arc::new(nats::Nats::new(nats::Sync::Default)),
        Arc::new(nats::Nats::new(nats::Sync::Always)),
        Arc::new(redis::Redis::new(redis::Sync::Always)),
        Arc::new(redis::Redis::new(redis::Sync::EverySecond)),
        Arc::new(rabbitmq::RabbitMq::new(rabbitmq::Kind::Quorum)),
        Arc::new(rabbitmq::RabbitMq::new(rabbitmq::Kind::Stream)),
        Arc::new(postgres::Postgres),
    ]
}

/// What a program prints about its version, without what is around it.
fn version(
    what: &str,
    program: &Path,
    argument: &str,
    find: impl Fn(&str) -> Option<String>,
) -> Result<String, BenchError> {
    let not_installed = || BenchError::NotInstalled {
        what: what.to_owned(),
        hint: HINT,
    };
    if !program.exists() {
        return Err(not_installed());
    }
    let output = Command::new(program)
        .arg(argument)
        .output()
        .map_err(BenchError::io(format!("run {}", program.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    find(&text).ok_or_else(|| BenchError::Refused {
        doing: format!("{} {argument}", program.display()),
        text: text.trim().to_owned(),
    })
}

/// Makes a folder in the folder of a run.
fn make_directory(directory: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let path = directory.join(name);
    std::fs::create_dir_all(&path).map_err(BenchError::io(format!("make {}", path.display())))?;
    Ok(path)
}

/// Writes a configuration file into the folder of a run.
fn write_file(directory: &Path, name: &str, text: &str) -> Result<PathBuf, BenchError> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(BenchError::io(format!("write {}", path.display())))?;
    Ok(path)
}

/// Sums up what is ready of something that is ready one by one: the next one of it, if it is there now.
fn next_ready<S: futures::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    use futures::{FutureExt, StreamExt};
    stream.next().now_or_never().flatten()
}

#[cfg(test)]
mod tests;
