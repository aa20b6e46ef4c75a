//! The text of a scrape: the counters, the last sample, and what the floors below tell.

use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_model::name::Name;
use prometheus::TextEncoder;

use crate::core::Core;
use crate::metrics::sample::{Sample, lag};
use crate::metrics::text::TextWriter;
use crate::metrics::{Metrics, below, cluster, kind_label};

pub(super) const GAUGE: &str = "gauge";
pub(super) const COUNTER: &str = "counter";

/// Everything in the Prometheus text format.
pub(crate) fn text(core: &Core) -> String {
    let mut text = core.metrics.counters_text();
    let mut writer = TextWriter::default();
    named(&mut writer, &core.metrics);
    live(&mut writer, core);
    sampled(&mut writer, &core.sample.get());
    match core.cluster.metrics() {
        Ok(metrics) => {
            below::log(&mut writer, &metrics);
            below::groups(&mut writer, &metrics.groups);
            cluster::links(&mut writer, &metrics.links);
        }
        // A closed log has no numbers any more; the rest is still worth showing.
        Err(error) => tracing::debug!(%error, "no metrics of the log"),
    }
    cluster::write(&mut writer, &core.cluster);
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
