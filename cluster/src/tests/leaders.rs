//! Who leads in a fleet, and how nodes are parted.

use std::time::{Duration, Instant};

use flotilla_model::ids::ShardId;

use super::fleet::Fleet;
use super::{Node, PATIENCE};

impl Fleet {
    /// A cluster of three with few shards, every replica caught up.
    pub fn of_three(tune: fn(&mut crate::ClusterConfig)) -> Self {
        let mut fleet = Self::new(3);
        fleet.tune = tune;
        fleet.start_all();
        fleet.wait_until_ready();
        fleet
    }

    pub fn wait_until_ready(&self) {
        self.wait_for("leaders and replicas that have recovered", |fleet| {
            fleet.nodes().all(|node| {
                let groups = &node.cluster.inner.groups;
                node.cluster.health().ready()
                    && groups.iter().all(|group| group.replica.is_recovered())
            })
        });
    }

    /// Takes a node out, running.
    pub fn take(&mut self, place: usize) -> Node {
        self.berths[place].node.take().expect("the node runs")
    }

    pub fn restart(&mut self, place: usize) {
        self.start_these(&[place]);
        self.wait_until_ready();
    }

    /// Parts a node from all others, or joins it with them again.
    pub fn isolate(&self, place: usize, is_cut: bool) {
        let own = self.node(place).cluster.node().id;
        for node in self.nodes() {
            let id = node.cluster.node().id;
            if id != own {
                node.cluster.inner.links.cut(own, is_cut);
                self.node(place).cluster.inner.links.cut(id, is_cut);
            }
        }
    }

    /// The place of the node that leads a shard and takes entries.
    pub fn leader(&self, shard: ShardId) -> usize {
        self.leader_but(shard, usize::MAX)
    }

    /// The same, of those that are not at a place: what is cut off believes long that it leads.
    pub fn leader_but(&self, shard: ShardId, not: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leading = (0..self.berths.len()).find(|place| {
                let node = self.berths[*place].node.as_ref();
                *place != not
                    && node.is_some_and(|node| node.cluster.shard(shard).unwrap().is_leader())
            });
            if let Some(place) = leading {
                return place;
            }
            assert!(Instant::now() < deadline, "nobody leads shard {shard}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A running node that does not lead a shard.
    pub fn follower(&self, shard: ShardId) -> usize {
        let leader = self.leader(shard);
        (0..self.berths.len())
            .find(|place| *place != leader && self.berths[*place].node.is_some())
            .expect("there are followers")
    }

    /// All places, the one first to which the lead of a shard is brought in the end: a leader there
    /// stays it.
    pub fn places_by_preference(&self, shard: ShardId) -> Vec<usize> {
        self.wait_for("the places of the shards", |fleet| {
            fleet.node(0).cluster.inner.roster.replicas(shard).is_some()
        });
        let mut places: Vec<usize> = (0..self.berths.len()).collect();
        let replicas = self.node(0).cluster.inner.roster.replicas(shard);
        let preferred = replicas.expect("the shard has a place")[0];
        places.sort_by_key(|place| self.node(*place).cluster.node().id != preferred);
        places
    }

    /// Has the node lead a shard that leads it in the end; the places of it and of the others.
    pub fn settle_lead(&self, shard: ShardId) -> Vec<usize> {
        let places = self.places_by_preference(shard);
        self.make_leader(shard, places[0]);
        places
    }

    /// Makes a node the leader of a shard.
    pub fn make_leader(&self, shard: ShardId, place: usize) {
        let to = self.node(place).cluster.node().id;
        self.wait_for("the node to lead", |fleet| {
            let leader = fleet.node(fleet.leader(shard));
            let group = leader.cluster.inner.groups[shard.0 as usize].clone();
            let deadline = Instant::now() + PATIENCE;
            let _ = leader.runtime.block_on(group.transfer_to(to, deadline));
            fleet.node(place).cluster.shard(shard).unwrap().is_leader()
        });
    }
}
