//! Sessions and silence: what a leader ends, and what a node gives up by itself before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{NodeId, ShardId};
use flotilla_model::query;
use parking_lot::Mutex;

use super::board::{Board, start_of};
use crate::error::ClusterError;
use crate::group::Group;
use crate::leadership::Lead;

/// Of a failover, all but the election: the dead leader acknowledged up to a round ago, the next one asks
/// the voters for the time and says that it leads, and is asked in turn. With some room for busy machines.
const AROUND_ELECTION: Duration = Duration::from_millis(1_500);
/// A node must be sure that it lost its sessions before a leader gives away what they held: it looks once a
/// round, and has its clients' streams ended then.
const HEAD_START: Duration = Duration::from_millis(1_500);
/// For the command that ends sessions.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// How long sessions outlive silence.
///
/// A failover must not end them: nobody who holds a message did anything wrong. From the last word of the
/// dead leader to the first of the next one pass, with an election timeout of T,
///
/// ```text
///   0.5 s    at most since the last acknowledgement
///   T        until the voters may elect another leader
///   0.6 T-T  until one of them stands
///   0.25 s   until the new leader knows the time
///   ~ 0      until it has told everyone and was asked by them
/// ```
///
/// which makes 2.75 s with the default of 1 s. Later than [`Self::renewal_age_max`], 3.5 s then, a node
/// takes its sessions for lost. It looks every 0.5 s, so 4 s after the last word they are over on its side.
/// A leader, the old or the new one, waits for [`Self::silence_max`], 5 s, since it heard the node, or began to
/// lead, if that was later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionTimes {
    /// A node takes its sessions for lost after this long without the leader's word.
    pub renewal_age_max: Duration,
    /// A leader ends the sessions of a node that it did not hear for this long.
    pub silence_max: Duration,
}

impl SessionTimes {
    pub fn new(election_timeout: Duration) -> Self {
        let renewal_age_max = election_timeout * 2 + AROUND_ELECTION;
        Self {
            renewal_age_max,
            silence_max: renewal_age_max + HEAD_START,
        }
    }
}

/// When each shard's leader last acknowledged this node.
pub(crate) struct Renewals {
    age_max: Duration,
    /// By group.
    renewed: Vec<Instant>,
    lost: BTreeSet<ShardId>,
    raised: Instant,
}

impl Renewals {
    pub fn new(groups: usize, now: Instant, times: SessionTimes) -> Self {
        Self {
            age_max: times.renewal_age_max,
            renewed: vec![now; groups],
            lost: BTreeSet::new(),
            raised: now,
        }
    }

    /// A leader acknowledged what it was told at `asked`.
    pub fn renewed(&mut self, group: u32, asked: Instant) {
        if let Some(renewed) = self.renewed.get_mut(group as usize) {
            *renewed = asked.max(*renewed);
        }
    }

    /// How long ago that was.
    pub fn age(&self, group: u32, now: Instant) -> Duration {
        let renewed = self.renewed.get(group as usize);
        renewed.map_or(Duration::ZERO, |renewed| now.duration_since(*renewed))
    }

    /// The shards for whose sake the generation must be raised now. `used`: there may be sessions of
    /// the present one.
    pub fn lost(&mut self, now: Instant, used: bool) -> Option<BTreeSet<ShardId>> {
        // Group 0 has no sessions.
        let shards = self.renewed.iter().enumerate().skip(1);
        let lost: BTreeSet<ShardId> = shards
            .filter(|(_, renewed)| now.duration_since(**renewed) > self.age_max)
            .map(|(shard, _)| ShardId(shard as u32))
            .collect();
        let has_news = !lost.is_subset(&self.lost);
        self.lost = lost;
        // Sessions that began meanwhile hold something there as little as the ones before.
        let is_again =
            !self.lost.is_empty() && used && now.duration_since(self.raised) > self.age_max;
        if !has_news && !is_again {
            return None;
        }
        self.raised = now;
        Some(self.lost.clone())
    }
}

