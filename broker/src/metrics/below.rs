//! The part of a scrape that the floors below tell: the log and the shards.

use flotilla_cluster::{ClusterMetrics, GroupMetrics};

use crate::metrics::scrape::{COUNTER, GAUGE};
use crate::metrics::text::TextWriter;

pub(super) fn log(writer: &mut TextWriter, metrics: &ClusterMetrics) {
    let log = &metrics.log;
    let append = &log.append;
    writer.histogram_us(
        "flotilla_log_append_seconds",
        "From handing entries to the log until they are durable.",
        append.bounds_us,
        &append.counts,
        append.sum_us,
    );
    let sync = &log.sync;
    writer.histogram_us(
        "flotilla_log_sync_seconds",
        "One sync of the log's open segment.",
        sync.bounds_us,
        &sync.counts,
        sync.sum_us,
    );
    let families = [
        (
            "flotilla_log_rounds_total",
            COUNTER,
            "Rounds of write and sync.",
            log.rounds,
        ),
        (
            "flotilla_log_entries_total",
            COUNTER,
            "Entries written.",
            log.entries,
        ),
        (
            "flotilla_log_bytes_total",
            COUNTER,
            "Bytes written.",
            log.bytes,
        ),
        (
            "flotilla_log_segments",
            GAUGE,
            "Segment files.",
            log.segments,
        ),
        (
            "flotilla_log_segment_bytes",
            GAUGE,
            "Bytes in segment files.",
            log.segment_bytes,
        ),
        (
            "flotilla_log_live_bytes",
            GAUGE,
            "Bytes in segments still referred to.",
            log.live_bytes,
        ),
        (
            "flotilla_log_index_bytes",
            GAUGE,
            "Bytes of the index and state on disk.",
            log.index_bytes,
        ),
        (
            "flotilla_disk_bytes",
            GAUGE,
            "Bytes on disk: segments, index and state.",
            log.segment_bytes + log.index_bytes,
        ),
        (
            "flotilla_log_queue_bytes",
            GAUGE,
            "Bytes that wait to be written.",
            log.queue_bytes,
        ),
        (
            "flotilla_log_queue_operations",
            GAUGE,
            "Operations that wait to be written.",
            log.queue_ops,
        ),
        (
            "flotilla_log_index_backlog",
            GAUGE,
            "Durable frames not indexed yet.",
            log.index_backlog,
        ),
        (
            "flotilla_log_tail_hits_total",
            COUNTER,
            "Reads answered from memory.",
            log.tail_hits,
        ),
        (
            "flotilla_log_tail_misses_total",
            COUNTER,
            "Reads that went to disk.",
            log.tail_misses,
        ),
        (
            "flotilla_log_tail_bytes",
            GAUGE,
            "Bytes of entries kept in memory.",
            log.tail_bytes,
        ),
        (
            "flotilla_log_segments_dropped_total",
            COUNTER,
            "Segments removed because nothing in them is needed.",
            log.segments_dropped,
        ),
        (
            "flotilla_log_segments_compacted_total",
            COUNTER,
            "Segments rewritten without their dead messages.",
            log.segments_compacted,
        ),
        (
            "flotilla_log_damaged_reads_total",
            COUNTER,
            "Reads that met damaged bytes.",
            log.damaged_reads,
        ),
    ];
    for (name, kind, help, value) in families {
        writer.single(name, kind, help, value);
    }
}

pub(super) fn groups(writer: &mut TextWriter, groups: &[GroupMetrics]) {
    type Pick = fn(&GroupMetrics) -> u64;
    let families: [(&str, &str, &str, Pick); 11] = [
        (
            "flotilla_shard_proposals_total",
            COUNTER,
            "Batches proposed.",
            |group| group.proposals,
        ),
        (
            "flotilla_shard_commands_total",
            COUNTER,
            "Commands proposed.",
            |group| group.commands,
        ),
        (
            "flotilla_shard_entries_applied_total",
            COUNTER,
            "Entries applied.",
            |group| group.entries_applied,
        ),
        (
            "flotilla_shard_ticks_total",
            COUNTER,
            "Entries proposed for a due timer.",
            |group| group.ticks,
        ),
        (
            "flotilla_shard_checkpoints_total",
            COUNTER,
            "Checkpoints written.",
            |group| group.checkpoints,
        ),
        (
            "flotilla_shard_records_dirty_bytes",
            GAUGE,
            "Changed records in memory.",
            |group| group.records_dirty_bytes,
        ),
        (
            "flotilla_shard_records_clean_bytes",
            GAUGE,
            "Stored records in memory.",
            |group| group.records_clean_bytes,
        ),
        (
            "flotilla_shard_records_loaded_total",
            COUNTER,
            "Records read back.",
            |group| group.records_loaded,
        ),
        (
            "flotilla_shard_forwarded_total",
            COUNTER,
            "Batches that other nodes brought to this one as the leader.",
            |group| group.forwarded_here,
        ),
        (
            "flotilla_shard_outbox_sent_total",
            COUNTER,
            "Messages moved to other shards.",
            |group| group.outbox_sent,
        ),
        (
            "flotilla_shard_outbox_dropped_total",
            COUNTER,
            "Damaged messages that could not be moved to other shards.",
            |group| group.outbox_dropped,
        ),
    ];
    for (family, kind, help, pick) in families {
        writer.family(family, kind, help);
        for group in groups {
            let shard = group.group.to_string();
            writer.sample(family, &[("shard", &shard)], pick(group));
        }
    }
}
