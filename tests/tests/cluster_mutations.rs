//! Clusters that are made to break a promise: the check must see it, or its silence elsewhere would
//! mean nothing.

use flotilla_tests::checker::Violation;
use flotilla_tests::cluster::{Campaign, DiskKind, Fleet, Layout};
use flotilla_tests::lossyfs::{Survival, SyncBehaviour};
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::{Plan, Workload};

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
    let workload = Workload::start(&fleet.kubemq(), Plan::small(seed));
    let mut campaign = Campaign::new("No syncs", fleet, workload, seed);
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
