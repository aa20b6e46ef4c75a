//! What happens to nodes, their disks, clocks and links, and how it is taken back.

use super::fleet::Fleet;
use super::network::Place;
use super::spoil;
use crate::admin;
use crate::lossyfs::Survival;
use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;

const SLOW_SYNC: Duration = Duration::from_millis(100);
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A fault of a cluster under load. "Leader" is the node that leads most shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillLeader,
    KillOne,
    KillAll,
    /// Asked to end, and started again.
    RestartLeader,
    FreezeLeader,
    FreezeOne,
    /// From nodes and clients.
    IsolateLeader,
    /// Clients still reach it.
    IsolateLeaderFromNodes,
    /// What it sends to nodes is lost.
    MuteLeader,
    /// What nodes send to it is lost.
    DeafenLeader,
    /// One link is cut, everybody else is reached.
    CutOneLink,
    CutPowerOfOne,
    CutPowerOfMajority,
    CutPowerOfAll,
    SlowDiskOfLeader,
    SlowDiskOfFollower,
    FillDiskOfLeader,
    FillDiskOfFollower,
    MoveClockOfLeader,
    MoveClockOfFollower,
    /// Killed, and bits of its log are flipped before it starts again.
    FlipBitsOfOne,
    /// Killed, and it lacks a file of its log, or the end of one.
    LoseFilesOfOne,
}

/// A fault that is there, and what takes it back.
pub struct Injected {
    pub nodes: Vec<u32>,
    /// Nobody can be served before it is taken back.
    pub stops_all: bool,
    undo: Undo,
}

enum Undo {
    Start,
    Unfreeze,
    Heal,
    HurryDisk,
    FreeDisk,
    /// A clock stays where it was moved to.
    Nothing,
    /// Started again, and what was spoilt and needed is to be found and repaired. A file may hold only
    /// what nobody needs any more: what an earlier repair replaced, say.
    StartAndMend {
        is_needed: bool,
    },
}

impl Fault {
    /// Does it.
    pub fn inject(self, fleet: &mut Fleet, random: &mut StdRng) -> Injected {
        let all = fleet.running();
        let leader = fleet.busiest_leader();
        let followers: Vec<u32> = all.iter().copied().filter(|node| *node != leader).collect();
        let follower = if followers.is_empty() {
            leader
        } else {
            pick(&followers, random)
        };
        let one = pick(&all, random);
        let (nodes, undo) = match self {
            Fault::KillLeader => kill(fleet, vec![leader]),
            Fault::KillOne => kill(fleet, vec![one]),
            Fault::KillAll => kill(fleet, all.clone()),
            Fault::RestartLeader => {
                let ended = fleet.node_mut(leader).terminate();
                let status = ended.unwrap_or_else(|error| panic!("node {leader}: {error}"));
                assert!(status.success(), "node {leader} ended with {status}");
                (vec![leader], Undo::Start)
            }
            Fault::FreezeLeader => freeze(fleet, leader),
            Fault::FreezeOne => freeze(fleet, one),
            Fault::IsolateLeader => {
                fleet.network.isolate(leader);
                (vec![leader], Undo::Heal)
            }
            Fault::IsolateLeaderFromNodes => {
                fleet.network.isolate_from_nodes(leader);
                (vec![leader], Undo::Heal)
            }
            Fault::MuteLeader => {
                for other in followers {
                    let (from, to) = (Place::Node(leader), Place::Node(other));
                    fleet.network.cut_one_way(from, to);
                }
                (vec![leader], Undo::Heal)
            }
            Fault::DeafenLeader => {
                for other in followers {
                    let (from, to) = (Place::Node(other), Place::Node(leader));
                    fleet.network.cut_one_way(from, to);
                }
                (vec![leader], Undo::Heal)
            }
            Fault::CutOneLink => {
                fleet
                    .network
                    .cut(Place::Node(leader), Place::Node(follower));
                (vec![leader, follower], Undo::Heal)
            }
            Fault::CutPowerOfOne => cut_power(fleet, vec![one], random),
            Fault::CutPowerOfMajority => {
                let survivor = pick(&all, random);
                let cut = all.iter().copied().filter(|node| *node != survivor);
                let cut = cut.collect();
                cut_power(fleet, cut, random)
            }
            Fault::CutPowerOfAll => cut_power(fleet, all.clone(), random),
            Fault::SlowDiskOfLeader => slow_disk(fleet, leader),
            Fault::SlowDiskOfFollower => slow_disk(fleet, follower),
            Fault::FillDiskOfLeader => fill_disk(fleet, leader),
            Fault::FillDiskOfFollower => fill_disk(fleet, follower),
            Fault::MoveClockOfLeader => move_clock(fleet, leader, random),
            Fault::MoveClockOfFollower => move_clock(fleet, follower, random),
            Fault::FlipBitsOfOne => {
                let spoilt = kill(fleet, vec![one]).0;
                spoil::flip_bits(&fleet.node(one).data(), random);
                (spoilt, Undo::StartAndMend { is_needed: true })
            }
            Fault::LoseFilesOfOne => {
                let spoilt = kill(fleet, vec![one]).0;
                spoil::lose_files(&fleet.node(one).data(), random);
                (spoilt, Undo::StartAndMend { is_needed: false })
            }
        };
        let is_down = matches!(undo, Undo::Start | Undo::StartAndMend { .. });
        Injected {
            // Without a majority nobody is served.
            stops_all: is_down && nodes.len() * 2 > all.len(),
            nodes,
            undo,
        }
    }

