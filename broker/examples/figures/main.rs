//! Prints the figures of one node: rates through the facade, memory, start-up and idle cost.
//!
//! `cargo run --release -p flotilla-broker --example figures [GB] [DIRECTORY]`
//!
//! First it measures rates. Then it writes GB (default 1) of 1 KiB messages, each acknowledged after
//! its sync, reads them all back, starts again over what is stored, and looks at the idle node.

mod load;
mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flotilla_broker::{Broker, BrokerConfig};
use flotilla_cluster::{Cluster, ClusterConfig};

use crate::process::{cpu_time, forget_highest_resident, highest_resident_mb, resident_mb};

/// All caches of the node together.
const CACHE_BYTES: u64 = 256 << 20;
const IDLE_SECONDS: u64 = 10;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let gigabytes: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let directory = arguments.next().map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let temporary = tempfile::tempdir()?;
    let directory = directory.unwrap_or_else(|| temporary.path().to_owned());
    runtime.block_on(run(&directory, gigabytes))
}

async fn run(directory: &Path, gigabytes: f64) -> Result<(), Failure> {
    println!(
        "{} byte messages, acknowledged after sync, {} in flight, in-process",
        load::MESSAGE_BYTES,
        load::IN_FLIGHT
    );
    let rates = directory.join("rates");
    let node = Node::start(&rates).await?;
    println!("empty node: {:.0} MB resident", resident_mb()?);
    for batch in [1, 64, 256] {
        load::publish_rate(&node.broker, batch).await?;
    }
    for batch in [1, 64, 256] {
        load::enqueue_rate(&node.broker, batch).await?;
    }
    load::receive_rate(&node.broker).await?;
    node.stop().await?;
    std::fs::remove_dir_all(&rates)?;

    println!();
    forget_highest_resident()?;
    let stored = directory.join("stored");
    let node = Node::start(&stored).await?;
    let count = (gigabytes * 1e9 / load::MESSAGE_BYTES as f64) as u64;
    load::write(&node.broker, count).await?;
    println!("  {:.0} MB resident after writing", resident_mb()?);
    load::read(&node.broker, count).await?;
    println!("  {:.0} MB resident after reading", resident_mb()?);
    println!("highest resident memory: {:.0} MB", highest_resident_mb()?);
    node.stop().await?;

    println!();
    let before = Instant::now();
    let node = Node::start(&stored).await?;
    println!(
        "start-up with {gigabytes} GB stored: {:.2?}",
        before.elapsed()
    );
    idle().await?;
    node.stop().await
}

/// What an idle node costs. In a fresh process memory would be lower: this one has had a load before.
async fn idle() -> Result<(), Failure> {
    // What the start left to do is not idleness.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cpu_time()?;
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS)).await;
    let used = (cpu_time()? - before).as_secs_f64();
    println!(
        "idle for {IDLE_SECONDS} s: {:.2} % of a core, {:.0} MB resident",
        100.0 * used / IDLE_SECONDS as f64,
        resident_mb()?
    );
    Ok(())
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
