//! The node itself: its place, listeners, admin interface, metrics and log lines.

use std::path::PathBuf;

use super::*;
use crate::config::sections::LogFormat;

pub(super) const KEYS: &[Key] = &[
    text(
        "node.data_dir",
        "./data",
        "the path of a directory",
        |c, path| {
            c.data_dir = PathBuf::from(path);
            !path.is_empty()
        },
    ),
    text(
        "node.name",
        "",
        "1 to 255 bytes, or \"\" for the host's name",
        |c, name| {
            name.clone_into(&mut c.node_name);
            name.len() <= 255
        },
    ),
    period(
        "node.shutdown_grace",
        "10s",
        SECOND_MS,
        10 * MINUTE_MS,
        |c, t| c.shutdown_grace = t,
    ),
    listener("listen.kubemq", "127.0.0.1:50000", |c, address| {
        c.listen.kubemq = address
    }),
    listener("listen.kubemq_rest", "127.0.0.1:9090", |c, address| {
        c.listen.kubemq_rest = address
    }),
    listener("listen.admin", "127.0.0.1:8080", |c, address| {
        c.listen.admin = address
    }),
    listener("listen.cluster", "127.0.0.1:7600", |c, address| {
        c.listen.cluster = address
    }),
    flag("listen.allow_insecure", "false", |c, on| {
        c.listen.allow_insecure = on
    }),
    not_served("listen.lonelyps", ""),
    not_served("listen.messagedb", ""),
    amount(
        "admin.body_size_max",
        "64KiB",
        Unit::Bytes,
        KIB,
        16 * MIB,
        |c, n| {
            c.admin.body_bytes_max = n as usize;
        },
    ),
    amount(
        "admin.connections_max",
        "256",
        Unit::Count,
        1,
        65_536,
        |c, n| {
            c.admin.connections_max = n as usize;
        },
    ),
    amount(
        "metrics.names_max",
        "100",
        Unit::Count,
        0,
        100_000,
        |c, n| c.broker.metric_names_max = n as usize,
    ),
    text("log.format", "text", "text or json", |c, word| {
        let format = match word {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return false,
        };
        c.log.format = format;
        true
    }),
    text(
        "log.level",
        "info",
        "error, warn, info, debug, trace or off, also by part: warn,flotilla_cluster=debug",
        |c, level| {
            level.clone_into(&mut c.log.level);
            crate::logging::parse_level(level).is_some()
        },
    ),
];
