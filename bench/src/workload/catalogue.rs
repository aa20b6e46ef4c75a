//! Which workloads a bench has.

use super::{Backlog, Kind, Pace, Publish, QueueCycle, Recovery, Requests, Signals, Workload};
use crate::target::{Family, Nodes};

/// The length of messages where nothing else is said.
const MESSAGE_BYTES: usize = 1_024;
/// How many are under way where a system is to be busy.
const IN_FLIGHT: usize = 1_024;
const BACKLOG_MESSAGES: usize = 200_000;

/// The four main ones.
pub fn short() -> Vec<Workload> {
    vec![
        publish(Nodes::One, MESSAGE_BYTES, IN_FLIGHT, 1, 1),
        backlog(Nodes::One, MESSAGE_BYTES),
        queue_cycle(Nodes::One, 4),
        signals(1),
    ]
}

/// All of them. `recovery_bytes` is how much is stored before a recovery.
pub fn full(recovery_bytes: u64) -> Vec<Workload> {
    let mut all = Vec::new();
    for message_bytes in [128, MESSAGE_BYTES, 16 * 1024] {
        for in_flight in [1, 64, IN_FLIGHT, 4_096] {
            all.push(publish(Nodes::One, message_bytes, in_flight, 1, 1));
        }
    }
    all.push(publish(Nodes::One, MESSAGE_BYTES, IN_FLIGHT, 16, 1));
    all.push(publish(Nodes::One, MESSAGE_BYTES, IN_FLIGHT, 1, 8));
    all.push(publish(Nodes::One, MESSAGE_BYTES, 4_096, 16, 8));
    all.push(publish(Nodes::One, MESSAGE_BYTES, IN_FLIGHT, 10_000, 1));
    for in_flight in [1, IN_FLIGHT, 4_096] {
        all.push(publish(Nodes::Three, MESSAGE_BYTES, in_flight, 1, 1));
    }
    all.push(publish(Nodes::Three, MESSAGE_BYTES, 4_096, 16, 8));
    for message_bytes in [128, MESSAGE_BYTES, 16 * 1024] {
        all.push(backlog(Nodes::One, message_bytes));
    }
    all.push(backlog(Nodes::Three, MESSAGE_BYTES));
    for workers in [1, 4, 8] {
        all.push(queue_cycle(Nodes::One, workers));
    }
    all.push(queue_cycle(Nodes::Three, 4));
    for family in [Family::Topics, Family::Signals] {
        for per_second in [1_000, 5_000, 20_000] {
            all.push(pace(family, per_second));
        }
    }
    for listeners in [1, 10, 100] {
        all.push(signals(listeners));
    }
    for in_flight in [1, 64] {
        all.push(requests(in_flight));
    }
    all.push(recovery(recovery_bytes));
    all.push(Workload::new(
        "idle".to_owned(),
        "Doing nothing".to_owned(),
        Nodes::One,
        Kind::Idle,
    ));
    all
}

/// Every kind once, small: whether competitors work, and not how fast they are.
pub fn smoke() -> Vec<Workload> {
    let small_backlog = Workload::new(
        "backlog-small".to_owned(),
        "Consume a small backlog".to_owned(),
        Nodes::One,
        Kind::Backlog(Backlog {
            message_bytes: MESSAGE_BYTES,
            messages: 5_000,
        }),
    );
    vec![
        publish(Nodes::One, MESSAGE_BYTES, 64, 1, 1),
        publish(Nodes::One, MESSAGE_BYTES, IN_FLIGHT, 16, 8),
        publish(Nodes::Three, MESSAGE_BYTES, 64, 1, 1),
        small_backlog,
        queue_cycle(Nodes::One, 4),
        queue_cycle(Nodes::Three, 4),
        pace(Family::Topics, 1_000),
        pace(Family::Signals, 1_000),
        signals(10),
        requests(64),
        recovery(16 << 20),
    ]
}

fn recovery(stored_bytes: u64) -> Workload {
    Workload::new(
        "recovery".to_owned(),
        format!(
            "Serving again after a kill, with {} MiB stored",
            stored_bytes >> 20
        ),
        Nodes::One,
        Kind::Recovery(Recovery { stored_bytes }),
    )
}