/// The generations of a node's sessions, and when a leader first saw each, by the time that it has been
/// listening.
///
/// A node that was cut off goes on under a generation that held nothing here until then. What it asked for
/// meanwhile may arrive before it is heard again: those sessions are not the ones that it has given up.
#[derive(Default)]
struct Generations(Vec<(u64, Duration)>);

impl Generations {
    /// The highest generation of those that hold something now.
    fn note(&mut self, highest: u64, listened: Duration, silence_max: Duration) {
        if self.0.last().is_none_or(|(newest, _)| *newest < highest) {
            self.0.push((highest, listened));
        }
        // Of those that can be over, the newest says it all: so there are as many as fit into a silence.
        let is_old = |seen: Duration| listened.saturating_sub(seen) >= silence_max;
        let old = self.0.iter().take_while(|(_, seen)| is_old(*seen)).count();
        self.0.drain(..old.saturating_sub(1));
    }

    /// Below which generation the sessions of a node are over that is silent for long enough.
    fn over(&self, listened: Duration, silence_max: Duration) -> Option<u64> {
        let mut newest_first = self.0.iter().rev();
        let old = newest_first.find(|(_, seen)| listened.saturating_sub(*seen) >= silence_max)?;
        Some(old.0 + 1)
    }
}

/// Looks after the sessions on one shard while this node leads it.
pub(crate) struct SessionWatch {
    silence_max: Duration,
    lead: Option<Lead>,
    /// How long it has been listening as the leader.
    listened: Duration,
    /// The generations that nodes have sessions of.
    seen: HashMap<NodeId, Generations>,
    /// Upto which generation sessions of a node were ended in this leadership.
    ended: Arc<Mutex<HashMap<NodeId, u64>>>,
    /// An end is being written.
    ending: Arc<AtomicBool>,
}

