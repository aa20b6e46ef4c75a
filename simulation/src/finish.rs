//! The end of a scenario: everything is mended, read back, and compared with what was promised.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_cluster::ClusterHealth;
use flotilla_model::ids::Offset;
use flotilla_model::name::Name;
use flotilla_model::query;
use flotilla_storage::{GroupId, LogHealth, NodeLog, StorageError};
use flotilla_tests::history::check::check;
use flotilla_tests::history::{History, Receipt};

use crate::clients::{Queue, acknowledge, read_topic, receive};
use crate::host::{End, Site};
use crate::network::Weather;
use crate::world::World;

/// For hosts that are up and reach each other, to serve again.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// For replicas to have the same, when nothing is sent any more.
const EQUAL_MAX: Duration = Duration::from_secs(60);
/// For everything that is held to come back, be drained, and for dead letters to arrive.
const DRAIN_MAX: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// The one that drains queues.
const DRAINER: u32 = 1_000;

/// Waits until every host serves every group.
pub async fn wait_until_ready(world: &World, patience: Duration) -> bool {
    wait_for(patience, || are_ready(world)).await
}

fn are_ready(world: &World) -> bool {
    let sites = world.sites();
    sites.len() as u32 == world.host_count()
        && sites.iter().all(|site| site.cluster.health().ready())
}

/// A log whose disk failed has stopped for good: an operator starts the node again.
fn restart_failed(world: &World) {
    for mut host in world.hosts() {
        let health = host.site().map(|site| site.cluster.health());
        if health.is_some_and(|health| matches!(health.log, LogHealth::Failed { .. })) {
            host.end(End::Kill);
            host.start();
        }
    }
}

async fn wait_for(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + patience;
    while !holds() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    true
}

/// Mends, drains, reads and checks.
pub async fn finish(world: &World, topics: &[Name], queues: &[Queue]) {
    mend(world);
    let recovered = wait_for(RECOVERY_MAX, || {
        restart_failed(world);
        are_ready(world)
    });
    if !recovered.await {
        world.violate(format!("not every host serves again: {}", condition(world)));
        return;
    }
    world.tell("all hosts serve");
    if !drain(world, queues).await {
        world.violate(format!(
            "the queues could not be drained in time: {}; {}",
            contents(world, queues).await,
            condition(world)
        ));
        return;
    }
    if !wait_for(EQUAL_MAX, || are_equal(&healths(world))).await {
        world.violate(format!(
            "replicas are not equally far: {}",
            condition(world)
        ));
        return;
    }
    for topic in topics {
        read_everywhere(world, topic).await;
    }
    let voters = voters(world);
    compare_files(world, &voters);
    let history = world.recorder().take();
    for broken in check(&history) {
        world.violate(broken.to_string());
    }
    refused_is_absent(world, &history);
    world.recorder().history().clone_from(&history);
}

fn mend(world: &World) {
    world.wires().mend();
    world.wires().set_weather(Weather {
        latency_min: Duration::from_micros(50),
        latency_max: Duration::from_micros(500),
        loss_odds: 1 << 40,
        refusal_odds: 1 << 40,
    });
    for mut host in world.hosts() {
        if !host.is_up() {
            host.start();
        }
        host.disk().delay_syncs(Duration::ZERO);
    }
}

fn healths(world: &World) -> Vec<(u32, ClusterHealth)> {
    let sites = world.sites().into_iter();
    sites
        .map(|site| (site.number, site.cluster.health()))
        .collect()
}

