//! The log and the state on disk, and what topics and queues get that nobody configured.

use flotilla_model::name::Name;
use flotilla_storage::SyncPolicy;

use super::*;

pub(super) const KEYS: &[Key] = &[
    key(
        "storage.sync",
        "always",
        Field::AmountOr {
            word: "always",
            unit: Unit::Ms,
            min: 1,
            max: MINUTE_MS,
            set: |c, ms| {
                c.cluster.log.sync = ms.map_or(SyncPolicy::Always, |ms| {
                    SyncPolicy::Interval(Duration::from_millis(ms))
                });
            },
        },
    ),
    amount(
        "storage.segment_size",
        "64MiB",
        Unit::Bytes,
        64 * KIB,
        2 * GIB,
        |c, n| {
            c.cluster.log.segment_bytes = n;
        },
    ),
    amount(
        "storage.cache",
        "256MiB",
        Unit::Bytes,
        8 * MIB,
        TIB,
        Config::divide_cache,
    ),
    auto("storage.reserve", Unit::Bytes, 64 * KIB, TIB, |c, n| {
        c.cluster.log.reserve_bytes = n
    }),
    period("storage.checkpoint_interval", "10s", 100, DAY_MS, |c, t| {
        c.cluster.checkpoint.interval = t;
    }),
    amount(
        "storage.checkpoint_log_size",
        "256MiB",
        Unit::Bytes,
        MIB,
        TIB,
        |c, n| {
            c.cluster.checkpoint.log_bytes = n;
        },
    ),
    amount("storage.log_keep", "128MiB", Unit::Bytes, 0, TIB, |c, n| {
        c.cluster.checkpoint.log_keep_bytes = n;
    }),
    amount(
        "storage.snapshot_rate",
        "64MiB",
        Unit::Bytes,
        MIB,
        TIB,
        |c, n| c.cluster.checkpoint.snapshot_bytes_per_second = n,
    ),
    amount(
        "storage.checkpoint_state_size",
        "16MiB",
        Unit::Bytes,
        MIB,
        TIB,
        |c, n| {
            c.cluster.checkpoint.dirty_bytes = n;
        },
    ),
    amount(
        "storage.compact_below_percent",
        "30",
        Unit::Count,
        0,
        90,
        |c, n| {
            c.cluster.checkpoint.compact_below_percent = n as u8;
        },
    ),
    amount(
        "storage.compact_rate",
        "32MiB",
        Unit::Bytes,
        64 * KIB,
        TIB,
        |c, n| {
            c.cluster.checkpoint.compact_bytes_per_second = n;
        },
    ),
    limit(
        "topics.retention_age",
        "7d",
        Unit::Ms,
        AGE_MS_MAX,
        |c, n| {
            c.cluster.topic.retention_ms = n;
        },
    ),
    limit(
        "topics.retention_size",
        UNLIMITED,
        Unit::Bytes,
        u64::MAX,
        |c, n| {
            c.cluster.topic.retention_bytes = n;
        },
    ),
    limit(
        "topics.retention_messages",
        UNLIMITED,
        Unit::Count,
        u64::MAX,
        |c, n| {
            c.cluster.topic.retention_messages = n;
        },
    ),
    amount(
        "topics.dedup_window",
        "2m",
        Unit::Ms,
        0,
        30 * DAY_MS,
        |c, n| {
            c.cluster.topic.dedup_window_ms = n;
        },
    ),
    amount(
        "topics.cursor_idle",
        "7d",
        Unit::Ms,
        MINUTE_MS,
        AGE_MS_MAX,
        |c, n| {
            c.cluster.topic.cursor_idle_ms = n;
        },
    ),
    limit(
        "queues.retention_age",
        UNLIMITED,
        Unit::Ms,
        AGE_MS_MAX,
        |c, n| {
            c.cluster.queue.retention_ms = n;
        },
    ),
    limit(
        "queues.messages_max",
        UNLIMITED,
        Unit::Count,
        u64::MAX,
        |c, n| {
            c.cluster.queue.messages_max = n;
        },
    ),
    limit(
        "queues.size_max",
        UNLIMITED,
        Unit::Bytes,
        u64::MAX,
        |c, n| {
            c.cluster.queue.bytes_max = n;
        },
    ),
    amount(
        "queues.receive_count_max",
        "1024",
        Unit::Count,
        0,
        u32::MAX as u64,
        |c, n| {
            c.cluster.queue.receive_count_max = n as u32;
        },
    ),
    text(
        "queues.dead_letter",
        "",
        "a queue's name, or \"\" for none",
        |c, name| {
            let queue = (!name.is_empty()).then(|| Name::queue(name)).transpose();
            queue
                .map(|queue| c.cluster.queue.dead_letter = queue)
                .is_ok()
        },
    ),
    amount(
        "queues.dedup_window",
        "2m",
        Unit::Ms,
        0,
        30 * DAY_MS,
        |c, n| {
            c.cluster.queue.dedup_window_ms = n;
        },
    ),
];
