//! Figures of a cluster with many topics, and of one at rest: `make scale`. They say something about
//! an optimised build only, so they are not part of every run.

use flotilla_tests::cluster::usage::Usage;
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::burst::{first_failures, send_to_all};
use std::time::{Duration, Instant};

const TOPICS: usize = 10_000;
const AT_ONCE: usize = 64;
/// Topics that are written to after a leader's death.
const SAMPLE: usize = 500;
const REST: Duration = Duration::from_secs(30);
/// What a start leaves to do.
const SETTLE: Duration = Duration::from_secs(10);
/// Of one processor and node.
const IDLE_MAX: f64 = 0.05;

fn form(name: &str, shards: u32) -> (WorkDir, Fleet) {
    let work = WorkDir::new(name);
    let layout = Layout {
        shards,
        ..Layout::of(3)
    };
    let fleet = Fleet::form(&work, &layout);
    (work, fleet)
}

fn usage(fleet: &Fleet) -> Vec<Usage> {
    let running = fleet.running().into_iter();
    running
        .map(|number| {
            let server = fleet.node(number).server().expect("it runs");
            Usage::of(server.pid()).expect("a running process")
        })
        .collect()
}

/// The share of a processor that each node takes while nobody asks anything of it.
fn share_at_rest(fleet: &Fleet) -> Vec<f64> {
    std::thread::sleep(SETTLE);
    let before = usage(fleet);
    std::thread::sleep(REST);
    let after = usage(fleet);
    let pairs = before.iter().zip(&after);
    pairs
        .map(|(before, after)| {
            (after.processor - before.processor).as_secs_f64() / REST.as_secs_f64()
        })
        .collect()
}

fn percent(shares: &[f64]) -> Vec<String> {
    let one = |share: &f64| format!("{:.1} %", share * 100.0);
    shares.iter().map(one).collect()
}

#[test]
#[ignore = "figures of an optimised build: make scale"]
fn ten_thousand_topics_on_sixteen_shards() {
    let (_work, mut fleet) = form("scale", 16);
    let topics: Vec<String> = (0..TOPICS)
        .map(|number| format!("topic-{number}"))
        .collect();
    let began = Instant::now();
    let failed = first_failures(send_to_all(&fleet.kubemq(), &topics, AT_ONCE));
    let took = began.elapsed();
    assert!(failed.is_empty(), "{failed:?}");
    println!(
        "{TOPICS} topics made by a first event in {took:.1?}: {:.0} a second",
        TOPICS as f64 / took.as_secs_f64()
    );
    println!(
        "at rest: {:?} of a processor",
        percent(&share_at_rest(&fleet))
    );
    for (index, usage) in usage(&fleet).iter().enumerate() {
        println!(
            "node {}: {} MiB resident",
            index + 1,
            usage.resident_bytes >> 20
        );
    }
    println!("shards led by each node: {:?}", fleet.led());

    let leader = fleet.busiest_leader();
    let rest: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    let rest: Vec<_> = rest.iter().map(|node| fleet.node(*node).kubemq()).collect();
    let sample: Vec<String> = topics.iter().step_by(TOPICS / SAMPLE).cloned().collect();
    fleet.node_mut(leader).kill();
    let killed = Instant::now();
    let failed = first_failures(send_to_all(&rest, &sample, sample.len()));
    assert!(failed.is_empty(), "{failed:?}");
    println!(
        "{SAMPLE} topics written to again {:.2?} after the death of the node that led most",
        killed.elapsed()
    );
    let began = Instant::now();
    fleet.restart(leader);
    println!("whole again {:.1?} after its start", began.elapsed());
    fleet.terminate();
}

#[test]
#[ignore = "figures of an optimised build: make scale"]
fn nodes_with_thirty_two_shards_cost_little_at_rest() {
    let (_work, fleet) = form("rest", 32);
    let shares = share_at_rest(&fleet);
    println!("32 shards at rest: {:?} of a processor", percent(&shares));
    fleet.terminate();
    assert!(
        shares.iter().all(|share| *share < IDLE_MAX),
        "{:?}",
        percent(&shares)
    );
}
