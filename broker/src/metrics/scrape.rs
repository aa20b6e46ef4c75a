//! The text of a scrape: the counters, the last sample, and what the floors below tell.

use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_cluster::{ClusterMetrics, GroupMetrics};
use flotilla_model::name::Name;
use prometheus::TextEncoder;

use crate::core::Core;
use crate::metrics::sample::{Sample, lag};
use crate::metrics::text::TextWriter;
use crate::metrics::{Metrics, kind_label};

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// Everything in the Prometheus text format.
pub(crate) fn text(core: &Core) -> String {
    let mut text = core.metrics.counters_text();
    let mut writer = TextWriter::default();
    named(&mut writer, &core.metrics);
    live(&mut writer, core);
    sampled(&mut writer, &core.sample.get());
    match core.cluster.metrics() {
        Ok(metrics) => {
            log(&mut writer, &metrics);
            groups(&mut writer, &metrics.groups);
        }
        // A closed log has no numbers any more; the rest is still worth showing.
        Err(error) => tracing::debug!(%error, "no metrics of the log"),
    }
    text.push_str(&writer.finish());
    text
}

impl Metrics {
    fn counters_text(&self) -> String {
        let families = self.0.registry.gather();
        TextEncoder::new()
            .encode_to_string(&families)
            .unwrap_or_else(|error| {
                tracing::error!(%error, "counters cannot be written as text");
                String::new()
            })
    }
}

fn name_labels(name: &Name) -> [(&'static str, &str); 3] {
    [
        ("kind", kind_label(name.kind())),
        ("namespace", name.namespace()),
        ("name", name.text()),
    ]
}

fn named(writer: &mut TextWriter, metrics: &Metrics) {
    let series = metrics.0.named.all();
    type Pick = fn(&super::names::Series) -> &AtomicU64;
    let families: [(&str, &str, Pick); 4] = [
        (
            "flotilla_name_messages_in_total",
            "Messages accepted, by name.",
            |series| &series.messages_in,
        ),
        (
            "flotilla_name_bytes_in_total",
            "Body bytes of messages accepted, by name.",
            |series| &series.bytes_in,
        ),
        (
            "flotilla_name_messages_out_total",
            "Messages handed to consumers, by name.",
            |series| &series.messages_out,
        ),
        (
            "flotilla_name_bytes_out_total",
            "Body bytes of messages handed to consumers, by name.",
            |series| &series.bytes_out,
        ),
    ];
    for (family, help, pick) in families {
        writer.family(family, COUNTER, help);
        for (name, series) in &series {
            let value = pick(series).load(Ordering::Relaxed);
            writer.sample(family, &name_labels(name), value);
        }
    }
}

fn live(writer: &mut TextWriter, core: &Core) {
    let family = "flotilla_subscribers";
    writer.family(
        family,
        GAUGE,
        "Subscriptions of topics, waiting receivers of queues.",
    );
    writer.sample(
        family,
        &[("kind", "topic")],
        core.topics.subscribers_total(),
    );
    writer.sample(
        family,
        &[("kind", "queue")],
        core.queues.subscribers_total(),
    );
    let family = "flotilla_actors";
    writer.family(family, GAUGE, "Live actors of single names.");
    writer.sample(family, &[("kind", "topic")], core.topics.len());
    writer.sample(family, &[("kind", "queue")], core.queues.len());
    let family = "flotilla_mailbox_depth";
    writer.family(
        family,
        GAUGE,
        "Submissions that wait for the shard's actor.",
    );
    for (place, ingress) in core.ingresses.iter().enumerate() {
        let shard = (place + 1).to_string();
        writer.sample(
            family,
            &[("actor", "shard"), ("shard", &shard)],
            ingress.depth(),
        );
    }
    let health = core.cluster.health();
    writer.single(
        "flotilla_log_damaged_ranges",
        GAUGE,
        "Ranges of the log that cannot be read.",
        health.damage.len(),
    );
    writer.single(
        "flotilla_ready",
        GAUGE,
        "1 if the node takes requests.",
        u8::from(health.ready() && !core.is_closing()),
    );
}

fn sampled(writer: &mut TextWriter, sample: &Sample) {
    queues(writer, sample);
    topics(writer, sample);
    let family = "flotilla_names";
    writer.family(family, GAUGE, "Topics and queues that exist.");
    let sum = |pick: fn(&flotilla_model::query::ShardStats) -> u64| -> u64 {
        sample.shards.iter().map(|(_, stats)| pick(stats)).sum()
    };
    writer.sample(family, &[("kind", "topic")], sum(|stats| stats.topics));
    writer.sample(family, &[("kind", "queue")], sum(|stats| stats.queues));
}

fn queues(writer: &mut TextWriter, sample: &Sample) {
    let family = "flotilla_queue_messages";
    writer.family(
        family,
        GAUGE,
        "Messages in a queue by state: available is its depth.",
    );
    for (name, info) in &sample.queues {
        for (state, value) in [
            ("available", info.available),
            ("leased", info.leased),
            ("delayed", info.delayed),
        ] {
            let [_, namespace, text] = name_labels(name);
            writer.sample(family, &[namespace, text, ("state", state)], value);
        }
    }
    type Pick = fn(&flotilla_model::query::QueueInfo) -> u64;
    let families: [(&str, &str, &str, Pick); 4] = [
        (
            "flotilla_queue_bytes",
            GAUGE,
            "Encoded bytes in a queue.",
            |info| info.bytes,
        ),
        (
            "flotilla_queue_dead_lettered_total",
            COUNTER,
            "Messages moved to dead letters, or discarded in their place.",
            |info| info.dead_lettered_total,
        ),
        (
            "flotilla_queue_expired_total",
            COUNTER,
            "Messages that expired.",
            |info| info.expired_total,
        ),
        (
            "flotilla_queue_delivered_total",
            COUNTER,
            "Deliveries, repeats included.",
            |info| info.delivered_total,
        ),
    ];
    for (family, kind, help, pick) in families {
        writer.family(family, kind, help);
        for (name, info) in &sample.queues {
            let [_, namespace, text] = name_labels(name);
            writer.sample(family, &[namespace, text], pick(info));
        }
    }
}

fn topics(writer: &mut TextWriter, sample: &Sample) {
    let family = "flotilla_topic_messages";
    writer.family(family, GAUGE, "Messages kept by a topic.");
    for (name, info, _) in &sample.topics {
        let [_, namespace, text] = name_labels(name);
        let kept = info.messages();
        writer.sample(family, &[namespace, text], kept);
    }
    let family = "flotilla_topic_bytes";
    writer.family(family, GAUGE, "Encoded bytes kept by a topic.");
    for (name, info, _) in &sample.topics {
        let [_, namespace, text] = name_labels(name);
        writer.sample(family, &[namespace, text], info.bytes);
    }
    let family = "flotilla_group_lag_messages";
    writer.family(
        family,
        GAUGE,
        "Messages that a durable cursor has not finished.",
    );
    for (name, info, cursors) in &sample.topics {
        for cursor in cursors {
            let [_, namespace, text] = name_labels(name);
            let labels = [namespace, text, ("group", cursor.name.as_ref())];
            writer.sample(family, &labels, lag(info, cursor));
        }
    }
}

fn log(writer: &mut TextWriter, metrics: &ClusterMetrics) {
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

fn groups(writer: &mut TextWriter, groups: &[GroupMetrics]) {
    type Pick = fn(&GroupMetrics) -> u64;
    let families: [(&str, &str, &str, Pick); 10] = [
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
