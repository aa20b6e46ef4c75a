//! Clusters of nodes that follow different feature levels.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use flotilla_model::command::Command;
use flotilla_model::format::FEATURE_LEVEL;
use flotilla_model::ids::NodeId;
use flotilla_model::name::Name;
use flotilla_model::query;

use super::fleet::Fleet;
use super::{Node, PATIENCE};
use crate::{Cluster, ClusterConfig, ClusterError};

const FIRST: u16 = 1;
/// What is said of [`FEATURE_LEVEL`].
const LATER: &str = "is of feature level 4";

/// Some nodes are of the release before.
fn second_and_third_are_old(config: &mut ClusterConfig) {
    if ["n2", "n3"].contains(&&*config.node_name) {
        config.feature_level_max = FIRST;
    }
}

fn second_is_old(config: &mut ClusterConfig) {
    if config.node_name == "n2" {
        config.feature_level_max = FIRST;
    }
}

fn level(node: &Node) -> u16 {
    node.cluster.inner.roster.view().cluster.feature_level
}

/// All groups that a node holds are of the level that the cluster has.
fn is_raised(node: &Node) -> bool {
    let groups = &node.cluster.inner.groups;
    level(node) == FEATURE_LEVEL
        && groups.iter().all(|group| {
            let is_member = !group.voters().is_empty();
            !is_member || group.replica.feature_level() == FEATURE_LEVEL
        })
}

/// Takes back what a node's identity file says about the level, as if it had been killed before it was
/// written.
fn forget_level(fleet: &Fleet, place: usize) {
    let path = fleet.berths[place].dir.path().join("node.identity");
    let text = fs::read_to_string(&path).unwrap();
    let older = text.replace(&format!("format 3\nlevel {FEATURE_LEVEL}\n"), "format 2\n");
    assert_ne!(text, older);
    fs::write(&path, older).unwrap();
}

/// What a new node of the release before hears when it asks to be taken in.
fn wait_until_told(fleet: &Fleet, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ClusterConfig::new(dir.path());
    config.listen = Some(Arc::new(TcpListener::bind("127.0.0.1:0").unwrap()));
    config.seeds = fleet.seeds();
    config.feature_level_max = FIRST;
    let progress = config.progress.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = runtime.spawn(Cluster::start(config, runtime.handle().clone()));
    fleet.wait_for(words, |_| progress.stage().to_string().contains(words));
    start.abort();
    runtime.shutdown_timeout(PATIENCE);
}

#[test]
fn the_level_rises_with_the_last_node_and_then_there_is_no_way_back() {
    let mut fleet = Fleet::new(3);
    fleet.tune = second_and_third_are_old;
    fleet.start_all();
    fleet.wait_for("the records", |fleet| fleet.is_settled(3, 3));
    let topic = Name::topic("topic").unwrap();
    fleet.node(0).append(&topic, &["one"]);
    // What is new cannot be begun before its time, not even by those who know it.
    let shard = fleet.node(0).shard(&topic);
    let early = Command::ForgetNode { node: NodeId(9) };
    let early = shard.propose(vec![early], Vec::new(), Instant::now() + PATIENCE);
    let refused = fleet.node(0).runtime.block_on(early);
    assert!(
        matches!(refused, Err(ClusterError::Invalid { .. })),
        "{refused:?}"
    );
    // There and back again, as long as the second one is not there.
    for tune in [second_is_old, second_and_third_are_old] {
        fleet.kill(2);
        fleet.tune = tune;
        fleet.start_these(&[2]);
        fleet.wait_for("all nodes", |fleet| fleet.is_settled(3, 3));
        fleet.node(2).append(&topic, &["again"]);
        assert!(fleet.nodes().all(|node| level(node) == FIRST));
    }
    fleet.tune = |_| ();
    for place in [1, 2] {
        fleet.kill(place);
        fleet.start_these(&[place]);
    }
    fleet.wait_for("the level everywhere", |fleet| fleet.nodes().all(is_raised));
    fleet.node(2).append(&topic, &["last"]);
    fleet.wait_for("all messages", |fleet| {
        (0..3).all(|place| fleet.holds(place, &topic, 4))
    });

    fleet.kill(2);
    fleet.tune = second_and_third_are_old;
    let complaint = fleet.try_start_one(2).err().unwrap().to_string();
    assert!(
        complaint.contains(&format!("the data directory {LATER}")),
        "{complaint}"
    );
    // Killed before it had written down which level there is, it learns so from the others.
    forget_level(&fleet, 2);
    fleet.seeds = Some(fleet.seeds()[..2].to_vec());
    let complaint = fleet.try_start_one(2).err().unwrap().to_string();
    assert!(
        complaint.contains(&format!("the cluster {LATER}")),
        "{complaint}"
    );
    // And one that was never there waits, and says what for.
    wait_until_told(&fleet, &format!("the cluster {LATER}"));
}

#[test]
fn an_entry_of_a_later_level_stops_its_group_with_the_reason() {
    let mut fleet = Fleet::new(1);
    fleet.seeds = Some(Vec::new());
    fleet.start_all();
    fleet.wait_for("the level", |fleet| is_raised(fleet.node(0)));
    fleet.kill(0);
    forget_level(&fleet, 0);
    fleet.tune = |config| config.feature_level_max = FIRST;
    match fleet.try_start_one(0) {
        // A checkpoint had it already.
        Err(error) => assert!(error.to_string().contains(LATER), "{error}"),
        Ok(()) => fleet.wait_for("the reason", |fleet| {
            let groups = fleet.node(0).cluster.health().groups;
            groups.iter().all(|group| {
                let reason = group.failed.as_deref().unwrap_or_default();
                reason.contains(&format!("{LATER}, this node knows levels up to {FIRST}"))
            })
        }),
    }
}

#[test]
fn what_a_removed_node_left_is_cleared() {
    let mut fleet = Fleet::start(4);
    fleet.wait_for("the records", |fleet| fleet.is_settled(4, 3));
    fleet.wait_for("the level everywhere", |fleet| fleet.nodes().all(is_raised));
    let topics: Vec<Name> = (0..8)
        .map(|number| Name::topic(&format!("topic-{number}")).unwrap())
        .collect();
    let leaving = fleet.node(3).cluster.node().id;
    for topic in &topics {
        fleet.node(3).append(topic, &["one"]);
    }
    let node = fleet.node(0);
    let deadline = Instant::now() + PATIENCE;
    node.runtime
        .block_on(node.cluster.leave(leaving, deadline))
        .unwrap();
    fleet.kill(3);
    fleet.wait_for("nothing of it", |fleet| {
        fleet.nodes().all(|node| {
            node.cluster.inner.groups.iter().all(|group| {
                let remembered = group
                    .replica
                    .read(|records| query::remembers_node(records, leaving));
                group.voters().is_empty() || !node.runtime.block_on(remembered).unwrap()
            })
        })
    });
}
