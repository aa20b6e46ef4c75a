//! A regular look at what the shards hold, for gauges that cannot be counted on the way.
//!
//! Scrapes must be answered at once and cost little, so they show the last sample. It is taken again
//! only after something changed: an idle node does not even read its own records.

use std::sync::{Arc, Weak};
use std::time::Duration;

use flotilla_cluster::Shard;
use flotilla_model::name::{Kind, Name};
use flotilla_model::query::{self, CursorInfo, QueueInfo, ShardStats, TopicInfo};
use parking_lot::Mutex;

use crate::api::error::BrokerError;
use crate::core::Core;

/// Between samples, at least.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Cursors of one topic that are shown.
const CURSORS_PER_TOPIC_MAX: usize = 20;

/// What the shards held when it was taken.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    pub shards: Vec<(u32, ShardStats)>,
    pub queues: Vec<(Name, QueueInfo)>,
    pub topics: Vec<(Name, TopicInfo, Vec<CursorInfo>)>,
}

/// The last sample.
#[derive(Default)]
pub(crate) struct LastSample(Mutex<Arc<Sample>>);

impl LastSample {
    pub fn get(&self) -> Arc<Sample> {
        Arc::clone(&self.0.lock())
    }

    fn set(&self, sample: Sample) {
        *self.0.lock() = Arc::new(sample);
    }
}

/// Messages of a topic that a cursor has not finished.
pub(crate) fn lag(topic: &TopicInfo, cursor: &CursorInfo) -> u64 {
    let low_water = cursor.low_water.max(topic.first);
    let settled: u64 = cursor
        .settled
        .iter()
        .map(|(from, to)| (to.0 + 1).saturating_sub(from.0.max(low_water.0)))
        .sum();
    let above = topic.next.0.saturating_sub(low_water.0);
    above.saturating_sub(settled)
}

/// Samples until the broker is gone.
pub(crate) async fn run(core: Weak<Core>) {
    let mut seen = 0;
    loop {
        match core.upgrade() {
            Some(core) if !core.is_closing() => {
                let activity = core.metrics.activity();
                if activity != seen {
                    seen = activity;
                    match take(&core).await {
                        Ok(sample) => core.sample.set(sample),
                        Err(error) => tracing::debug!(%error, "no sample for metrics"),
                    }
                }
            }
            _ => return,
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

async fn take(core: &Core) -> Result<Sample, BrokerError> {
    let mut sample = Sample::default();
    // What other nodes lead is shown there: a sum over all nodes counts nothing twice.
    let led = core.cluster.shards().iter();
    for shard in led.filter(|shard| core.serves(shard)) {
        let stats = shard.read(|records| query::shard_stats(records)).await?;
        sample.shards.push((shard.id().0, stats));
    }
    for name in core.metrics.named() {
        let (shard, _) = core.shard_for(&name);
        if !core.serves(shard) {
            continue;
        }
        match name.kind() {
            Kind::Queue => {
                let found = shard
                    .read(|records| query::queue_info(records, &name))
                    .await?;
                sample.queues.extend(found.map(|info| (name, info)));
            }
            Kind::Topic => sample.topics.extend(topic(shard, name).await?),
            Kind::Signal | Kind::Request | Kind::Command => {}
        }
    }
    Ok(sample)
}

async fn topic(
    shard: &Shard,
    name: Name,
) -> Result<Option<(Name, TopicInfo, Vec<CursorInfo>)>, BrokerError> {
    let found = shard
        .read(|records| {
            let Some(info) = query::topic_info(records, &name)? else {
                return Ok(None);
            };
            let cursors = query::cursors(records, &name, None, CURSORS_PER_TOPIC_MAX)?;
            Ok(Some((info, cursors)))
        })
        .await?;
    Ok(found.map(|(info, cursors)| (name, info, cursors)))
}
