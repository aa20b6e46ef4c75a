//! Clusters of real servers: forming, growing, restarting, leaving.

use flotilla_tests::cluster::fleet::seeds;
use flotilla_tests::cluster::{Campaign, Fleet, Layout, WHOLE_WITHIN};
use flotilla_tests::history::Moment;
use flotilla_tests::load::Load;
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What a restart of all nodes, one after another, may cost.
const GAP_MAX: Duration = Duration::from_secs(1);
/// On a machine where that is out of reach: so many times as long as writes stop while nothing happens.
const QUIET_GAPS_MAX: u32 = 8;
const UNDISTURBED: Duration = Duration::from_secs(4);
/// What moving replicas and leaders to other nodes may cost.
const MOVING_GAP_MAX: Duration = Duration::from_secs(4);
/// Moving all replicas of a small cluster.
const MOVED_WITHIN: Duration = Duration::from_secs(180);
/// A change of members that shows is committed after this time.
const COMMITTED_AFTER: Duration = Duration::from_secs(3);
const PROGRESS: usize = 50;
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);

/// Fails if writes stopped for too long. What is too long for a machine that is too slow for the limit itself is
/// told by how long they stop there while nothing happens.
fn expect_short(gap: Duration, campaign: &Campaign) {
    if gap <= GAP_MAX {
        return;
    }
    let since = campaign.workload().recorder().now();
    std::thread::sleep(UNDISTURBED);
    let quiet = longest_gap(campaign, since);
    assert!(
        gap <= quiet * QUIET_GAPS_MAX,
        "writes to a topic stopped for {gap:?}, and without any disturbance for {quiet:?}"
    );
}

fn under_load(name: &'static str, work: &WorkDir, layout: &Layout) -> Campaign {
    let seed = seed::seed();
    let fleet = Fleet::form(work, layout);
    let campaign = Campaign::start(name, fleet, seed);
    campaign.settle();
    campaign
}

/// How long at most no write to a topic was accepted.
fn longest_gap(campaign: &Campaign, since: Moment) -> Duration {
    let gap = campaign.workload().longest_gap(since);
    let history = campaign.workload().recorder().history();
    println!("{}", gap.describe(&history.faults));
    gap.lasted
}

/// The identity that all running nodes agree on, and the id of each of them.
fn identity(fleet: &Fleet) -> (String, Vec<u64>) {
    let statuses: Vec<_> = fleet
        .running()
        .into_iter()
        .map(|number| fleet.status_when_it_answers(number))
        .collect();
    let clusters: BTreeSet<String> = statuses.iter().map(|one| one.cluster.clone()).collect();
    assert_eq!(clusters.len(), 1, "several clusters: {clusters:?}");
    let ids: Vec<u64> = statuses.iter().map(|status| status.node).collect();
    let cluster = clusters.into_iter().next().expect("one");
    (cluster, ids)
}

/// The wanted replicas of each shard and the voters, as any running node sees them.
fn replicas(fleet: &Fleet) -> Vec<[BTreeSet<u64>; 2]> {
    let running = fleet.running();
    let status = running.iter().find_map(|number| fleet.status(*number));
    let shards = status.map_or_else(Vec::new, |status| status.shards);
    shards
        .into_iter()
        .map(|shard| [shard.replicas, shard.voters].map(|ids| ids.into_iter().collect()))
        .collect()
}

fn wait_for_replicas(fleet: &Fleet, nodes: &[u64]) {
    let wanted: BTreeSet<u64> = nodes.iter().copied().collect();
    let what = format!("every shard's replicas are on {wanted:?} for a while");
    // New voters show before the change that makes them voters is committed.
    let since = Cell::new(None::<Instant>);
    fleet.wait_until(&what, MOVED_WITHIN, |fleet| {
        let replicas = replicas(fleet);
        let is_right =
            !replicas.is_empty() && replicas.iter().flatten().all(|nodes| *nodes == wanted);
        let began = since
            .get()
            .filter(|_| is_right)
            .unwrap_or_else(Instant::now);
        since.set(is_right.then_some(began));
        is_right && began.elapsed() > COMMITTED_AFTER
    });
}

