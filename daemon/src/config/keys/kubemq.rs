//! The KubeMQ listeners: what clients are told, and the bounds of their requests.

use std::path::PathBuf;

use flotilla_gateway::Routes;
use flotilla_storage::error_chain;

use super::*;

pub(super) const KEYS: &[Key] = &[
    text(
        "kubemq.version",
        "2.6.0",
        "three numbers with dots between them",
        |c, version| {
            version.clone_into(&mut c.kubemq.version);
            let numbers: Vec<_> = version.split('.').collect();
            numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
        },
    ),
    flag("kubemq.durable_resume", "true", |c, on| {
        c.kubemq.durable_resume = on
    }),
    key(
        "kubemq.receive_linger",
        "off",
        Field::AmountOr {
            word: "off",
            unit: Unit::Ms,
            min: 0,
            max: MINUTE_MS,
            set: |c, ms| c.kubemq.receive_linger = ms.map(Duration::from_millis),
        },
    ),
    key(
        "kubemq.silence_after_start_max",
        "1s",
        Field::AmountOr {
            word: "off",
            unit: Unit::Ms,
            min: 100,
            max: MINUTE_MS,
            set: |c, ms| c.kubemq.silence_after_start_max = ms.map(Duration::from_millis),
        },
    ),
    period(
        "kubemq.downstream_hold_max",
        "12h",
        SECOND_MS,
        30 * DAY_MS,
        |c, t| {
            c.kubemq.downstream_hold_max = t;
        },
    ),
    amount(
        "kubemq.receive_messages_max",
        "1024",
        Unit::Count,
        1,
        4_096,
        |c, n| {
            c.kubemq.limits.receive_messages_max = n as u32;
        },
    ),
    amount("kubemq.wait_max", "1h", Unit::Seconds, 1, 86_400, |c, n| {
        c.kubemq.limits.wait_seconds_max = n as u32;
    }),
    amount(
        "kubemq.wait_default",
        "1s",
        Unit::Seconds,
        1,
        86_400,
        |c, n| {
            c.kubemq.limits.wait_seconds_default = n as u32;
        },
    ),
    amount(
        "kubemq.visibility_max",
        "12h",
        Unit::Seconds,
        1,
        30 * 86_400,
        |c, n| {
            c.kubemq.limits.visibility_seconds_max = n as u32;
        },
    ),
    amount(
        "kubemq.visibility_default",
        "1m",
        Unit::Seconds,
        1,
        30 * 86_400,
        |c, n| {
            c.kubemq.limits.visibility_seconds_default = n as u32;
        },
    ),
    amount(
        "kubemq.expiration_max",
        "12h",
        Unit::Seconds,
        1,
        315_360_000,
        |c, n| {
            c.kubemq.limits.expiration_seconds_max = n as u32;
        },
    ),
    amount(
        "kubemq.delay_max",
        "12h",
        Unit::Seconds,
        1,
        315_360_000,
        |c, n| {
            c.kubemq.limits.delay_seconds_max = n as u32;
        },
    ),
    amount(
        "kubemq.receive_count_max",
        "1024",
        Unit::Count,
        1,
        1_000_000,
        |c, n| {
            c.kubemq.limits.receive_count_max = n as u32;
        },
    ),
    amount(
        "kubemq.request_size_max",
        "100MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.request_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.response_size_max",
        "3584KiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.response_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.downstream_size_max",
        "32MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.downstream_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.connections_max",
        "10000",
        Unit::Count,
        1,
        1_000_000,
        |c, n| {
            c.kubemq.connections_max = n as usize;
        },
    ),
    amount(
        "kubemq.rest_body_size_max",
        "16MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.rest.body_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.rest_bodies_size_max",
        "128MiB",
        Unit::Bytes,
        KIB,
        64 * GIB,
        |c, n| {
            c.kubemq.rest.bodies_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.rest_connections_max",
        "1000",
        Unit::Count,
        1,
        1_000_000,
        |c, n| {
            c.kubemq.rest.connections_max = n as usize;
        },
    ),
    period(
        "kubemq.handshake_wait_max",
        "10s",
        100,
        10 * MINUTE_MS,
        |c, t| {
            c.kubemq.handshake_wait_max = t;
        },
    ),
    amount(
        "kubemq.streams_per_connection_max",
        "1000",
        Unit::Count,
        1,
        1_000_000,
        |c, n| {
            c.kubemq.streams_per_connection_max = n as u32;
        },
    ),
    amount(
        "kubemq.requests_in_flight_max",
        "1024",
        Unit::Count,
        1,
        65_536,
        |c, n| {
            c.kubemq.requests_in_flight_max = n as usize;
        },
    ),
    amount(
        "kubemq.request_batch_size_max",
        "1MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.request_batch_bytes_max = n as usize;
        },
    ),
    amount(
        "kubemq.transactions_per_stream_max",
        "1024",
        Unit::Count,
        1,
        65_536,
        |c, n| {
            c.kubemq.transactions_per_stream_max = n as usize;
        },
    ),
    amount(
        "kubemq.batch_messages_max",
        "65536",
        Unit::Count,
        1,
        65_536,
        |c, n| {
            c.kubemq.batch_messages_max = n as usize;
        },
    ),
    key(
        "kubemq.routes",
        "",
        Field::Texts {
            allowed: "targets by key, such as [{\"Key\":\"k\",\"Routes\":\"events:a;queues:b\"}], or \"\" for none",
            members: ("Key", "Routes"),
            set: |c, text| {
                c.kubemq.routes = Routes::from_json(text).map_err(|error| error_chain(&error))?;
                Ok(())
            },
        },
    ),
    text(
        "kubemq.routes_file",
        "",
        "the path of a file with such routes, or \"\" for none",
        |c, path| {
            c.kubemq_routes_file = PathBuf::from(path);
            true
        },
    ),
    amount(
        "kubemq.route_targets_max",
        "64",
        Unit::Count,
        1,
        4_096,
        |c, n| {
            c.kubemq.route_targets_max = n as usize;
        },
    ),
    amount(
        "kubemq.channel_lists_max",
        "4",
        Unit::Count,
        1,
        1_024,
        |c, n| {
            c.kubemq.channel_lists_max = n as usize;
        },
    ),
    amount(
        "kubemq.subscription_messages_max",
        "1024",
        Unit::Count,
        1,
        1 << 20,
        |c, n| {
            c.kubemq.subscription_messages_max = n as u32;
        },
    ),
    amount(
        "kubemq.subscription_size_max",
        "4MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.subscription_bytes_max = n;
        },
    ),
    amount(
        "kubemq.query_cache_entries_max",
        "10000",
        Unit::Count,
        0,
        10_000_000,
        |c, n| {
            c.kubemq.query_cache_entries_max = n as usize;
        },
    ),
    amount(
        "kubemq.query_cache_size_max",
        "64MiB",
        Unit::Bytes,
        KIB,
        GIB,
        |c, n| {
            c.kubemq.query_cache_bytes_max = n as usize;
        },
    ),
    period(
        "kubemq.keepalive_interval",
        "30s",
        SECOND_MS,
        DAY_MS,
        |c, t| {
            c.kubemq.keepalive_interval = t;
        },
    ),
    period(
        "kubemq.keepalive_wait_max",
        "10s",
        SECOND_MS,
        DAY_MS,
        |c, t| {
            c.kubemq.keepalive_wait_max = t;
        },
    ),
    amount(
        "kubemq.stream_window",
        "2MiB",
        Unit::Bytes,
        64 * KIB,
        GIB,
        |c, n| {
            c.kubemq.stream_window_bytes = n as u32;
        },
    ),
    amount(
        "kubemq.connection_window",
        "8MiB",
        Unit::Bytes,
        64 * KIB,
        GIB,
        |c, n| {
            c.kubemq.connection_window_bytes = n as u32;
        },
    ),
];
