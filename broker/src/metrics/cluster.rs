//! The part of a scrape that tells about the other nodes, and who leads what.

use flotilla_cluster::{Cluster, GroupHealth, LinkMetrics, MendingMetrics, Role};

use crate::metrics::scrape::{COUNTER, GAUGE};
use crate::metrics::text::TextWriter;

pub(super) fn write(writer: &mut TextWriter, cluster: &Cluster) {
    let nodes = cluster.nodes();
    let heard = nodes.iter().filter(|node| node.is_up).count();
    writer.single(
        "flotilla_nodes",
        GAUGE,
        "Nodes of the cluster.",
        nodes.len(),
    );
    writer.single(
        "flotilla_nodes_up",
        GAUGE,
        "Nodes of the cluster that this node hears, itself included.",
        heard,
    );
    groups(writer, &cluster.health().groups);
    mending(writer, &cluster.mending());
}

fn mending(writer: &mut TextWriter, mending: &MendingMetrics) {
    let families = [
        (
            "flotilla_replicas_damaged",
            GAUGE,
            "Replicas of this node that lack something they stored once.",
            mending.damaged,
        ),
        (
            "flotilla_replicas_mended_total",
            COUNTER,
            "Replicas of this node that were made anew from other nodes.",
            mending.mended,
        ),
        (
            "flotilla_replicas_mending_failed_total",
            COUNTER,
            "Attempts to make a replica of this node anew that failed.",
            mending.mending_failed,
        ),
        (
            "flotilla_read_elsewhere_total",
            COUNTER,
            "Reads of messages damaged on this node that another node answered.",
            mending.read_elsewhere,
        ),
        (
            "flotilla_verify_shards_total",
            COUNTER,
            "Shards whose replicas this node has compared.",
            mending.compared,
        ),
        (
            "flotilla_verify_last_seconds",
            GAUGE,
            "When this node last compared replicas, in seconds since 1970; 0 if never.",
            mending.compared_last_s,
        ),
        (
            "flotilla_verify_damaged_total",
            COUNTER,
            "Replicas that comparisons of this node found damaged.",
            mending.found_damaged,
        ),
        (
            "flotilla_verify_differing_total",
            COUNTER,
            "Replicas that comparisons of this node found to hold something else than the others.",
            mending.found_differing,
        ),
    ];
    for (name, kind, help, value) in families {
        writer.single(name, kind, help, value);
    }
}

pub(super) fn links(writer: &mut TextWriter, links: &LinkMetrics) {
    let families = [
        (
            "flotilla_link_received_bytes_total",
            "Bytes that came from other nodes.",
            links.received_bytes,
        ),
        (
            "flotilla_link_sent_bytes_total",
            "Bytes that went to other nodes.",
            links.sent_bytes,
        ),
        (
            "flotilla_snapshots_received_total",
            "Snapshots that came whole from other nodes.",
            links.snapshots_received,
        ),
        (
            "flotilla_snapshots_sent_total",
            "Snapshots that other nodes took whole.",
            links.snapshots_sent,
        ),
    ];
    for (name, help, value) in families {
        writer.single(name, COUNTER, help, value);
    }
}

fn groups(writer: &mut TextWriter, groups: &[GroupHealth]) {
    type Pick = fn(&GroupHealth) -> u64;
    let families: [(&str, &str, Pick); 6] = [
        (
            "flotilla_shard_is_leader",
            "1 if this node leads the shard and takes its commands.",
            |group| u64::from(group.role == Role::Leader),
        ),
        (
            "flotilla_shard_leader",
            "The id of the node that leads the shard, 0 if none is known.",
            |group| group.leader.map_or(0, |node| node.0),
        ),
        (
            "flotilla_shard_is_failed",
            "1 if the shard is out of service on this node.",
            |group| u64::from(group.role == Role::Failed || group.failed.is_some()),
        ),
        (
            "flotilla_shard_term",
            "Counts elections, as far as this node took part.",
            |group| group.term,
        ),
        (
            "flotilla_shard_log_index",
            "The newest entry in the shard's log on this node.",
            |group| group.last_log.unwrap_or(0),
        ),
        (
            "flotilla_shard_applied_index",
            "The newest entry that the shard's state has on this node.",
            |group| group.last_applied.unwrap_or(0),
        ),
    ];
    for (family, help, pick) in families {
        writer.family(family, GAUGE, help);
        for group in groups {
            let shard = group.group.to_string();
            writer.sample(family, &[("shard", &shard)], pick(group));
        }
    }
    let family = "flotilla_shard_clock_offset_seconds";
    writer.family(
        family,
        GAUGE,
        "How far this node's wall clock is ahead of the median of the shard's voters.",
    );
    for group in groups {
        let shard = group.group.to_string();
        let offset = group.clock_offset_us as f64 / 1e6;
        writer.sample(family, &[("shard", &shard)], offset);
    }
}