fn publish(
    nodes: Nodes,
    message_bytes: usize,
    in_flight: usize,
    topics: usize,
    producers: usize,
) -> Workload {
    let mut id = format!("publish-{}-{in_flight}", size(message_bytes));
    let mut title = format!(
        "Durable publish, {}, {in_flight} in flight",
        long_size(message_bytes)
    );
    if topics > 1 {
        id += &format!("-{topics}t");
        title += &format!(", {topics} topics");
    }
    if producers > 1 {
        id += &format!("-{producers}p");
        title += &format!(", {producers} producers");
    }
    Workload::new(
        id,
        title,
        nodes,
        Kind::Publish(Publish {
            message_bytes,
            in_flight,
            topics,
            producers,
        }),
    )
}

fn backlog(nodes: Nodes, message_bytes: usize) -> Workload {
    Workload::new(
        format!("backlog-{}", size(message_bytes)),
        format!(
            "Consume a backlog with acknowledgements, {}",
            long_size(message_bytes)
        ),
        nodes,
        Kind::Backlog(Backlog {
            message_bytes,
            // As many bytes at most as of messages of the usual length.
            messages: BACKLOG_MESSAGES * MESSAGE_BYTES / message_bytes.max(MESSAGE_BYTES),
        }),
    )
}

fn queue_cycle(nodes: Nodes, workers: usize) -> Workload {
    Workload::new(
        format!("queue-{workers}"),
        format!("Queue cycle: send, lease, acknowledge, 1 KiB, {workers} workers"),
        nodes,
        Kind::QueueCycle(QueueCycle {
            message_bytes: MESSAGE_BYTES,
            in_flight: IN_FLIGHT,
            workers,
        }),
    )
}

fn pace(family: Family, per_second: usize) -> Workload {
    let (what, name) = match family {
        Family::Signals => ("signals", "Signals"),
        _ => ("durable", "Durable"),
    };
    Workload::new(
        format!("latency-{what}-{}k", per_second / 1_000),
        format!("{name}, from due to received, 1 KiB, {per_second} a second"),
        Nodes::One,
        Kind::Pace(Pace {
            family,
            message_bytes: MESSAGE_BYTES,
            per_second,
        }),
    )
}

fn signals(listeners: usize) -> Workload {
    let title = match listeners {
        1 => "Signals, 1 KiB, to 1 listener".to_owned(),
        _ => format!("Signals, 1 KiB, to {listeners} listeners, all deliveries together"),
    };
    Workload::new(
        format!("signals-{listeners}"),
        title,
        Nodes::One,
        Kind::Signals(Signals {
            message_bytes: MESSAGE_BYTES,
            listeners,
        }),
    )
}

fn requests(in_flight: usize) -> Workload {
    Workload::new(
        format!("requests-{in_flight}"),
        format!("Request and reply, 128 B, {in_flight} in flight"),
        Nodes::One,
        Kind::Requests(Requests {
            message_bytes: 128,
            in_flight,
        }),
    )
}

impl Workload {
    fn new(id: String, title: String, nodes: Nodes, kind: Kind) -> Self {
        match nodes {
            Nodes::One => Self {
                id,
                title,
                nodes,
                kind,
            },
            Nodes::Three => Self {
                id: id + "-r3",
                title: title + ", three nodes, three replicas",
                nodes,
                kind,
            },
        }
    }
}

/// `128`, `1k`.
fn size(bytes: usize) -> String {
    match bytes % 1_024 {
        0 => format!("{}k", bytes / 1_024),
        _ => bytes.to_string(),
    }
}

/// `128 B`, `1 KiB`.
fn long_size(bytes: usize) -> String {
    match bytes % 1_024 {
        0 => format!("{} KiB", bytes / 1_024),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_workload_has_a_name_of_its_own() {
        let all = full(1 << 30);
        let names: BTreeSet<&str> = all.iter().map(|workload| workload.id.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.contains("publish-1k-1024-r3"), "{names:?}");
    }

    #[test]
    fn the_short_bench_is_a_part_of_the_full_one() {
        let all = full(1 << 30);
        assert!(short().iter().all(|workload| all.contains(workload)));
    }
}
