//! Builds many topic index records through apply, under the configured memory bounds, and prints what
//! that took: resident memory, the longest pause that a checkpoint made, and the time of a restart.
//!
//! `cargo run --release -p flotilla-cluster --example index_records -- [records] [directory]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_cluster::{Cluster, ClusterConfig, ClusterError};
use flotilla_model::command::Command;
use flotilla_model::name::Name;

const RECORDS: u64 = 2_000_000;
/// Commands of one entry: each makes one index record.
const BATCH: u64 = 4_000;
const TOPICS: u64 = 1_000;
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = match arguments.next() {
        Some(text) => text.parse()?,
        None => RECORDS,
    };
    let given: Option<PathBuf> = arguments.next().map(PathBuf::from);
    let dir = given.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("flotilla-index-{}", std::process::id()))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(records, dir.clone(), runtime.handle()))?;
    drop(runtime);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn config(dir: PathBuf) -> ClusterConfig {
    let mut config = ClusterConfig::new(dir);
    // One shard, so that all records are one state.
    config.shards = 1;
    config
}

async fn run(
    records: u64,
    dir: PathBuf,
    runtime: &tokio::runtime::Handle,
) -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start(config(dir.clone()), runtime.clone()).await?;
    println!("resident at start        {:>8} MB", resident_mb()?);
    let topics: Vec<Name> = (0..TOPICS)
        .map(|number| Name::topic(&format!("topic-{number}")))
        .collect::<Result<_, _>>()?;
    let begin = Instant::now();
    let mut made = 0;
    let mut resident_max = 0;
    let mut slowest = Duration::ZERO;
    while made < records {
        let count = BATCH.min(records - made);
        let sent = Instant::now();
        propose(&cluster, &topics, made, count).await?;
        slowest = slowest.max(sent.elapsed());
        made += count;
        if made % (BATCH * 50) == 0 {
            resident_max = resident_max.max(resident_mb()?);
        }
    }
    let elapsed = begin.elapsed();
    let group = cluster.metrics()?.groups[1].clone();
    println!("records                  {records:>8} in {elapsed:.1?}");
    println!(
        "records per second       {:>8.0}",
        records as f64 / elapsed.as_secs_f64()
    );
    println!("resident at most         {resident_max:>8} MB");
    println!("slowest batch            {slowest:>8.1?}");
    println!("checkpoints              {:>8}", group.checkpoints);
    println!(
        "longest pause of apply   {:>8} us",
        group.apply_pause_max_us
    );
    println!("records loaded           {:>8}", group.records_loaded);
    println!(
        "dirty / clean            {} / {} MB",
        group.records_dirty_bytes >> 20,
        group.records_clean_bytes >> 20
    );
    cluster.shutdown(Instant::now() + DEADLINE).await?;
    drop(cluster);
    let begin = Instant::now();
    let cluster = Cluster::start(config(dir), runtime.clone()).await?;
    println!("restart                  {:>8.1?}", begin.elapsed());
    println!("resident after restart   {:>8} MB", resident_mb()?);
    cluster.shutdown(Instant::now() + DEADLINE).await?;
    Ok(())
}

async fn propose(
    cluster: &Cluster,
    topics: &[Name],
    from: u64,
    count: u64,
) -> Result<(), ClusterError> {
    let commands = (from..from + count)
        .map(|number| Command::Append {
            topic: topics[(number % TOPICS) as usize].clone(),
            count: 1,
            dedup: Vec::new(),
        })
        .collect();
    let slots = (0..count).map(|_| Bytes::from_static(b"x")).collect();
    cluster.shards()[0]
        .propose(commands, slots, Instant::now() + DEADLINE)
        .await?;
    Ok(())
}

fn resident_mb() -> Result<u64, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0);
    Ok(kib / 1_024)
}
