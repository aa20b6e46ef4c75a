//! The rounds of greetings, and the answers to those of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::ids::{NodeId, ShardTime};
use flotilla_raft::Raft;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::board::Board;
use super::clocks::{OFFSET_MAX_US, median_us};
use super::message::{Answer, Claim, Greeting, Question};
use super::sessions::{Renewals, SessionTimes, SessionWatch};
use crate::forward::{decode, encode};
use crate::group::Group;
use crate::net::{Lane, Links, PeerError, PeerIdentity, PeerService, ServiceId, Talk};
use crate::time::{TimeEstimate, TimeSource};

/// Between rounds.
const PERIOD: Duration = Duration::from_millis(500);
/// An answer that takes longer says nothing about now.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The same for a leader's question at take-over: its shard stands still meanwhile.
const TIME_WAIT: Duration = Duration::from_millis(250);

/// Keeps this node in the others' minds, and them in its own.
pub(crate) struct Presence {
    board: Arc<Board>,
    links: Links,
    /// Metadata first, then the shards.
    groups: Vec<Arc<Group>>,
    time: Arc<dyn TimeSource>,
    times: SessionTimes,
    renewals: Mutex<Renewals>,
    /// Greetings that have no answer yet.
    asking: Mutex<BTreeMap<NodeId, JoinHandle<()>>>,
    /// It was said that this node's wall clock is off.
    is_off: Mutex<bool>,
}

impl Presence {
    pub fn new(
        board: Arc<Board>,
        links: Links,
        groups: Vec<Arc<Group>>,
        time: Arc<dyn TimeSource>,
        times: SessionTimes,
    ) -> Arc<Self> {
        let renewals = Renewals::new(groups.len(), Instant::now(), times);
        Arc::new(Self {
            times,
            board,
            links,
            groups,
            time,
            renewals: Mutex::new(renewals),
            asking: Mutex::default(),
            is_off: Mutex::new(false),
        })
    }

    /// To be called on the node's runtime, and aborted with the node.
    pub async fn run(self: Arc<Self>) {
        let watches = self.groups.iter().map(|_| SessionWatch::new(self.times));
        let mut watches: Vec<SessionWatch> = watches.collect();
        let mut before = Instant::now();
        self.board.hurry.notify_one();
        loop {
            let hurried = tokio::select! {
                () = tokio::time::sleep_until((before + PERIOD).into()) => false,
                () = self.board.hurry.notified() => true,
            };
            let nodes = self.others();
            self.greet(&nodes);
            if hurried {
                continue;
            }
            let now = Instant::now();
            // A node that slept did not listen: it cannot say that the others were silent.
            let awake = now.duration_since(before).min(PERIOD * 2);
            before = now;
            self.board.pass(awake, &nodes);
            self.set_clocks();
            for group in &self.groups {
                group.replica.hear_of_leader(|view| view.expire(now));
            }
            self.check_renewals(now);
            for (watch, group) in watches.iter_mut().zip(&self.groups) {
                watch.look(group, &self.board, awake);
            }
        }
    }

    fn others(&self) -> BTreeSet<NodeId> {
        let mut nodes = self.links.nodes();
        nodes.remove(&self.board.node);
        nodes
    }

    fn wall_us(&self) -> i64 {
        i64::try_from(self.time.wall().as_micros()).unwrap_or(i64::MAX)
    }

    fn greeting(&self) -> Greeting {
        let leads = self.groups.iter().filter_map(|group| {
            let lead = group.firm_lead()?;
            Some(Claim {
                group: group.replica.group.0,
                term: lead.id.term,
                time_ms: group.replica.clock.now().0,
            })
        });
        Greeting {
            leads: leads.collect(),
            generation: self.board.generation(),
            wall_us: self.wall_us(),
            is_leaving: self.board.is_leaving(),
        }
    }

    /// Asks every node that has answered, or been given up, since it was last asked.
    fn greet(self: &Arc<Self>, nodes: &BTreeSet<NodeId>) {
        let mut asking = self.asking.lock();
        asking.retain(|_, task| !task.is_finished());
        for node in nodes {
            if !asking.contains_key(node) {
                asking.insert(*node, tokio::spawn(self.clone().greet_one(*node)));
            }
        }
    }

