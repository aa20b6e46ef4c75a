//! Clusters of two releases: the present one, and one that stands for the release before, because it is told
//! to follow that one's feature levels only.

use flotilla_tests::cluster::{Campaign, Fleet, Layout, Node, WHOLE_WITHIN};
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;

/// Up to which level a node follows.
const FOLLOWS: &str = "FLOTILLA_CLUSTER_FEATURE_LEVEL_MAX";
/// What the release before has, and the present one.
const BEFORE: u64 = 3;
const NOW: u64 = 4;

/// Waits until all running nodes say so. A level never falls: once it is higher, this fails.
fn wait_for_level(fleet: &Fleet, level: u64) {
    let is_there = |fleet: &Fleet| {
        let mut statuses = fleet.running().into_iter().map(|node| fleet.status(node));
        statuses.all(|status| status.is_some_and(|status| status.feature_level == level))
    };
    fleet.wait_until(&format!("level {level}"), WHOLE_WITHIN, is_there);
}

/// Ends a node and starts it with another release.
fn change(campaign: &mut Campaign, number: u32, level: u64) {
    campaign.disturb(
        &format!("release of level {level}"),
        &[number],
        |campaign| {
            campaign.terminate(number);
            start(campaign.node(number), level);
        },
    );
}

fn start(node: &mut Node, level: u64) {
    node.set(FOLLOWS, &level.to_string());
    node.start();
}

#[test]
fn nodes_are_upgraded_one_by_one_and_only_the_last_one_closes_the_way_back() {
    let work = WorkDir::new("upgrade");
    let seed = seed::seed();
    let mut fleet = Fleet::new(&work, &Layout::of(3));
    for number in 1..=3 {
        start(fleet.node_mut(number), BEFORE);
    }
    fleet.wait_until_whole();
    wait_for_level(&fleet, BEFORE);
    let mut campaign = Campaign::start("rolling upgrade", fleet, seed);
    campaign.settle();
    change(&mut campaign, 1, NOW);
    change(&mut campaign, 1, BEFORE);
    for number in 1..=3 {
        wait_for_level(campaign.fleet(), BEFORE);
        change(&mut campaign, number, NOW);
    }
    wait_for_level(campaign.fleet(), NOW);
    campaign.settle();

    campaign.disturb("old release", &[3], |campaign| {
        campaign.terminate(3);
        start(campaign.node(3), BEFORE);
        let reason = format!("is of feature level {NOW}, this node follows levels up to {BEFORE}");
        campaign.fleet().wait_until_said(3, &reason, WHOLE_WITHIN);
        campaign.node(3).kill();
        start(campaign.node(3), NOW);
    });
    campaign.finish();
}
