//! What Flotilla is to reach beside others, and beside the machine itself.

use crate::competitors::BASE;
use serde::Serialize;

/// A ratio that a workload is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RatioGoal {
    /// Names of workloads.
    workloads: &'static [&'static str],
    competitor: &'static str,
    /// Flotilla is to be at least this many times as good.
    at_least: f64,
    kind: GoalKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalKind {
    Goal,
    /// What must hold in any case.
    Floor,
}

const BUSY_PUBLISH: &[&str] = &["publish-1k-1024", "publish-1k-4096"];
const BUSY_PUBLISH_R3: &[&str] = &["publish-1k-1024-r3", "publish-1k-4096-r3"];
const BUSY_PUBLISH_ALL_SIZES: &[&str] = &[
    "publish-128-1024",
    "publish-128-4096",
    "publish-1k-1024",
    "publish-1k-4096",
    "publish-16k-1024",
    "publish-16k-4096",
];
const BACKLOGS: &[&str] = &["backlog-128", "backlog-1k", "backlog-16k"];

const fn goal(
    workloads: &'static [&'static str],
    competitor: &'static str,
    at_least: f64,
) -> RatioGoal {
    RatioGoal {
        workloads,
        competitor,
        at_least,
        kind: GoalKind::Goal,
    }
}

const fn floor(
    workloads: &'static [&'static str],
    competitor: &'static str,
    at_least: f64,
) -> RatioGoal {
    RatioGoal {
        workloads,
        competitor,
        at_least,
        kind: GoalKind::Floor,
    }
}

const RATIO_GOALS: &[RatioGoal] = &[
    goal(BUSY_PUBLISH, "nats", 1.5),
    goal(BUSY_PUBLISH, "nats-always", 15.0),
    goal(BUSY_PUBLISH, "redis-always", 1.5),
    floor(BUSY_PUBLISH, "nats-always", 5.0),
    floor(BUSY_PUBLISH, "redis-always", 1.0),
    goal(BUSY_PUBLISH_R3, "nats", 1.5),
    floor(BUSY_PUBLISH_R3, "nats-always", 1.0),
    // It appends: its file grows with each write, and what its syncs write includes that. Flotilla's
    // segments have their length from the start.
    goal(BUSY_PUBLISH_ALL_SIZES, "raw-disk", 0.5),
    goal(BACKLOGS, "nats", 2.0),
    goal(&["queue-4"], "nats", 3.0),
    goal(&["queue-4"], "rabbitmq", 10.0),
    goal(&["signals-1"], "nats", 1.0),
    goal(&["signals-10"], "nats", 1.2),
    goal(&["requests-1", "requests-64"], "nats", 1.0),
];

/// One message at a time may take this much longer than appending it, syncing and a loopback round trip.
const ONE_IN_FLIGHT_EXTRA_US: f64 = 150.0;
const ONE_IN_FLIGHT: &[&str] = &["publish-128-1", "publish-1k-1", "publish-16k-1"];
const IDLE: &str = "idle";
const IDLE_CORE_PERCENT_MAX: f64 = 1.0;
const IDLE_RESIDENT_MB_MAX: f64 = 60.0;

/// What was measured of one competitor at one workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured<'a> {
    pub competitor: &'a str,
    /// Median of its main figure.
    pub value: f64,
    /// Median of how many times as good Flotilla was in the same round.
    pub base_advantage: Option<f64>,
    /// Median of the runs' medians.
    pub p50_us: Option<f64>,
    pub resident_bytes: f64,
}

/// Whether something was reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    pub kind: GoalKind,
    /// `≥ 1.5 ×`.
    pub goal: String,
    pub met: bool,
}