    async fn greet_one(self: Arc<Self>, node: NodeId) {
        self.check_renewals(Instant::now());
        let question = encode(&Question::Greeting(self.greeting()));
        let sent = Instant::now();
        let wall_sent_us = self.wall_us();
        let answer = match ask(&self.links, node, question, ANSWER_WAIT).await {
            Ok(Answer::Greeting(answer)) => answer,
            Ok(Answer::Time { .. }) => return,
            Err(error) => {
                tracing::debug!(%node, error, "a node does not answer");
                return;
            }
        };
        // Half way between, as far as anyone can tell; worth nothing after a slow answer.
        let took_us = i64::try_from(sent.elapsed().as_micros()).unwrap_or(i64::MAX);
        let offset_us = answer.wall_us - (wall_sent_us + took_us / 2);
        let is_quick = sent.elapsed() <= PERIOD / 2;
        self.board
            .hear(node, &answer, false, is_quick.then_some(offset_us));
        self.believe(node, &answer);
        let mut renewals = self.renewals.lock();
        for claim in &answer.leads {
            renewals.renewed(claim.group, sent);
        }
    }

    fn believe(&self, node: NodeId, greeting: &Greeting) {
        let now = Instant::now();
        let claims: BTreeMap<u32, &Claim> = greeting
            .leads
            .iter()
            .map(|claim| (claim.group, claim))
            .collect();
        for group in &self.groups {
            let replica = &group.replica;
            match claims.get(&replica.group.0) {
                Some(claim) => {
                    replica.hear_of_leader(|view| view.claim(claim.term, node, now));
                    if replica.leader_in_term() == Some((claim.term, node)) {
                        replica.clock.hear(ShardTime(claim.time_ms));
                    }
                }
                None => replica.hear_of_leader(|view| view.disclaim(node)),
            }
        }
    }

    /// A node says that it is there, perhaps again: a write may be waiting for what it is to store, and it
    /// was tried more and more seldom while it was away.
    fn hurry_to_replicate(&self, to: NodeId) {
        let groups = self.groups.iter();
        let awaiting: Vec<Raft> = groups
            .filter_map(|group| group.raft_that_awaits(to))
            .collect();
        if awaiting.is_empty() {
            return;
        }
        self.links.hurry(to);
        tokio::spawn(async move {
            for raft in awaiting {
                // Fails only when Raft has ended, and with it what waits.
                let _ = raft.trigger().reset_backoff([to.0]).await;
            }
        });
    }

    /// A node leads shards whose leaders did not answer for a while: its answer, not its question, renews
    /// this node's sessions there.
    fn hurry_to_renew(&self, greeting: &Greeting) {
        let now = Instant::now();
        let renewals = self.renewals.lock();
        let mut claims = greeting.leads.iter();
        if claims.any(|claim| renewals.age(claim.group, now) > PERIOD * 3 / 2) {
            self.board.hurry.notify_one();
        }
    }

    /// Raises the generation if a shard's leader was not heard for too long.
    fn check_renewals(&self, now: Instant) {
        let mut renewals = self.renewals.lock();
        for group in &self.groups {
            if group.firm_lead().is_some() {
                renewals.renewed(group.replica.group.0, now);
            }
        }
        if let Some(lost) = renewals.lost(now, self.board.was_used()) {
            self.board.raise(lost);
        }
    }

    /// Tells each group's clock where the median of its voters' wall clocks is, and gives up leading
    /// where this node's is far from it.
    fn set_clocks(&self) {
        let own = self.board.node;
        let mut off = BTreeSet::new();
        let mut own_offset_us = 0;
        for group in &self.groups {
            let voters = group.voters();
            let known: Vec<(NodeId, i64)> = voters
                .iter()
                .filter_map(|node| Some((*node, self.offset_us(*node)?)))
                .collect();
            let offsets = known.iter().map(|(_, offset_us)| *offset_us).collect();
            let Some(median) = median_us(offsets).filter(|_| known.len() * 2 > voters.len()) else {
                continue;
            };
            group.replica.clock.set_wall_offset_us(median);
            group
                .replica
                .clock_offset_us
                .store(-median, Ordering::Relaxed);
            let is_off = |offset_us: i64| (offset_us - median).abs() > OFFSET_MAX_US;
            let wrong = known.iter().filter(|(_, offset_us)| is_off(*offset_us));
            off.extend(wrong.map(|(node, _)| *node));
            if off.contains(&own) {
                own_offset_us = -median;
            }
        }
        self.report_clock(off.contains(&own), own_offset_us);
        self.board.set_off(off);
        if self.board.may_lead(own) {
            return;
        }
        for group in &self.groups {
            let voters = group.voters();
            if let Some(better) = voters.into_iter().find(|node| self.board.may_lead(*node)) {
                group.yield_to(better);
            }
        }
    }

