//! Counters and latency histograms of the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds; one more bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, elapsed: Duration) {
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < elapsed_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(elapsed_us, Ordering::Relaxed);
    }

    fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds_us: &LATENCY_BOUNDS_US,
            counts: self
                .buckets
                .iter()
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// Counts per bucket, not cumulative; the last one has no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    pub bounds_us: &'static [u64],
    pub counts: Vec<u64>,
    pub sum_us: u64,
}

#[derive(Default)]
pub(crate) struct Metrics {
    pub append: Histogram,
    pub sync: Histogram,
    pub rounds: AtomicU64,
    pub entries: AtomicU64,
    pub bytes: AtomicU64,
    pub tail_hits: AtomicU64,
    pub tail_misses: AtomicU64,
    pub segments_dropped: AtomicU64,
    pub segments_compacted: AtomicU64,
    pub checkpoints: AtomicU64,
    pub damaged_reads: AtomicU64,
}

/// The state of the log's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMetrics {
    /// From the call of `append` to its completion.
    pub append: HistogramSnapshot,
    pub sync: HistogramSnapshot,
    pub rounds: u64,
    pub entries: u64,
    /// Frame bytes written to segments.
    pub bytes: u64,
    pub tail_hits: u64,
    pub tail_misses: u64,
    pub tail_bytes: u64,
    pub segments: u64,
    pub segments_dropped: u64,
    pub segments_compacted: u64,
    pub segment_bytes: u64,
    pub live_bytes: u64,
    pub index_bytes: u64,
    pub queue_ops: u64,
    pub queue_bytes: u64,
    /// Frames that are durable but not in the index yet.
    pub index_backlog: u64,
    pub checkpoints: u64,
    pub damaged_ranges: u64,
    pub damaged_reads: u64,
}

/// What the log measures itself at the time of the snapshot.
#[derive(Default)]
pub(crate) struct Gauges {
    pub tail_bytes: u64,
    pub segments: u64,
    pub segment_bytes: u64,
    pub live_bytes: u64,
    pub index_bytes: u64,
    pub queue_ops: u64,
    pub queue_bytes: u64,
    pub index_backlog: u64,
    pub damaged_ranges: u64,
}

impl Metrics {
    pub(crate) fn snapshot(&self, gauges: Gauges) -> LogMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogMetrics {
            append: self.append.snapshot(),
            sync: self.sync.snapshot(),
            rounds: load(&self.rounds),
            entries: load(&self.entries),
            bytes: load(&self.bytes),
            tail_hits: load(&self.tail_hits),
            tail_misses: load(&self.tail_misses),
            tail_bytes: gauges.tail_bytes,
            segments: gauges.segments,
            segments_dropped: load(&self.segments_dropped),
            segments_compacted: load(&self.segments_compacted),
            segment_bytes: gauges.segment_bytes,
            live_bytes: gauges.live_bytes,
            index_bytes: gauges.index_bytes,
            queue_ops: gauges.queue_ops,
            queue_bytes: gauges.queue_bytes,
            index_backlog: gauges.index_backlog,
            checkpoints: load(&self.checkpoints),
            damaged_ranges: gauges.damaged_ranges,
            damaged_reads: load(&self.damaged_reads),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
