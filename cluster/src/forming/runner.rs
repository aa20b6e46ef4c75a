//! The node that looks for a cluster: asks, decides, and does what was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::ids::{DiskId, NodeId};
use futures::future::{BoxFuture, join_all};
use rand::Rng;
use rand::seq::SliceRandom;

use super::board::Board;
use super::decision::{PartyView, Seeds, Step, fresh_step, planned_step};
use super::message::{Answer, Candidate, Question, Terms, decode, encode};
use super::plan::{Plan, PlannedNode};
use super::promise::{drop_plan, promise, promised_to};
use super::service::greeting;
use crate::error::ClusterError;
use crate::identity::{ClusterId, Identity, Passport, PassportOffice, Standing};
use crate::progress::{StartProgress, StartStage};

/// For one question to one address.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A promise is written to a disk, and a node that joins waits for the metadata to be written.
const PROMISE_TIMEOUT: Duration = Duration::from_secs(5);
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between rounds of questions: short at first, longer while nothing happens.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_millis(2_000);
/// What is asked in one round: seeds with their addresses, and who was met.
const ADDRESSES_MAX: usize = 256;

/// How a node that has no id yet reaches others.
pub(crate) trait Ask: Send + Sync + 'static {
    fn ask(
        &self,
        address: String,
        question: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>>;

    /// All addresses of a seed, as `ip:port`.
    fn resolve(&self, seed: String) -> BoxFuture<'static, Result<Vec<String>, String>>;
}

/// A node on its way into a cluster.
pub(crate) struct Forming {
    pub office: PassportOffice,
    pub me: PlannedNode,
    pub terms: Terms,
    pub seeds: Vec<String>,
    pub board: Board,
    pub ask: Arc<dyn Ask>,
    pub progress: StartProgress,
}