#[test]
fn three_nodes_form_one_cluster_and_come_back_with_their_data() {
    let work = WorkDir::new("form");
    let mut campaign = under_load("forming", &work, &Layout::of(3));
    let before = identity(campaign.fleet());
    assert_eq!(before.1.iter().collect::<BTreeSet<_>>().len(), 3);
    wait_for_replicas(campaign.fleet(), &before.1);
    campaign.disturb("restart of all", &[1, 2, 3], |campaign| {
        (1..=3).for_each(|number| campaign.terminate(number));
        (1..=3).for_each(|number| campaign.node(number).start());
    });
    assert_eq!(identity(campaign.fleet()), before);
    campaign.finish();
}

/// Kills a node, and starts it again when all topics have taken a write without it.
fn live_without(campaign: &mut Campaign, number: u32) {
    campaign.disturb("death", &[number], |campaign| {
        campaign.node(number).kill();
        let since = campaign.workload().recorder().now();
        let accepted = campaign.workload().first_accepted(since, WHOLE_WITHIN);
        assert_eq!(accepted.len(), campaign.workload().topics());
        campaign.node(number).start();
    });
}

/// Every node in turn is asked to end, and started again.
fn restart_one_after_another(campaign: &mut Campaign) {
    for number in 1..=3 {
        campaign.disturb("restart", &[number], |campaign| {
            campaign.terminate(number);
            campaign.node(number).start();
        });
    }
}

#[test]
fn a_rolling_restart_stops_writes_for_less_than_a_second() {
    let work = WorkDir::new("rolling");
    let mut campaign = under_load("rolling restart", &work, &Layout::of(3));
    let began = campaign.workload().recorder().now();
    restart_one_after_another(&mut campaign);
    expect_short(longest_gap(&campaign, began), &campaign);
    campaign.finish();
}

#[test]
fn leaders_spread_over_the_nodes_without_a_failed_send() {
    let work = WorkDir::new("balance");
    let mut campaign = under_load("spreading leaders", &work, &Layout::of(3));
    let began = campaign.workload().recorder().now();
    let is_spread = |fleet: &Fleet| fleet.led().values().all(|led| (1..=2).contains(led));
    let fleet = campaign.fleet();
    fleet.wait_until(
        "every node leads one or two of four shards",
        MOVED_WITHIN,
        is_spread,
    );
    campaign.settle();
    expect_short(longest_gap(&campaign, began), &campaign);
    let failures = campaign.workload().failures().counts().clone();
    campaign.finish();
    assert!(failures.is_empty(), "{failures:?}");
}

/// The real SDK's own clients through a rolling restart and the death of each node.
#[test]
fn what_the_sdk_sends_survives_restarts_and_deaths_of_nodes() {
    let work = WorkDir::new("sdk-load");
    let seed = seed::seed();
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let mut load = Load::start_with(3, &fleet.kubemq(), &work.join("load"), seed);
    for number in 1..=3 {
        let mut progress = |fleet: &Fleet| {
            let accepted = load.wait_for_progress(PROGRESS, PROGRESS_LIMIT);
            assert!(accepted, "nothing is acknowledged\n{}", fleet.describe());
        };
        progress(&fleet);
        let ended = fleet.node_mut(number).terminate();
        assert!(ended.expect("a graceful end").success(), "node {number}");
        progress(&fleet);
        fleet.restart(number);
        fleet.node_mut(number).kill();
        progress(&fleet);
        fleet.restart(number);
    }
    let verdict = load.verdict();
    println!("{}", verdict.report());
    assert!(
        verdict.violations.is_empty(),
        "seed {seed}: {}",
        verdict.report()
    );
    assert!(verdict.consumed > 0 && verdict.followed > 0);
    fleet.terminate();
}

#[test]
fn a_node_without_its_data_comes_back_as_a_new_one() {
    let work = WorkDir::new("wiped");
    let layout = Layout::of(3).set("FLOTILLA_CLUSTER_REPAIR_AFTER", "3s");
    let mut campaign = under_load("wiped node", &work, &layout);
    let (cluster, before) = identity(campaign.fleet());
    campaign.disturb("loss of data", &[3], |campaign| {
        campaign.node(3).kill();
        campaign.node(3).wipe();
        campaign.node(3).start();
    });
    let (same, after) = identity(campaign.fleet());
    assert_eq!(same, cluster);
    assert_eq!(after[..2], before[..2]);
    assert!(!before.contains(&after[2]), "the id of lost data came back");
    wait_for_replicas(campaign.fleet(), &after);
    // Now it is needed, so it must hold what it says.
    live_without(&mut campaign, 1);
    campaign.finish();
}

