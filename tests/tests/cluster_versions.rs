//! Clusters of two releases: the present one, and the variant build, which follows the feature levels of
//! the one before only.

use flotilla_tests::cluster::{Campaign, Fleet, Layout, WHOLE_WITHIN};
use flotilla_tests::seed;
use flotilla_tests::server::Build;
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::{Plan, Workload};

/// What the release before has, and the present one.
const BEFORE: u64 = 2;
const NOW: u64 = 3;

/// Waits until all running nodes say so. A level never falls: once it is higher, this fails.
fn wait_for_level(fleet: &Fleet, level: u64) {
    let is_there = |fleet: &Fleet| {
        let mut statuses = fleet.running().into_iter().map(|node| fleet.status(node));
        statuses.all(|status| status.is_some_and(|status| status.feature_level == level))
    };
    fleet.wait_until(&format!("level {level}"), WHOLE_WITHIN, is_there);
}

/// Ends a node and starts it with another release.
fn change(campaign: &mut Campaign, number: u32, build: Build) {
    campaign.disturb(&format!("{build:?}"), &[number], |campaign| {
        campaign.terminate(number);
        campaign.node(number).set_build(build);
        campaign.node(number).start();
    });
}

#[test]
fn nodes_are_upgraded_one_by_one_and_only_the_last_one_closes_the_way_back() {
    let work = WorkDir::new("upgrade");
    let seed = seed::seed();
    let mut fleet = Fleet::new(&work, &Layout::of(3));
    for number in 1..=3 {
        fleet.node_mut(number).set_build(Build::Variant);
        fleet.node_mut(number).start();
    }
    fleet.wait_until_whole();
    // A cluster begins with the first level, and comes to that of its nodes in some seconds.
    wait_for_level(&fleet, BEFORE);
    let workload = Workload::start(&fleet.kubemq(), Plan::small(seed));
    let mut campaign = Campaign::new("rolling upgrade", fleet, workload, seed);
    campaign.settle();
    change(&mut campaign, 1, Build::Normal);
    change(&mut campaign, 1, Build::Variant);
    for number in 1..=3 {
        wait_for_level(campaign.fleet(), BEFORE);
        change(&mut campaign, number, Build::Normal);
    }
    wait_for_level(campaign.fleet(), NOW);
    campaign.settle();

    campaign.disturb("old release", &[3], |campaign| {
        campaign.terminate(3);
        campaign.node(3).set_build(Build::Variant);
        campaign.node(3).start();
        let reason = format!("is of feature level {NOW}, this node follows levels up to {BEFORE}");
        campaign.fleet().wait_until_said(3, &reason, WHOLE_WITHIN);
        campaign.node(3).kill();
        campaign.node(3).set_build(Build::Normal);
        campaign.node(3).start();
    });
    campaign.finish();
}
