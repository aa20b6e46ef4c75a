//! Prints the figures of one node: rates through the facade, memory, start-up and idle cost.
//!
//! `cargo run --release -p flotilla-broker --example figures [GB] [DIRECTORY]`
//!
//! First it measures rates. Then it writes GB (default 1) of 1 KiB messages, each acknowledged after
//! its sync, reads them all back, starts again over what is stored, and looks at the idle node. Each
//! part runs in a process of its own, so that none is charged for the memory of another.

mod load;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use flotilla_broker::{Broker, BrokerConfig};
use flotilla_cluster::{Cluster, ClusterConfig};

use crate::process::{cpu_time, highest_resident_mb, resident_mb};

/// All caches of the node together.
const CACHE_BYTES: u64 = 256 << 20;
const IDLE_SECONDS: u64 = 10;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_else(|| "1".to_owned());
    let second = arguments.next();
    if let Some(part) = Part::parse(&first) {
        let directory = second.ok_or("the directory is missing")?;
        let gigabytes = arguments.next().ok_or("the size is missing")?.parse()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        return runtime.block_on(part.run(Path::new(&directory), gigabytes));
    }
    let gigabytes: f64 = first.parse()?;
    let temporary = tempfile::tempdir()?;
    let directory = second.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    println!(
        "{} byte messages, acknowledged after sync, {} in flight, in-process",
        load::MESSAGE_BYTES,
        load::IN_FLIGHT
    );
    for (part, below) in [
        ("rates", "rates"),
        ("memory", "stored"),
        ("restart", "stored"),
    ] {
        println!();
        let below = directory.join(below);
        let status = Command::new(std::env::current_exe()?)
            .args([part.as_ref(), below.as_os_str()])
            .arg(gigabytes.to_string())
            .status()?;
        if !status.success() {
            return Err(format!("{part} failed: {status}").into());
        }
        if part != "memory" {
            std::fs::remove_dir_all(&below)?;
        }
    }
    Ok(())
}

enum Part {
    Rates,
    Memory,
    Restart,
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "rates" => Some(Self::Rates),
            "memory" => Some(Self::Memory),
            "restart" => Some(Self::Restart),
            _ => None,
        }
    }

    async fn run(self, directory: &Path, gigabytes: f64) -> Result<(), Failure> {
        match self {
            Self::Rates => rates(directory).await,
            Self::Memory => memory(directory, gigabytes).await,
            Self::Restart => restart(directory, gigabytes).await,
        }
    }
}

async fn rates(directory: &Path) -> Result<(), Failure> {
    let node = Node::start(directory).await?;
    for batch in [1, 64, 256] {
        load::publish_rate(&node.broker, batch).await?;
    }
    for batch in [1, 64, 256] {
        load::enqueue_rate(&node.broker, batch).await?;
    }
    load::receive_rate(&node.broker).await?;
    node.stop().await
}

async fn memory(directory: &Path, gigabytes: f64) -> Result<(), Failure> {
    let node = Node::start(directory).await?;
    println!("new node: {:.0} MB resident", resident_mb()?);
    let count = (gigabytes * 1e9 / load::MESSAGE_BYTES as f64) as u64;
    load::write(&node.broker, count).await?;
    println!("  {:.0} MB resident after writing", resident_mb()?);
    load::read(&node.broker, count).await?;
    println!("  {:.0} MB resident after reading", resident_mb()?);
    println!("highest resident: {:.0} MB", highest_resident_mb()?);
    node.stop().await
}

async fn restart(directory: &Path, gigabytes: f64) -> Result<(), Failure> {
    let before = Instant::now();
    let node = Node::start(directory).await?;
    println!(
        "start-up with {gigabytes} GB stored: {:.2?}",
        before.elapsed()
    );
    // What the start left to do is not idleness.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = cpu_time()?;
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS)).await;
    let used = (cpu_time()? - before).as_secs_f64();
    println!(
        "idle for {IDLE_SECONDS} s: {:.2} % of a core, {:.0} MB resident",
        100.0 * used / IDLE_SECONDS as f64,
        resident_mb()?
    );
    node.stop().await
}

struct Node {
    cluster: Cluster,
    broker: Broker,
}

impl Node {
    async fn start(directory: &Path) -> Result<Self, Failure> {
        let mut config = ClusterConfig::new(directory);
        config.log.index_cache_bytes = CACHE_BYTES / 2;
        config.log.tail_cache_bytes = (CACHE_BYTES / 4) as _;
        config.state_cache_bytes = CACHE_BYTES / 4;
        let cluster = Cluster::start(config, tokio::runtime::Handle::current()).await?;
        let broker = Broker::start(cluster.clone(), BrokerConfig::default()).await?;
        Ok(Self { cluster, broker })
    }

    async fn stop(self) -> Result<(), Failure> {
        self.broker.shutdown().await;
        let deadline = Instant::now() + Duration::from_secs(60);
        self.cluster.shutdown(deadline).await?;
        Ok(())
    }
}