impl SessionWatch {
    pub fn new(times: SessionTimes) -> Self {
        Self {
            silence_max: times.silence_max,
            lead: None,
            listened: Duration::ZERO,
            seen: HashMap::new(),
            ended: Arc::default(),
            ending: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Once a round.
    pub fn look(&mut self, group: &Arc<Group>, board: &Arc<Board>, awake: Duration) {
        let lead = group.firm_lead();
        // Not certain for a moment, as on a slow disk: what was heard until then still counts.
        let Some(present) = lead else {
            return;
        };
        if !self.lead.as_ref().is_some_and(|lead| lead.is(&present)) {
            self.lead = Some(present);
            self.listened = Duration::ZERO;
            self.seen.clear();
            self.ended = Arc::default();
        } else {
            self.listened += awake;
        }
        if self.ending.load(Ordering::Acquire) || group.replica.group.0 == 0 {
            return;
        }
        // What is not in memory is asked for again in the next round, after it was loaded.
        let nodes = match group
            .shard
            .read_now(|records| query::session_nodes(records))
        {
            Ok(Some(nodes)) => nodes,
            Ok(None) => {
                let replica = group.replica.clone();
                tokio::spawn(async move {
                    let _ = replica.read(|records| query::session_nodes(records)).await;
                });
                return;
            }
            Err(_) => return,
        };
        for (node, highest) in &nodes {
            let seen = self.seen.entry(*node).or_default();
            seen.note(*highest, self.listened, self.silence_max);
        }
        let ends: Vec<(NodeId, u64)> = nodes
            .into_iter()
            .filter(|(node, _)| *node != board.node)
            .filter_map(|(node, _)| {
                let upto = self.due(node, board)?;
                (self.ended.lock().get(&node) != Some(&upto)).then_some((node, upto))
            })
            .collect();
        if !ends.is_empty() {
            self.end(group, ends);
        }
    }

    /// Below which generation a node's sessions are over.
    fn due(&self, node: NodeId, board: &Board) -> Option<u64> {
        let heard = board.heard(node).map_or(0, |heard| heard.generation);
        let silence = board.silence(node).unwrap_or(Duration::MAX);
        if silence.min(self.listened) >= self.silence_max {
            return self.seen.get(&node)?.over(self.listened, self.silence_max);
        }
        // It was started again.
        (heard > 0).then(|| start_of(heard))
    }

    fn end(&self, group: &Arc<Group>, ends: Vec<(NodeId, u64)>) {
        self.ending.store(true, Ordering::Release);
        let (group, ending, ended) = (group.clone(), self.ending.clone(), self.ended.clone());
        tokio::spawn(async move {
            match end_sessions(&group, &ends).await {
                Ok(()) => ended.lock().extend(ends),
                // The next round tries again.
                Err(error) => tracing::warn!(
                    group = group.replica.group.0,
                    %error,
                    "sessions could not be ended"
                ),
            }
            ending.store(false, Ordering::Release);
        });
    }
}

async fn end_sessions(group: &Group, ends: &[(NodeId, u64)]) -> Result<(), ClusterError> {
    for (node, generation) in ends {
        tracing::info!(group = group.replica.group.0, %node, generation, "sessions of a node end");
    }
    let commands = ends
        .iter()
        .map(|(node, generation)| Command::EndOldSessions {
            node: *node,
            incarnation: *generation,
        });
    group
        .shard
        .propose(
            commands.collect(),
            Vec::new(),
            Instant::now() + END_DEADLINE,
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: SessionTimes = SessionTimes {
        renewal_age_max: Duration::from_secs(2),
        silence_max: Duration::from_secs(5),
    };

    #[test]
    fn sessions_that_a_silent_node_began_lately_are_not_over() {
        let seconds = Duration::from_secs;
        let mut generations = Generations::default();
        let max = TIMES.silence_max;
        generations.note(7, seconds(0), max);
        assert_eq!(generations.over(seconds(4), max), None);
        // What it asked for while it was cut off arrives before its greeting.
        generations.note(8, seconds(6), max);
        assert_eq!(generations.over(seconds(6), max), Some(8));
        generations.note(8, seconds(10), max);
        assert_eq!(generations.over(seconds(10), max), Some(8));
        // It has not been heard since.
        generations.note(8, seconds(11), max);
        assert_eq!(generations.over(seconds(11), max), Some(9));
        assert_eq!(generations.0.len(), 1);
    }

    #[test]
    fn sessions_outlive_a_failover_and_are_given_up_before_a_leader_ends_them() {
        for timeout_ms in [500, 1_000, 10_000, 60_000] {
            let timeout = Duration::from_millis(timeout_ms);
            let times = SessionTimes::new(timeout);
            let round = Duration::from_millis(500);
            let failover = round + timeout * 2 + Duration::from_millis(250);
            assert!(times.renewal_age_max > failover, "{times:?}");
            assert!(times.silence_max >= times.renewal_age_max + round * 2);
        }
        let usual = SessionTimes::new(Duration::from_secs(1));
        assert_eq!(usual.silence_max, Duration::from_secs(5));
    }

    #[test]
    fn a_shard_is_lost_after_a_while_without_its_leader_and_once() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut renewals = Renewals::new(3, begin, TIMES);
        assert_eq!(renewals.lost(at(2_000), true), None);
        renewals.renewed(1, at(1_900));
        assert_eq!(
            renewals.lost(at(2_100), true),
            Some(BTreeSet::from([ShardId(2)]))
        );
        assert_eq!(renewals.lost(at(2_600), true), None);
        // The other one too.
        assert_eq!(
            renewals.lost(at(4_000), false),
            Some(BTreeSet::from([ShardId(1), ShardId(2)]))
        );
        // Sessions of the new generation are not renewed there either.
        assert_eq!(renewals.lost(at(6_100), false), None);
        assert!(renewals.lost(at(6_100), true).is_some());
        renewals.renewed(1, at(6_200));
        renewals.renewed(2, at(6_200));
        assert_eq!(renewals.lost(at(6_300), true), None);
    }
}