#[test]
fn a_node_of_another_cluster_is_refused_with_a_reason() {
    let work = WorkDir::new("foreign");
    let layout = Layout {
        nodes: 4,
        ..Layout::of(3)
    };
    let mut fleet = Fleet::form(&work, &layout);
    let before = identity(&fleet);
    let stranger = fleet.node_mut(4);
    stranger.set("FLOTILLA_CLUSTER_SEEDS", &seeds(4..=4));
    stranger.set("FLOTILLA_CLUSTER_EXPECT", "1");
    stranger.start();
    fleet.wait_until("node 4 is a cluster of its own", WHOLE_WITHIN, |fleet| {
        fleet.status(4).is_some_and(|status| status.ready)
    });
    let own = fleet.status_when_it_answers(4).cluster;
    assert_ne!(own, before.0);
    let stranger = fleet.node_mut(4);
    let ended = stranger.terminate();
    assert!(ended.expect("a graceful end").success());
    stranger.set("FLOTILLA_CLUSTER_SEEDS", &seeds(1..=3));
    stranger.set("FLOTILLA_CLUSTER_EXPECT", "3");
    stranger.start();
    // Whether it ends or stays by itself, it says why.
    fleet.wait_until_said(4, "belongs to a node of cluster", WHOLE_WITHIN);
    fleet.node_mut(4).kill();
    assert_eq!(identity(&fleet), before);
    let status = fleet.status_when_it_answers(1);
    assert_eq!(status.nodes.len(), 3, "{:?}", status.nodes);
    fleet.terminate();
}

#[test]
fn one_node_grows_to_three_while_it_serves() {
    let work = WorkDir::new("grow");
    let layout = Layout {
        forming: 1,
        ..Layout::of(3)
    };
    let mut campaign = under_load("growing", &work, &layout);
    let began = campaign.workload().recorder().now();
    for number in 2..=3 {
        campaign.fleet().node_mut(number).start();
        campaign.settle();
    }
    let (_, ids) = identity(campaign.fleet());
    wait_for_replicas(campaign.fleet(), &ids);
    let gap = longest_gap(&campaign, began);
    assert!(gap <= seed::stretched(MOVING_GAP_MAX), "{gap:?}");
    // The first one is not needed any more.
    live_without(&mut campaign, 1);
    campaign.finish();
}

#[test]
fn a_drained_node_is_emptied_and_filled_again_and_may_leave() {
    let work = WorkDir::new("drain");
    let mut campaign = under_load("draining", &work, &Layout::of(4));
    let (_, ids) = identity(campaign.fleet());
    let leaver = ids[3];
    let began = campaign.workload().recorder().now();
    campaign.fleet().ask_to("drain", 4);
    wait_for_replicas(campaign.fleet(), &ids[..3]);
    let emptied = "moved to another node is emptied";
    campaign.fleet().wait_until_said(4, emptied, MOVED_WITHIN);
    campaign.fleet().ask_to("undrain", 4);
    let returned = "node 4 votes again, and all is where it should be";
    campaign
        .fleet()
        .wait_until(returned, MOVED_WITHIN, |fleet| {
            let replicas = replicas(fleet);
            // Of a shard that it does not hold itself the node that is asked knows no voters.
            let is_there =
                |[wanted, voters]: &[BTreeSet<u64>; 2]| voters.is_empty() || wanted == voters;
            replicas.iter().all(is_there)
                && replicas.iter().any(|[_, voters]| voters.contains(&leaver))
        });
    // What it holds is needed now.
    live_without(&mut campaign, 1);
    campaign.fleet().ask_to("drain", 4);
    wait_for_replicas(campaign.fleet(), &ids[..3]);
    campaign.fleet().ask_to("leave", 4);
    campaign.disturb("end of the node that left", &[4], |campaign| {
        campaign.node(4).kill();
    });
    let gap = longest_gap(&campaign, began);
    assert!(gap <= seed::stretched(MOVING_GAP_MAX), "{gap:?}");
    campaign.finish();
}