impl Forming {
    /// Works until the node is a member of a cluster, for as long as that takes. Answers with the
    /// addresses of members that are known by then.
    pub async fn run(self) -> Result<(Identity, BTreeMap<NodeId, String>), ClusterError> {
        let mut pause = PAUSE_MIN;
        // A promise kept from an earlier start counts from now: nothing was asked before.
        let mut promised_at = Instant::now();
        let mut last_cluster = promised_to(&self.office.passport());
        loop {
            let seeds = self.ask_around().await;
            let passport = self.office.passport();
            if promised_to(&passport) != last_cluster {
                last_cluster = promised_to(&passport);
                promised_at = Instant::now();
                pause = PAUSE_MIN;
                // What was asked in this round may be older than the promise.
                continue;
            }
            let done = match &passport.standing {
                Standing::Fresh => self.be_fresh(&passport, &seeds).await?,
                Standing::Planned(plan) => self.be_planned(plan, promised_at).await?,
                Standing::Member { .. } => passport
                    .identity()
                    .map(|identity| (identity, BTreeMap::new())),
            };
            if let Some(done) = done {
                return Ok(done);
            }
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {
                    pause = (pause * 5 / 4).min(PAUSE_MAX);
                }
                () = self.board.news() => pause = PAUSE_MIN,
                // Someone had this node promise itself.
                () = self.passport_changed(&passport) => pause = PAUSE_MIN,
            }
        }
    }

    async fn passport_changed(&self, known: &Passport) {
        let mut passport = self.office.watch();
        // The office lives as long as this node.
        let _ = passport.wait_for(|present| present != known).await;
    }

    /// Asks everyone who they are.
    async fn ask_around(&self) -> Seeds {
        let mut addresses: BTreeSet<String> = self.board.take_rumours();
        if let Standing::Planned(plan) = &self.office.passport().standing {
            addresses.extend(plan.nodes.iter().map(|node| node.address.clone()));
        }
        let (mut seeds, of_seeds) = self.resolve_seeds().await;
        // The seeds come first, should there be too many.
        let mut wanted: Vec<String> = of_seeds
            .iter()
            .flat_map(|(_, found)| found.clone())
            .collect();
        addresses.retain(|address| !wanted.contains(address) && *address != self.me.address);
        wanted.extend(addresses);
        wanted.truncate(ADDRESSES_MAX);
        let answers = join_all(wanted.iter().map(|address| self.greet(address))).await;
        let answers: BTreeMap<&String, Result<DiskId, String>> =
            wanted.iter().zip(answers).collect();
        for (seed, found) in &of_seeds {
            let mut answered = false;
            let mut complaint = "it has no address";
            for address in found {
                match answers.get(address) {
                    Some(Ok(disk)) => {
                        answered = true;
                        seeds.disks.insert(*disk);
                    }
                    Some(Err(reason)) => complaint = reason,
                    None => {}
                }
            }
            if !answered {
                seeds.silent.push(format!("{seed} ({complaint})"));
            }
        }
        self.board.expire(Instant::now());
        seeds
    }

    /// How many nodes the seeds stand for, and where those are.
    async fn resolve_seeds(&self) -> (Seeds, Vec<(&str, Vec<String>)>) {
        let found = join_all(self.seeds.iter().map(|seed| self.ask.resolve(seed.clone()))).await;
        let mut seeds = Seeds::default();
        let mut of_seeds = Vec::new();
        let mut counted: BTreeSet<String> = BTreeSet::new();
        for (seed, found) in self.seeds.iter().zip(found) {
            match found {
                Ok(found) => {
                    let new: Vec<&String> = found
                        .iter()
                        .filter(|address| !counted.contains(*address))
                        .collect();
                    // A node may have one address of each family under its name.
                    let of_v6 = new
                        .iter()
                        .filter(|address| address.starts_with('['))
                        .count();
                    seeds.count += of_v6.max(new.len() - of_v6);
                    counted.extend(found.iter().cloned());
                    of_seeds.push((seed.as_str(), found));
                }
                Err(error) => {
                    seeds.count += 1;
                    seeds.silent.push(format!("{seed} ({error})"));
                }
            }
        }
        (seeds, of_seeds)
    }

    /// Who is at an address.
    async fn greet(&self, address: &str) -> Result<DiskId, String> {
        let asked_at = Instant::now();
        let mine = greeting(&self.office, &self.me, self.terms, &self.board);
        match self
            .question(address, Question::Greet(mine), ASK_TIMEOUT)
            .await?
        {
            Answer::Greeting(theirs) => {
                let disk = theirs.node.disk;
                // A seed may be this node itself.
                if disk != self.me.disk {
                    self.board.reached(address, theirs, asked_at);
                }
                Ok(disk)
            }
            Answer::Refused(reason) | Answer::NotYet(reason) => Err(reason),
            other => Err(format!("it answered {other:?}")),
        }
    }

    async fn question(
        &self,
        address: &str,
        question: Question,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let question = encode(&question)?;
        let answer = self.ask.ask(address.to_owned(), question, timeout).await?;
        decode(&answer)
    }

    fn wait(&self, why: String) {
        let stage = StartStage::Forming(why);
        if self.progress.stage() != stage {
            tracing::info!(%stage, "no member of a cluster yet");
            self.progress.set(stage);
        }
    }

    async fn be_fresh(
        &self,
        passport: &Passport,
        seeds: &Seeds,
    ) -> Result<Option<(Identity, BTreeMap<NodeId, String>)>, ClusterError> {
        let me = greeting(&self.office, &self.me, self.terms, &self.board);
        match fresh_step(&me, &self.board.sightings(), seeds) {
            Step::Join { cluster, addresses } => self.join(cluster, addresses).await,
            Step::Plan(nodes) => {
                let plan = Plan {
                    cluster: ClusterId(rand::random()),
                    coordinator: passport.disk,
                    shards: self.terms.shards,
                    replicas: self.terms.replicas,
                    nodes,
                };
                tracing::info!(cluster = %plan.cluster, nodes = plan.nodes.len(), "planning a cluster");
                // Refused when another one's plan came first.
                promise(&self.office, plan).await?;
                Ok(None)
            }
            Step::Wait(why) => {
                self.wait(why);
                Ok(None)
            }
            Step::BecomeMember | Step::DropPlan(_) => Ok(None),
        }
    }

    async fn join(
        &self,
        cluster: ClusterId,
        mut addresses: Vec<String>,
    ) -> Result<Option<(Identity, BTreeMap<NodeId, String>)>, ClusterError> {
        // Not always the same one: it may be cut off from the others.
        addresses.shuffle(&mut rand::rng());
        let mut complaint = String::new();
        for address in addresses {
            self.wait(format!("joining cluster {cluster} by {address}"));
            let candidate = Candidate {
                node: self.me.clone(),
            };
            let answer = self
                .question(&address, Question::Join(candidate), JOIN_TIMEOUT)
                .await;
            match answer {
                Ok(Answer::Joined(joined)) => {
                    let standing = Standing::Member {
                        cluster: joined.cluster,
                        node: joined.node,
                        shards: joined.shards,
                        plan: None,
                    };
                    let become_member = move |present: &Passport| {
                        (present.standing == Standing::Fresh).then(|| Passport {
                            standing,
                            ..present.clone()
                        })
                    };
                    let (passport, _) = self.office.update(become_member).await?;
                    let addresses = joined.addresses.into_iter().collect();
                    return Ok(passport.identity().map(|identity| (identity, addresses)));
                }
                Ok(Answer::Refused(reason)) => {
                    complaint = format!("{address} refuses this node: {reason}");
                }
                Ok(Answer::NotYet(reason)) | Err(reason) => {
                    complaint = format!("joining by {address}: {reason}");
                }
                Ok(other) => complaint = format!("joining by {address}: it answered {other:?}"),
            }
        }
        self.wait(complaint);
        Ok(None)
    }

    async fn be_planned(
        &self,
        plan: &Plan,
        promised_at: Instant,
    ) -> Result<Option<(Identity, BTreeMap<NodeId, String>)>, ClusterError> {
        let sightings = self.board.sightings();
        let parties: Vec<PartyView<'_>> = plan
            .nodes
            .iter()
            .filter(|party| party.disk != self.me.disk)
            .map(|party| PartyView {
                party,
                claim: sightings
                    .iter()
                    .filter(|sighting| sighting.asked_at > promised_at)
                    .find(|sighting| sighting.greeting.node.disk == party.disk)
                    .map(|sighting| sighting.greeting.claim.clone()),
                replaced: self
                    .board
                    .disk_at(&party.address, promised_at)
                    .is_some_and(|disk| disk != party.disk),
            })
            .collect();
        let anyone = sightings.iter().map(|sighting| &sighting.greeting.claim);
        match planned_step(self.me.disk, plan, anyone, &parties) {
            Step::BecomeMember => return self.become_member(plan).await,
            Step::DropPlan(why) => {
                drop_plan(&self.office, plan.cluster, &why).await?;
                return Ok(None);
            }
            Step::Wait(why) => self.wait(why),
            Step::Join { .. } | Step::Plan(_) => {}
        }
        if plan.coordinator != self.me.disk {
            return Ok(None);
        }
        match self.prepare_all(plan).await {
            Ok(true) => self.become_member(plan).await,
            Ok(false) => Ok(None),
            Err(why) => {
                drop_plan(&self.office, plan.cluster, &why).await?;
                Ok(None)
            }
        }
    }

    /// Has all planned nodes promise themselves, again and again until all do in one round: a promise
    /// can be taken back by a node that thinks the plan is dropped.
    async fn prepare_all(&self, plan: &Plan) -> Result<bool, String> {
        let others = plan.nodes.iter().filter(|node| node.disk != self.me.disk);
        let answers = join_all(others.map(|node| async move {
            let question = Question::Prepare(plan.clone());
            let answer = self
                .question(&node.address, question, PROMISE_TIMEOUT)
                .await;
            (node, answer)
        }))
        .await;
        let mut all = true;
        for (node, answer) in answers {
            match answer {
                Ok(Answer::Prepared) => {}
                Ok(Answer::Refused(reason)) => {
                    return Err(format!("{} at {}: {reason}", node.name, node.address));
                }
                Ok(_) | Err(_) => all = false,
            }
        }
        Ok(all)
    }

    async fn become_member(
        &self,
        plan: &Plan,
    ) -> Result<Option<(Identity, BTreeMap<NodeId, String>)>, ClusterError> {
        let cluster = plan.cluster;
        let disk = self.me.disk;
        let step = move |present: &Passport| {
            let Standing::Planned(plan) = &present.standing else {
                return None;
            };
            if plan.cluster != cluster {
                return None;
            }
            Some(Passport {
                standing: plan.membership(disk)?,
                ..present.clone()
            })
        };
        let (passport, _) = self.office.update(step).await?;
        let Some(identity) = passport.identity() else {
            return Ok(None);
        };
        if plan.coordinator == disk {
            // The others would find out by themselves, later.
            let others = plan.nodes.iter().filter(|node| node.disk != disk);
            join_all(others.map(|node| self.greet(&node.address))).await;
        }
        Ok(Some((identity, plan.addresses())))
    }
}
