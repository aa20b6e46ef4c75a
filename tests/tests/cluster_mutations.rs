//! Clusters that are made to break a promise: the check must see it, or its silence elsewhere would
//! mean nothing.

use flotilla_tests::checker::Violation;
use flotilla_tests::cluster::{Campaign, DiskKind, Fault, Fleet, Layout};
use flotilla_tests::lossyfs::{Survival, SyncBehaviour};
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use std::time::Duration;

/// The others have elected a leader long before that.
const PARTED: Duration = Duration::from_secs(5);
/// Enough answers for every pair of consumers to meet.
const CONSUMED: Duration = Duration::from_secs(3);
/// Faults that leave the leader's last entries in the log and their senders without an answer.
const UNANSWERED: [Fault; 3] = [Fault::DeafenLeader, Fault::KillLeader, Fault::DeafenLeader];

/// Disks that say yes to a sync and do nothing look like servers that acknowledge without one.
#[test]
fn nodes_without_syncs_are_found_as_a_loss() {
    let work = WorkDir::new("no-sync");
    let seed = seed::seed();
    let layout = (1..=3).fold(Layout::of(3), |layout, node| {
        layout.disk(node, DiskKind::Lossy)
    });
    let mut fleet = Fleet::new(&work, &layout);
    for node in 1..=3 {
        fleet.node(node).set_syncs(SyncBehaviour::IgnoresAll);
        fleet.node_mut(node).start();
    }
    fleet.wait_until_whole();
    let mut campaign = Campaign::start("No syncs", fleet, seed);
    campaign.settle();
    campaign.disturb("power cut of all", &[1, 2, 3], |campaign| {
        let mut random = seed::random(seed);
        (1..=3).for_each(|node| campaign.node(node).cut_power());
        for node in 1..=3 {
            let node = campaign.node(node);
            node.after_power_cut(Survival::Nothing, &mut random);
            node.start();
        }
    });
    campaign.finish_broken(|violation| matches!(violation, Violation::Lost(_)));
}

/// A loaded cluster of servers that leave a check out, or of those that leave out none.
fn under_load(name: &'static str, work: &WorkDir, mutation: Option<&str>) -> Campaign {
    let seed = seed::seed();
    let mut fleet = Fleet::new(work, &Layout::of(3));
    for number in 1..=3 {
        let node = fleet.node_mut(number);
        if let Some(mutation) = mutation {
            node.set("FLOTILLA_MUTATION", mutation);
        }
        node.start();
    }
    fleet.wait_until_whole();
    let campaign = Campaign::start(name, fleet, seed);
    campaign.settle();
    campaign
}

/// Leaves a leader alone with its clients while the others elect another one, then takes it away: nothing
/// may depend on what a minority has. Gives its number.
fn lose_a_parted_leader(campaign: &mut Campaign) -> u32 {
    let leader = campaign.fleet().busiest_leader();
    campaign.disturb("parted and lost", &[leader], |campaign| {
        campaign.fleet().network.isolate_from_nodes(leader);
        std::thread::sleep(PARTED);
        campaign.node(leader).kill();
        campaign.fleet().network.heal();
    });
    leader
}

#[test]
fn nodes_that_do_not_count_a_quorum_are_found_as_a_loss() {
    let work = WorkDir::new("no-quorum");
    let mut campaign = under_load("No quorum", &work, Some("quorum"));
    lose_a_parted_leader(&mut campaign);
    campaign.finish_broken(|violation| matches!(violation, Violation::Lost(_)));
}

#[test]
fn nodes_that_apply_repeats_are_found_as_doubles() {
    let work = WorkDir::new("no-dedup");
    let mut campaign = under_load("No dedup", &work, Some("dedup"));
    UNANSWERED
        .into_iter()
        .for_each(|fault| campaign.round(fault));
    campaign.finish_broken(|violation| matches!(violation, Violation::Repeated { .. }));
}

#[test]
fn nodes_that_ignore_leases_are_found_as_second_holders() {
    let work = WorkDir::new("no-lease");
    let campaign = under_load("No lease", &work, Some("lease"));
    std::thread::sleep(CONSUMED);
    // Two at once, or one after the other removed it: how often they meet depends on the machine.
    campaign.finish_broken(|violation| {
        matches!(
            violation,
            Violation::TwoHolders { .. } | Violation::CameBack(_)
        )
    });
}

/// Or what is done to them, not what they leave out, might be what is found.
#[test]
fn nodes_that_leave_out_no_check_pass_all_of_it() {
    let work = WorkDir::new("control");
    let mut campaign = under_load("Control", &work, None);
    let lost = lose_a_parted_leader(&mut campaign);
    campaign.fleet().restart(lost);
    UNANSWERED
        .into_iter()
        .for_each(|fault| campaign.round(fault));
    campaign.finish();
}
