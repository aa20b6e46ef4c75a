//! Bounds of what is alive: actors, buffers, waiting requests.

use super::*;

/// More names than any machine has memory for.
const NAMES_MAX: u64 = 1_000_000_000;

pub(super) const KEYS: &[Key] = &[
    amount(
        "broker.message_size_max",
        "100MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| c.broker.message_bytes_max = n,
    ),
    amount(
        "broker.batch_items_max",
        "65536",
        Unit::Count,
        1,
        1 << 20,
        |c, n| {
            c.broker.batch_items_max = n as usize;
        },
    ),
    amount(
        "broker.ingress_size_max",
        "32MiB",
        Unit::Bytes,
        MIB,
        TIB,
        |c, n| c.broker.ingress_bytes_max = n,
    ),
    period(
        "broker.ingress_wait_max",
        "5s",
        0,
        10 * MINUTE_MS,
        |c, t| c.broker.ingress_wait_max = t,
    ),
    period(
        "broker.propose_wait_max",
        "10s",
        100,
        10 * MINUTE_MS,
        |c, t| {
            c.broker.propose_wait_max = t;
        },
    ),
    amount(
        "broker.mailbox_capacity",
        "1024",
        Unit::Count,
        16,
        1 << 20,
        |c, n| {
            c.broker.mailbox_capacity = n as usize;
        },
    ),
    key(
        "broker.arbiters",
        AUTO,
        Field::AmountOr {
            word: AUTO,
            unit: Unit::Count,
            min: 1,
            max: 256,
            // The broker's own choice stands where nobody chooses.
            set: |c, n| {
                if let Some(n) = n {
                    c.broker.arbiters = n as usize;
                }
            },
        },
    ),
    period("broker.idle_actor_timeout", "10s", 100, DAY_MS, |c, t| {
        c.broker.idle_actor_timeout = t
    }),
    amount(
        "broker.actors_soft_max",
        "10000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| {
            c.broker.actors_soft_max = n as usize;
        },
    ),
    amount(
        "broker.actors_max",
        "100000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| c.broker.actors_max = n as usize,
    ),
    amount(
        "broker.waiters_per_name_max",
        "10000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| {
            c.broker.waiters_per_name_max = n as usize;
        },
    ),
    amount(
        "broker.subscriber_messages_max",
        "65536",
        Unit::Count,
        1,
        1 << 24,
        |c, n| {
            c.broker.subscriber_messages_max = n as u32;
        },
    ),
    amount(
        "broker.subscriber_size_max",
        "64MiB",
        Unit::Bytes,
        KIB,
        TIB,
        |c, n| {
            c.broker.subscriber_bytes_max = n;
        },
    ),
    amount(
        "broker.read_run_size",
        "1MiB",
        Unit::Bytes,
        4 * KIB,
        GIB,
        |c, n| c.broker.read_run_bytes = n,
    ),
    amount(
        "broker.read_size_max",
        "64MiB",
        Unit::Bytes,
        MIB,
        TIB,
        |c, n| c.broker.read_bytes_max = n,
    ),
    period(
        "broker.cursor_flush_interval",
        "100ms",
        10,
        MINUTE_MS,
        |c, t| {
            c.broker.cursor_flush_interval = t;
        },
    ),
    amount(
        "broker.signal_buffer_messages",
        "100",
        Unit::Count,
        1,
        1 << 20,
        |c, n| {
            c.broker.signal_buffer_messages = n as usize;
        },
    ),
    period("broker.signal_wait_max", "2s", 0, MINUTE_MS, |c, t| {
        c.broker.signal_wait_max = t
    }),
    amount(
        "broker.signal_messages_max",
        "8192",
        Unit::Count,
        1,
        1 << 24,
        |c, n| {
            c.broker.signal_messages_max = n as usize;
        },
    ),
    amount(
        "broker.signal_size_max",
        "16MiB",
        Unit::Bytes,
        KIB,
        TIB,
        |c, n| c.broker.signal_bytes_max = n,
    ),
    amount(
        "broker.signal_listeners_max",
        "100000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| {
            c.broker.signal_listeners_max = n as usize;
        },
    ),
    amount(
        "broker.request_calls_max",
        "65536",
        Unit::Count,
        1,
        1 << 24,
        |c, n| {
            c.broker.request_calls_max = n as usize;
        },
    ),
    amount(
        "broker.request_size_max",
        "128MiB",
        Unit::Bytes,
        KIB,
        TIB,
        |c, n| c.broker.request_bytes_max = n,
    ),
    amount(
        "broker.request_calls_per_client_max",
        "8192",
        Unit::Count,
        1,
        1 << 20,
        |c, n| {
            c.broker.request_calls_per_client_max = n as usize;
        },
    ),
    amount(
        "broker.request_responders_max",
        "100000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| {
            c.broker.request_responders_max = n as usize;
        },
    ),
    limit(
        "broker.topics_max",
        "unlimited",
        Unit::Count,
        NAMES_MAX,
        |c, n| c.broker.topics_max = n,
    ),
    limit(
        "broker.queues_max",
        "unlimited",
        Unit::Count,
        NAMES_MAX,
        |c, n| c.broker.queues_max = n,
    ),
    amount(
        "broker.signal_names_max",
        "10000",
        Unit::Count,
        1,
        10_000_000,
        |c, n| {
            c.broker.signal_names_max = n as usize;
        },
    ),
    period(
        "broker.signal_name_idle",
        "1h",
        SECOND_MS,
        AGE_MS_MAX,
        |c, t| {
            c.broker.signal_name_idle = t;
        },
    ),
];