/// What hosts say when they do not what they should.
fn condition(world: &World) -> String {
    let mut words = Vec::new();
    for host in world.hosts() {
        if let Some(reason) = host.refusal() {
            words.push(format!("host {} does not start: {reason}", host.number));
        } else if host.site().is_none() {
            words.push(format!("host {} is still starting", host.number));
        }
    }
    for (number, health) in healths(world) {
        for group in health.groups {
            words.push(format!(
                "host {number} group {}: {:?}, leader {:?}, term {}, last {:?}, applied {:?}{}",
                group.group,
                group.role,
                group.leader.map(|node| node.0),
                group.term,
                group.last_log,
                group.last_applied,
                group
                    .failed
                    .map(|why| format!(", failed: {why}"))
                    .unwrap_or_default(),
            ));
        }
    }
    words.join("; ")
}

/// Whether all voters of each group have applied the same, and have nothing more.
fn are_equal(healths: &[(u32, ClusterHealth)]) -> bool {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    for group in healths.iter().flat_map(|(_, health)| &health.groups) {
        let last = newest.entry(group.group).or_default();
        *last = (*last).max(group.last_log.unwrap_or_default());
    }
    healths.iter().all(|(number, health)| {
        health.groups.iter().all(|group| {
            let votes = group
                .voters
                .iter()
                .any(|voter| voter.0 == u64::from(*number));
            !votes || group.last_applied.unwrap_or_default() == newest[&group.group]
        })
    })
}

/// Which hosts vote in each group. Node ids are given by the cluster, so hosts are named by their place.
fn voters(world: &World) -> BTreeMap<u32, Vec<u32>> {
    let mut voters: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for site in world.sites() {
        let own = site.cluster.node().id;
        for group in site.cluster.health().groups {
            if group.voters.contains(&own) {
                voters.entry(group.group).or_default().push(site.number);
            }
        }
    }
    voters
}