/// What is said in one competitor's row of a workload. `rows` are all rows of it.
pub fn verdicts(workload: &str, competitor: &str, rows: &[Measured]) -> Vec<Verdict> {
    let find = |name: &str| rows.iter().find(|row| row.competitor == name);
    let Some(row) = find(competitor) else {
        return Vec::new();
    };
    let ratios = RATIO_GOALS
        .iter()
        .filter(|goal| goal.competitor == competitor && goal.workloads.contains(&workload));
    let mut verdicts: Vec<Verdict> = ratios
        .filter_map(|goal| {
            let advantage = row.base_advantage?;
            Some(Verdict {
                kind: goal.kind,
                goal: format!("≥ {} ×", goal.at_least),
                met: advantage >= goal.at_least,
            })
        })
        .collect();
    if competitor == BASE && ONE_IN_FLIGHT.contains(&workload) {
        let p50 = |name| find(name).and_then(|row| row.p50_us);
        if let (Some(own), Some(disk), Some(tcp)) = (row.p50_us, p50("raw-disk"), p50("raw-tcp")) {
            let most = disk + tcp + ONE_IN_FLIGHT_EXTRA_US;
            verdicts.push(Verdict {
                kind: GoalKind::Goal,
                goal: format!(
                    "p50 ≤ {most:.0} µs (append of raw-disk + raw-tcp + {ONE_IN_FLIGHT_EXTRA_US:.0})"
                ),
                met: own <= most,
            });
        }
    }
    if competitor == BASE && workload == IDLE {
        verdicts.push(Verdict {
            kind: GoalKind::Goal,
            goal: format!("< {IDLE_CORE_PERCENT_MAX} % of a core"),
            met: row.value < IDLE_CORE_PERCENT_MAX,
        });
        verdicts.push(Verdict {
            kind: GoalKind::Goal,
            goal: format!("< {IDLE_RESIDENT_MB_MAX} MB resident"),
            met: row.resident_bytes / 1e6 < IDLE_RESIDENT_MB_MAX,
        });
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::catalogue;

    fn row(competitor: &str, value: f64, base_advantage: f64, p50_us: f64) -> Measured<'_> {
        Measured {
            competitor,
            value,
            base_advantage: Some(base_advantage),
            p50_us: Some(p50_us),
            resident_bytes: 50e6,
        }
    }

    #[test]
    fn goals_speak_of_workloads_that_exist() {
        let all = catalogue::full(1 << 30);
        let exists = |name: &str| all.iter().any(|workload| workload.id == name);
        let named = RATIO_GOALS.iter().flat_map(|goal| goal.workloads);
        for name in named.chain(ONE_IN_FLIGHT).chain([&IDLE]) {
            assert!(exists(name), "{name}");
        }
    }

    #[test]
    fn a_ratio_below_the_goal_is_not_met_though_it_is_above_the_floor() {
        let rows = [row(BASE, 1.0, 1.0, 1.0), row("nats-always", 1.0, 7.0, 1.0)];
        let verdicts = verdicts("publish-1k-1024", "nats-always", &rows);
        let found: Vec<(GoalKind, bool)> = verdicts
            .iter()
            .map(|verdict| (verdict.kind, verdict.met))
            .collect();
        assert_eq!(found, [(GoalKind::Goal, false), (GoalKind::Floor, true)]);
    }

    #[test]
    fn one_in_flight_is_judged_by_disk_and_network_of_the_same_bench() {
        let rows = |own| {
            [
                row(BASE, 1.0, 1.0, own),
                row("raw-disk", 1.0, 1.0, 200.0),
                row("raw-tcp", 1.0, 1.0, 40.0),
            ]
        };
        let met = |own| verdicts("publish-1k-1", BASE, &rows(own))[0].met;
        assert!(met(390.0));
        assert!(!met(391.0));
        assert!(verdicts("publish-1k-1", BASE, &rows(1.0)[..2]).is_empty());
    }

    #[test]
    fn an_idle_node_is_judged_by_processor_and_memory() {
        let rows = [row(BASE, 1.2, 1.0, 1.0)];
        let met: Vec<bool> = verdicts(IDLE, BASE, &rows)
            .iter()
            .map(|verdict| verdict.met)
            .collect();
        assert_eq!(met, [false, true]);
    }
}