    fn report_clock(&self, is_off: bool, offset_us: i64) {
        let was_off = std::mem::replace(&mut *self.is_off.lock(), is_off);
        match (was_off, is_off) {
            (false, true) => tracing::error!(
                ahead_ms = offset_us / 1_000,
                "the wall clock of this node is far from those of the others: it leads nothing that another node can lead"
            ),
            (true, false) => {
                tracing::info!("the wall clock of this node agrees with those of the others again");
            }
            _ => {}
        }
    }

    fn offset_us(&self, node: NodeId) -> Option<i64> {
        if node == self.board.node {
            return Some(0);
        }
        let heard = self.board.heard(node)?;
        self.board
            .is_up(node)
            .then_some(heard.wall_offset_us)
            .flatten()
    }

    fn answer(&self, from: NodeId, question: Question) -> Result<Answer, String> {
        match question {
            Question::Greeting(greeting) => {
                self.board.hear(from, &greeting, true, None);
                self.believe(from, &greeting);
                self.hurry_to_renew(&greeting);
                self.hurry_to_replicate(from);
                Ok(Answer::Greeting(self.greeting()))
            }
            Question::Time { group } => {
                let group = self
                    .groups
                    .get(group as usize)
                    .ok_or_else(|| format!("there is no group {group}"))?;
                let estimate = group.replica.clock.estimate();
                Ok(Answer::Time {
                    time_ms: estimate.time.0,
                    is_live: estimate.is_live,
                    wall_us: self.wall_us(),
                })
            }
        }
    }
}

/// What another voter told.
pub(crate) struct ToldTime {
    estimate: TimeEstimate,
    heard: Instant,
    /// Its wall clock's lead over this node's.
    pub wall_offset_us: i64,
}

impl ToldTime {
    /// What it would tell now.
    pub fn now(&self) -> TimeEstimate {
        let since_ms = u64::try_from(self.heard.elapsed().as_millis()).unwrap_or(u64::MAX);
        TimeEstimate {
            time: self.estimate.time.plus_ms(since_ms),
            is_live: self.estimate.is_live,
        }
    }
}

/// Asks other voters of a group what they believe its time to be. Who does not answer at once is left
/// out.
pub(crate) async fn ask_for_time(
    links: &Links,
    group: u32,
    voters: impl Iterator<Item = NodeId>,
    own_wall_us: impl Fn() -> i64,
) -> Vec<ToldTime> {
    let question = encode(&Question::Time { group });
    let own_wall_us = &own_wall_us;
    let asked = voters.map(|node| {
        let asked = ask(links, node, question.clone(), TIME_WAIT);
        async move {
            let Ok(Answer::Time {
                time_ms,
                is_live,
                wall_us,
            }) = asked.await
            else {
                return None;
            };
            let time = ShardTime(time_ms);
            Some(ToldTime {
                estimate: TimeEstimate { time, is_live },
                heard: Instant::now(),
                wall_offset_us: wall_us - own_wall_us(),
            })
        }
    });
    let told = futures::future::join_all(asked).await;
    told.into_iter().flatten().collect()
}

async fn ask(
    links: &Links,
    node: NodeId,
    question: Bytes,
    wait: Duration,
) -> Result<Answer, String> {
    let peers = links.peers();
    let answer = peers.call(node, Lane::Control, ServiceId::PRESENCE, question, wait);
    let answer = answer.await.map_err(|error: PeerError| error.to_string())?;
    decode(&answer)
}

impl PeerService for Presence {
    fn call(
        &self,
        from: PeerIdentity,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let answer = decode(&request)
            .and_then(|question| self.answer(from.node, question))
            .map(|answer| encode(&answer));
        Box::pin(std::future::ready(answer))
    }

    fn talk(&self, _from: PeerIdentity, _talk: Talk) -> BoxFuture<'static, ()> {
        // Dropped: there is nothing to talk about.
        Box::pin(std::future::ready(()))
    }
}
