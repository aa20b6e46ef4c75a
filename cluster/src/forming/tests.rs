//! Nodes that look for each other, on a network made of function calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_storage::RealDisk;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::message::Joined;
use super::*;
use crate::identity::{Passport, PassportOffice, Standing};
use crate::progress::StartProgress;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where nodes answer, by address.
#[derive(Clone, Default)]
struct Harbour {
    services: Arc<Mutex<HashMap<String, FormingService>>>,
    /// Pairs of addresses that cannot reach each other.
    cut: Arc<Mutex<BTreeSet<(String, String)>>>,
}

struct FromNode {
    harbour: Harbour,
    address: String,
}

impl Ask for FromNode {
    fn ask(
        &self,
        address: String,
        question: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let harbour = self.harbour.clone();
        let pair = (self.address.clone(), address.clone());
        Box::pin(async move {
            let delay = rand::rng().random_range(0..20);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            if harbour.cut.lock().contains(&pair) {
                return Err("cut off".to_owned());
            }
            let service = harbour.services.lock().get(&address).cloned();
            let service = service.ok_or("nobody is there")?;
            // It goes on when nobody waits any more.
            let answer = tokio::spawn(service.answer(question));
            let answer = tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_| "no answer in time")?
                .map_err(|error| error.to_string())?;
            tokio::time::sleep(Duration::from_millis(delay)).await;
            answer
        })
    }

    fn resolve(&self, seed: String) -> BoxFuture<'static, Result<Vec<String>, String>> {
        Box::pin(async move { Ok(vec![seed]) })
    }
}

/// Gives every disk the number that it has, or the next one.
struct Numbers {
    plan: Plan,
    joined: Arc<Mutex<Vec<flotilla_model::ids::DiskId>>>,
}

impl Registrar for Numbers {
    fn join(&self, candidate: Candidate) -> BoxFuture<'static, Result<Joined, NotTaken>> {
        let disk = candidate.node.disk;
        let node = self.plan.node_of(disk).unwrap_or_else(|| {
            let mut joined = self.joined.lock();
            let place = joined
                .iter()
                .position(|known| *known == disk)
                .unwrap_or_else(|| {
                    joined.push(disk);
                    joined.len() - 1
                });
            NodeId((self.plan.nodes.len() + place + 1) as u64)
        });
        let joined = Joined {
            cluster: self.plan.cluster,
            node,
            shards: self.plan.shards,
            addresses: Vec::new(),
        };
        Box::pin(async move { Ok(joined) })
    }

    fn objection(&self, _node: &PlannedNode) -> Option<String> {
        None
    }
}

struct TestNode {
    dir: TempDir,
    address: String,
    terms: Terms,
    seeds: Vec<String>,
    running: Option<(PassportOffice, StartProgress, JoinHandle<()>)>,
}

struct Fleet {
    harbour: Harbour,
    joined: Arc<Mutex<Vec<flotilla_model::ids::DiskId>>>,
    nodes: Vec<TestNode>,
}

impl Fleet {
    fn new(count: usize, expect: u32) -> Self {
        let address = |place: usize| format!("node-{place}:7600");
        let seeds: Vec<String> = (0..count.min(3)).map(address).collect();
        let nodes = (0..count)
            .map(|place| TestNode {
                dir: tempfile::tempdir().unwrap(),
                address: address(place),
                terms: Terms {
                    expect,
                    shards: 4,
                    replicas: 3,
                },
                seeds: seeds.clone(),
                running: None,
            })
            .collect();
        Self {
            harbour: Harbour::default(),
            joined: Arc::default(),
            nodes,
        }
    }

    fn start(&mut self, place: usize) {
        let harbour = self.harbour.clone();
        let joined = self.joined.clone();
        let node = &mut self.nodes[place];
        let office = PassportOffice::open(node.dir.path(), &RealDisk).unwrap();
        let progress = StartProgress::default();
        let me = PlannedNode {
            disk: office.passport().disk,
            name: format!("n{place}"),
            address: node.address.clone(),
            zone: String::new(),
            feature_level_max: 1,
        };
        let board = Board::default();
        let service = FormingService::new(office.clone(), me.clone(), node.terms, board.clone());
        harbour
            .services
            .lock()
            .insert(node.address.clone(), service.clone());
        let forming = Forming {
            office: office.clone(),
            me,
            terms: node.terms,
            seeds: node.seeds.clone(),
            board,
            ask: Arc::new(FromNode {
                harbour,
                address: node.address.clone(),
            }),
            progress: progress.clone(),
        };
        let run = {
            let office = office.clone();
            async move {
                forming.run().await.unwrap();
                if let Standing::Member {
                    plan: Some(plan), ..
                } = office.passport().standing
                {
                    service.serve_joins(Arc::new(Numbers { plan, joined }));
                }
            }
        };
        node.running = Some((office, progress, tokio::spawn(run)));
    }

    fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|place| self.start(place));
    }

    fn kill(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        self.harbour.services.lock().remove(&node.address);
        if let Some((_, _, task)) = node.running.take() {
            task.abort();
        }
    }

    fn wipe(&mut self, place: usize) {
        self.kill(place);
        self.nodes[place].dir = tempfile::tempdir().unwrap();
    }

    fn passport(&self, place: usize) -> Passport {
        let (office, ..) = self.nodes[place].running.as_ref().unwrap();
        office.passport()
    }

    fn stage(&self, place: usize) -> String {
        let (_, progress, _) = self.nodes[place].running.as_ref().unwrap();
        progress.stage().to_string()
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let stages: Vec<_> = (0..self.nodes.len())
                .map(|place| {
                    let running = self.nodes[place].running.is_some();
                    running.then(|| (self.stage(place), self.passport(place).standing))
                })
                .collect();
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}: {stages:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All running nodes are members of one cluster, under different ids.
    fn is_one_cluster(&self) -> bool {
        let mut clusters = BTreeMap::new();
        let mut ids = BTreeSet::new();
        let mut members = 0;
        for place in 0..self.nodes.len() {
            if let Some(identity) = self.passport(place).identity() {
                members += 1;
                clusters.insert(identity.cluster, place);
                ids.insert(identity.node);
            }
        }
        assert!(clusters.len() <= 1, "several clusters: {clusters:?}");
        assert_eq!(ids.len(), members, "an id twice: {ids:?}");
        members == self.nodes.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_nodes_with_the_same_seeds_form_one_cluster() {
    let mut fleet = Fleet::new(5, 3);
    fleet.start_all();
    fleet.wait_for("one cluster", Fleet::is_one_cluster).await;
    let mut ids: Vec<u64> = (0..5)
        .map(|place| fleet.passport(place).identity().unwrap().node.0)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enough_nodes_for_several_clusters_form_one() {
    let rounds = [1, 2, 3].map(|expect| {
        tokio::spawn(async move {
            let mut fleet = Fleet::new(7, expect);
            fleet.start_all();
            let what = format!("one cluster, expecting {expect}");
            fleet.wait_for(&what, Fleet::is_one_cluster).await;
        })
    });
    for round in futures::future::join_all(rounds).await {
        round.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_any_moment_of_forming_never_make_two_clusters() {
    let rounds = (0..24u64).map(|seed| {
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut fleet = Fleet::new(3, 3);
            fleet.start_all();
            for _ in 0..random.random_range(1..6) {
                let place = random.random_range(0..3);
                let pause = Duration::from_millis(random.random_range(0..600));
                tokio::time::sleep(pause).await;
                fleet.kill(place);
                let pause = Duration::from_millis(random.random_range(0..300));
                tokio::time::sleep(pause).await;
                fleet.start(place);
                fleet.is_one_cluster();
            }
            let what = format!("one cluster, seed {seed}");
            fleet.wait_for(&what, Fleet::is_one_cluster).await;
        })
    });
    for round in futures::future::join_all(rounds).await {
        round.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_nodes_come_back_as_new_ones_whenever_it_happens() {
    let rounds = (0..24u64).map(|seed| {
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut fleet = Fleet::new(3, 3);
            fleet.start_all();
            let place = random.random_range(0..3);
            let pause = Duration::from_millis(random.random_range(0..900));
            tokio::time::sleep(pause).await;
            fleet.wipe(place);
            fleet.start(place);
            let what = format!("one cluster, seed {seed}, wiped {place}");
            fleet.wait_for(&what, Fleet::is_one_cluster).await;
        })
    });
    for round in futures::future::join_all(rounds).await {
        round.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_nodes_wait_and_say_for_what() {
    let mut fleet = Fleet::new(3, 3);
    fleet.start(0);
    fleet.start(1);
    let names_what_is_missing = |fleet: &Fleet| {
        let stage = fleet.stage(0);
        stage.contains("1 more of the 3 nodes") && stage.contains("node-2:7600")
    };
    fleet
        .wait_for("what is missing", names_what_is_missing)
        .await;
    assert_eq!(fleet.passport(0).standing, Standing::Fresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_settings_are_named_and_nothing_is_formed() {
    let mut fleet = Fleet::new(3, 3);
    fleet.nodes[1].terms.shards = 8;
    fleet.start_all();
    let names_the_setting = |fleet: &Fleet| {
        fleet
            .stage(0)
            .contains("cluster.shards is 4 here and 8 there")
    };
    fleet.wait_for("the setting", names_the_setting).await;
    let is_fresh = |place| fleet.passport(place).standing == Standing::Fresh;
    assert!((0..3).all(is_fresh));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_node_with_seeds_forms_nothing_while_one_of_them_is_silent() {
    let mut fleet = Fleet::new(2, 1);
    fleet.start(0);
    let waits = |fleet: &Fleet| fleet.stage(0).contains("waiting for all seeds");
    fleet.wait_for("the seed", waits).await;
    fleet.start(1);
    fleet.wait_for("one cluster", Fleet::is_one_cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_do_not_see_each_other_are_not_put_together() {
    let mut fleet = Fleet::new(3, 3);
    let cut = [(1, 2), (2, 1)].map(|(from, to)| (fleet.address(from), fleet.address(to)));
    fleet.harbour.cut.lock().extend(cut);
    fleet.start_all();
    let waits = |fleet: &Fleet| fleet.stage(0).contains("waiting for n1 to reach n2");
    fleet.wait_for("the cut to be named", waits).await;
    fleet.harbour.cut.lock().clear();
    fleet.wait_for("one cluster", Fleet::is_one_cluster).await;
}

impl Fleet {
    fn address(&self, place: usize) -> String {
        self.nodes[place].address.clone()
    }
}