/// Receives and acknowledges all that the queues still hold.
async fn drain(world: &World, queues: &[Queue]) -> bool {
    let deadline = tokio::time::Instant::now() + DRAIN_MAX;
    loop {
        let mut is_empty = true;
        for queue in queues {
            is_empty &= drain_once(world, &queue.name).await;
        }
        if is_empty {
            break;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    let mut history = world.recorder().history();
    for queue in queues {
        history.queue(queue.name.text()).was_drained = true;
    }
    true
}

/// Takes what can be had now; whether the queue is empty, with nothing held by anybody.
async fn drain_once(world: &World, queue: &Name) -> bool {
    let Some(site) = leader(world, queue) else {
        return false;
    };
    while let Some(hold) = receive(world, &site, queue, DRAINER, 100).await {
        if hold.unread > 0 {
            world.violate(format!(
                "{} messages of {queue} cannot be read",
                hold.unread
            ));
            return false;
        }
        let receipts: Vec<Receipt> = hold.receipts.clone();
        if !acknowledge(&site, queue, &hold).await {
            world.violate(format!(
                "what was drained of {queue} could not be acknowledged"
            ));
            return false;
        }
        let mut history = world.recorder().history();
        history.queue(queue.text()).drained.extend(receipts);
    }
    let shard = site.cluster.shard_for(queue);
    match shard
        .read(|records| query::queue_info(records, queue))
        .await
    {
        Ok(Some(info)) => info.available + info.leased + info.delayed == 0,
        Ok(None) => true,
        Err(_) => false,
    }
}

/// What the queues hold, as far as somebody leads them.
async fn contents(world: &World, queues: &[Queue]) -> String {
    let mut words = Vec::new();
    for Queue { name, .. } in queues {
        let Some(site) = leader(world, name) else {
            words.push(format!("nobody leads the shard of {name}"));
            continue;
        };
        let shard = site.cluster.shard_for(name);
        let info = shard.read(|records| query::queue_info(records, name)).await;
        words.push(format!(
            "{name} at host {} and shard time {}: {info:?}",
            site.number,
            shard.now().0
        ));
    }
    words.join("; ")
}

fn leader(world: &World, name: &Name) -> Option<Site> {
    let mut sites = world.sites().into_iter();
    sites.find(|site| site.cluster.shard_for(name).is_leader())
}

/// Reads a topic whole at every host that has it.
async fn read_everywhere(world: &World, topic: &Name) {
    for site in world.sites() {
        let shard = site.cluster.shard_of(topic).0;
        if !voters(world)
            .get(&shard)
            .is_some_and(|hosts| hosts.contains(&site.number))
        {
            continue;
        }
        match read_topic(world, &site, topic, Offset::FIRST, true).await {
            Ok(reads) => {
                let mut history = world.recorder().history();
                history.topic(topic.text()).reads.extend(reads);
            }
            Err(error) => world.violate(format!(
                "host {} cannot read {topic} to its end: {error}",
                site.number
            )),
        }
    }
}

/// What was answered with an error is not there.
fn refused_is_absent(world: &World, history: &History) {
    for (channel, message) in world.take_refused() {
        let in_topic = history
            .topics
            .get(&channel)
            .is_some_and(|topic| topic.reads.iter().any(|read| read.name == message));
        let in_queue = history.queues.get(&channel).is_some_and(|queue| {
            let all = queue.receipts.iter().chain(&queue.drained);
            all.into_iter().any(|receipt| receipt.name == message)
        });
        if in_topic || in_queue {
            world.violate(format!(
                "{channel}: {message} was answered with an error, and is there"
            ));
        }
    }
}

/// Ends all nodes, and compares what their files hold of each group.
fn compare_files(world: &World, voters: &BTreeMap<u32, Vec<u32>>) {
    for mut host in world.hosts() {
        host.end(End::Kill);
    }
    let mut states: BTreeMap<u32, BTreeMap<u32, State>> = BTreeMap::new();
    for host in world.hosts() {
        match states_of(&host, voters.keys().copied()) {
            Ok(of_host) => {
                states.insert(host.number, of_host);
            }
            Err(error) => world.violate(format!("the log of host {}: {error}", host.number)),
        }
    }
    for (group, hosts) in voters {
        let of_group: Vec<(u32, &State)> = hosts
            .iter()
            .filter_map(|host| Some((*host, states.get(host)?.get(group)?)))
            .collect();
        for pair in of_group.windows(2) {
            let ((one, first), (other, second)) = (pair[0], pair[1]);
            if let Some(difference) = first.differs(second) {
                world.violate(format!(
                    "group {group} of hosts {one} and {other}: {difference}"
                ));
            }
        }
    }
}

/// The entries of a group that lie in a host's log, by their indexes: term, and the bytes.
struct State {
    entries: BTreeMap<u64, (u64, u64, Bytes)>,
}

impl State {
    /// Entries that both have are the same.
    fn differs(&self, other: &Self) -> Option<String> {
        let differing = self.entries.iter().find(|(index, entry)| {
            other
                .entries
                .get(index)
                .is_some_and(|found| found != *entry)
        });
        differing.map(|(index, (term, leader, _))| {
            format!("entry {index} of term {term} of node {leader} is another one there")
        })
    }
}

fn states_of(
    host: &crate::host::Host,
    groups: impl Iterator<Item = u32>,
) -> Result<BTreeMap<u32, State>, StorageError> {
    let (config, disk) = host.log();
    let (log, _) = NodeLog::open(config, Arc::new(disk))?;
    let mut states = BTreeMap::new();
    for number in groups {
        let group = GroupId(number);
        let state = log.group_state(group)?;
        let last = state.last.map_or(0, |last| last.index);
        let mut next = state.purged.map_or(0, |purged| purged.index + 1);
        let mut entries = BTreeMap::new();
        while next <= last {
            let found = log.entries(group, next..last + 1, 1 << 20)?;
            let Some(last) = found.last() else {
                break;
            };
            next = last.index + 1;
            for entry in found {
                let bytes = entry.body.as_bytes().clone();
                entries.insert(entry.index, (entry.term, entry.leader, bytes));
            }
        }
        states.insert(number, State { entries });
    }
    log.shutdown()?;
    Ok(states)
}
