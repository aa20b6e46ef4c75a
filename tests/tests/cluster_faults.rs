//! Faults of a cluster under load, each several times: nothing acknowledged is lost, doubled or out of
//! order, nothing is held twice, and writes go on soon.
//!
//! `make torture ROUNDS=20` runs the same for longer, and writes a report.

use flotilla_tests::cluster::{Campaign, DiskKind, Fault, Fleet, Layout};
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use rand::Rng;

/// Room for what the load writes, which nobody deletes, and for a copy of some of it on top.
const SMALL_DISK_BYTES: u64 = 256 << 20;
const SMALL_DISK_BYTES_PER_ROUND: u64 = 16 << 20;

fn run(name: &'static str, layout: &Layout, faults: &[Fault]) {
    let rounds = (0..seed::fault_rounds()).flat_map(|_| faults.iter().copied());
    run_all(name, layout, seed::seed(), &rounds.collect::<Vec<_>>());
}

fn run_all(name: &'static str, layout: &Layout, seed: u64, faults: &[Fault]) {
    let work = WorkDir::new("faults");
    let fleet = Fleet::form(&work, layout);
    let mut campaign = Campaign::start(name, fleet, seed).compare_replicas();
    for fault in faults {
        campaign.round(*fault);
    }
    campaign.finish();
}

fn lossy_disks(nodes: u32) -> Layout {
    (1..=nodes).fold(Layout::of(nodes), |layout, node| {
        layout.disk(node, DiskKind::Lossy)
    })
}

#[test]
fn killed_and_frozen_nodes() {
    run(
        "Killed and frozen nodes",
        &Layout::of(3),
        &[
            Fault::KillLeader,
            Fault::FreezeLeader,
            Fault::KillOne,
            Fault::KillAll,
            Fault::FreezeOne,
        ],
    );
}

#[test]
fn cut_links() {
    run(
        "Cut links",
        &Layout::of(3),
        &[
            Fault::IsolateLeader,
            Fault::IsolateLeaderFromNodes,
            Fault::MuteLeader,
            Fault::DeafenLeader,
            Fault::CutOneLink,
        ],
    );
}

#[test]
fn power_cuts_and_slow_disks() {
    run(
        "Power cuts and slow disks",
        &lossy_disks(3),
        &[
            Fault::CutPowerOfOne,
            Fault::SlowDiskOfLeader,
            Fault::CutPowerOfMajority,
            Fault::SlowDiskOfFollower,
            Fault::CutPowerOfAll,
        ],
    );
}

#[test]
fn a_full_disk_and_wrong_clocks() {
    let small = DiskKind::Small {
        bytes: SMALL_DISK_BYTES + SMALL_DISK_BYTES_PER_ROUND * seed::fault_rounds(),
    };
    let layout = (1..=3).fold(Layout::of(3), |layout, node| layout.disk(node, small));
    run(
        "Full disks and wrong clocks",
        &layout,
        &[
            Fault::FillDiskOfLeader,
            Fault::FillDiskOfFollower,
            Fault::MoveClockOfLeader,
            Fault::MoveClockOfFollower,
        ],
    );
}

#[test]
fn damaged_files() {
    run(
        "Damaged files",
        &Layout::of(3),
        &[Fault::FlipBitsOfOne, Fault::LoseFilesOfOne],
    );
}

/// Five nodes with three replicas of each shard, so that most calls go to nodes that hold nothing, and
/// whatever fault comes next.
#[test]
fn any_faults_of_five_nodes() {
    const FAULTS: [Fault; 12] = [
        Fault::KillLeader,
        Fault::KillOne,
        Fault::RestartLeader,
        Fault::FreezeLeader,
        Fault::FreezeOne,
        Fault::IsolateLeader,
        Fault::IsolateLeaderFromNodes,
        Fault::CutOneLink,
        Fault::CutPowerOfOne,
        Fault::CutPowerOfAll,
        Fault::SlowDiskOfLeader,
        Fault::MoveClockOfLeader,
    ];
    let seed = seed::seed();
    let mut random = seed::random(seed);
    let faults: Vec<Fault> = (0..4 * seed::fault_rounds())
        .map(|_| FAULTS[random.random_range(0..FAULTS.len())])
        .collect();
    run_all("Any faults of five nodes", &lossy_disks(5), seed, &faults);
}
