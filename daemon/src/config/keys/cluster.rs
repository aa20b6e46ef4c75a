//! Which cluster the node belongs to, and how it works together with the other nodes.

use super::*;
use crate::config::address::NodeAddress;

/// Port of a seed that names none: that of `listen.cluster` when nobody sets it.
const SEED_PORT: u16 = 7_600;
/// Seeds are asked again and again while a cluster forms; a longer list is a mistake.
const SEEDS_MAX: usize = 64;

pub(super) const KEYS: &[Key] = &[
    text(
        "cluster.seeds",
        "",
        "up to 64 of host:port or host (then port 7600), divided by commas, or \"\" for none",
        |c, list| match parse_seeds(list) {
            Some(seeds) => {
                c.cluster.seeds = seeds;
                true
            }
            None => false,
        },
    ),
    amount("cluster.expect", "1", Unit::Count, 1, 64, |c, n| {
        c.cluster.expect = n as u32
    }),
    text(
        "cluster.advertise",
        "",
        "host:port that other nodes can dial, or \"\" for the address of listen.cluster",
        |c, address| {
            let parsed = NodeAddress::parse(address, None).filter(NodeAddress::can_be_dialled);
            c.cluster.advertise = parsed.as_ref().map(ToString::to_string);
            parsed.is_some() || address.is_empty()
        },
    ),
    text(
        "cluster.zone",
        "",
        "up to 255 bytes, or \"\" for none",
        |c, zone| {
            zone.clone_into(&mut c.cluster.zone);
            zone.len() <= 255
        },
    ),
    amount("cluster.replicas", "3", Unit::Count, 1, 7, |c, n| {
        c.cluster.replicas = n as u32
    }),
    period(
        "cluster.repair_after",
        "10m",
        SECOND_MS,
        30 * DAY_MS,
        |c, t| c.cluster.repair_after = t,
    ),
    auto(
        "cluster.feature_level_max",
        Unit::Count,
        1,
        u16::MAX as u64,
        |c, n| c.cluster.feature_level_max = n.map_or(u16::MAX, |n| n as u16),
    ),
    period_or_off(
        "cluster.verify_interval",
        "1d",
        MINUTE_MS,
        365 * DAY_MS,
        |c, ms| c.cluster.verify.interval = ms.map(Duration::from_millis),
    ),
    amount(
        "cluster.verify_rate",
        "8MiB",
        Unit::Bytes,
        64 * KIB,
        64 * GIB,
        |c, n| c.cluster.verify.bytes_per_second = n,
    ),
    period(
        "cluster.election_timeout",
        "1s",
        SECOND_MS / 2,
        MINUTE_MS,
        |c, t| c.cluster.election_timeout = t,
    ),
    auto("cluster.shards", Unit::Count, 1, 1_024, |c, n| {
        c.shards = n.map(|n| n as u32)
    }),
    amount(
        "cluster.inflight",
        "32MiB",
        Unit::Bytes,
        MIB,
        GIB,
        |c, n| c.cluster.inflight_bytes = n,
    ),
];

fn parse_seeds(list: &str) -> Option<Vec<String>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    let seeds: Option<Vec<String>> = list
        .split(',')
        .map(|seed| NodeAddress::parse(seed.trim(), Some(SEED_PORT)))
        .map(|seed| Some(seed.filter(NodeAddress::can_be_dialled)?.to_string()))
        .collect();
    seeds.filter(|seeds| seeds.len() <= SEEDS_MAX)
}