    /// How long it may last: freezes are tried in all lengths.
    pub fn lasts_ms(self, random: &mut StdRng, is_torture: bool) -> u64 {
        let longest = match self {
            Fault::FreezeLeader | Fault::FreezeOne if is_torture => 30_000,
            Fault::FreezeLeader | Fault::FreezeOne => 8_000,
            _ => 2_000,
        };
        random.random_range(100..longest)
    }
}

impl Injected {
    /// Takes it back. Tells how many replicas were made anew for it.
    pub fn undo(&self, fleet: &mut Fleet) -> u64 {
        let mut mended_count = 0;
        match self.undo {
            Undo::Start => self.nodes.iter().for_each(|n| fleet.node_mut(*n).start()),
            Undo::Unfreeze => self.nodes.iter().for_each(|n| fleet.node(*n).unfreeze()),
            Undo::Heal => fleet.network.heal(),
            Undo::HurryDisk => {
                for node in &self.nodes {
                    fleet.node(*node).set_sync_delay(Duration::ZERO);
                }
            }
            Undo::FreeDisk => {
                for node in &self.nodes {
                    let path = fleet.node(*node).small_disk().path().join(FILLING);
                    std::fs::remove_file(path).expect("it was made by the fault");
                }
            }
            Undo::Nothing => {}
            Undo::StartAndMend { is_needed } => {
                for node in &self.nodes {
                    fleet.restart(*node);
                    fleet.expect_same_replicas(*node);
                    let mended = admin::metric(fleet.node(*node).admin(), MENDED);
                    let mended = mended.expect("a node tells its metrics") as u64;
                    println!("node {node} has made {mended} replicas anew");
                    assert!(
                        mended > 0 || !is_needed,
                        "node {node} found nothing to mend"
                    );
                    mended_count += mended;
                }
            }
        }
        mended_count
    }
}

const FILLING: &str = "filling";
const MENDED: &str = "flotilla_replicas_mended_total";

fn pick(nodes: &[u32], random: &mut StdRng) -> u32 {
    nodes[random.random_range(0..nodes.len())]
}

fn kill(fleet: &mut Fleet, nodes: Vec<u32>) -> (Vec<u32>, Undo) {
    for node in &nodes {
        fleet.node_mut(*node).kill();
    }
    (nodes, Undo::Start)
}

fn freeze(fleet: &mut Fleet, node: u32) -> (Vec<u32>, Undo) {
    fleet.node(node).freeze();
    (vec![node], Undo::Unfreeze)
}

fn cut_power(fleet: &mut Fleet, nodes: Vec<u32>, random: &mut StdRng) -> (Vec<u32>, Undo) {
    let survival = if random.random_bool(0.5) {
        Survival::Torn
    } else {
        Survival::Nothing
    };
    // All disks first: nobody may say anything that another one's disk has not kept.
    for node in &nodes {
        fleet.node(*node).cut_power();
    }
    for node in &nodes {
        fleet.node_mut(*node).after_power_cut(survival, random);
    }
    (nodes, Undo::Start)
}

fn slow_disk(fleet: &mut Fleet, node: u32) -> (Vec<u32>, Undo) {
    fleet.node(node).set_sync_delay(SLOW_SYNC);
    (vec![node], Undo::HurryDisk)
}

fn fill_disk(fleet: &mut Fleet, node: u32) -> (Vec<u32>, Undo) {
    let disk = fleet.node(node).small_disk();
    disk.fill(&disk.path().join(FILLING));
    (vec![node], Undo::FreeDisk)
}

fn move_clock(fleet: &mut Fleet, node: u32, random: &mut StdRng) -> (Vec<u32>, Undo) {
    let offsets = [HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS];
    let offset = offsets[random.random_range(0..offsets.len())];
    let moved = fleet.node(node).clock().set_offset_ms(offset);
    moved.expect("the clock's file can be written");
    (vec![node], Undo::Nothing)
}
