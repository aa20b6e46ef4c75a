//! Compares the replicas of one group, from any node.

use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use futures::future::join_all;

use super::compare::Comparison;
use super::digest::ENTRY_WAIT_MAX;
use super::message::{Opening, Part, Step, Told, Totals, Words, broken, out_of_turn, reason_of};
use super::report::{Finding, GroupVerification, ReplicaFinding, ReplicaVerification};
use super::service::ReplicaService;
use crate::error::ClusterError;
use crate::net::{Lane, Peers, ServiceId, Talk};
use crate::pending::no_operation;

/// A checkpoint that a replica makes at the moment ends within this.
pub(super) const READY_WAIT_MAX: Duration = Duration::from_secs(40);
/// For a replica to hear of an entry. The others wait for the next word meanwhile, and are not to be given up
/// for the sake of one.
const ARM_WAIT_MAX: Duration = Duration::from_secs(8);
const _: () = assert!(ARM_WAIT_MAX.as_secs() < ENTRY_WAIT_MAX.as_secs());
/// For a replica to apply what the others have.
const REACH_WAIT_MAX: Duration = Duration::from_secs(30);
/// The next parts: each is read from a disk at a low rate.
const PART_WAIT_MAX: Duration = Duration::from_secs(300);
/// How far ahead the entry is that is compared at, in entries. While nothing is written the last entry
/// will do; else replicas pass it before they hear of it.
const AHEAD: [u64; 6] = [0, 8, 32, 128, 512, 2_048];
/// For an entry that only brings the log further.
const FILL_WAIT_MAX: Duration = Duration::from_secs(2);

/// Compares replicas.
#[derive(Clone)]
pub(super) struct Comparer {
    pub own: NodeId,
    pub peers: Peers,
    pub service: ReplicaService,
}

/// A replica that takes part.
struct Participant {
    node: NodeId,
    words: Words,
    /// Its last entry, when it was ready.
    last: u64,
    /// Told, and not compared yet; the last comes first.
    parts: Vec<Part>,
    totals: Option<Totals>,
    failure: Option<Failure>,
}

/// Why a replica takes no part any more.
enum Failure {
    Gone(String),
    Unsound(String),
}

impl Participant {
    /// Waits until a replica that was asked is ready.
    async fn ready(node: NodeId, words: Words) -> Result<Self, ClusterError> {
        let mut one = Self {
            node,
            words,
            last: 0,
            parts: Vec::new(),
            totals: None,
            failure: None,
        };
        match one.answer(READY_WAIT_MAX).await? {
            Told::Ready { last } => one.last = last,
            told => return Err(out_of_turn(&told)),
        }
        Ok(one)
    }

    fn fail(&mut self, error: &ClusterError) {
        self.failure
            .get_or_insert_with(|| Failure::Gone(reason_of(error)));
    }

    fn is_there(&self) -> bool {
        self.failure.is_none()
    }

    /// The next answer, before the deadline.
    async fn answer(&mut self, wait: Duration) -> Result<Told, ClusterError> {
        let answer = tokio::time::timeout(wait, self.words.answer()).await;
        answer.map_err(|_| broken("the replica does not answer in time"))?
    }

    /// Makes sure that the next part is here, if there is one.
    async fn advance(&mut self) {
        while self.is_there() && self.parts.is_empty() && self.totals.is_none() {
            match self.answer(PART_WAIT_MAX).await {
                Ok(Told::Parts(mut parts)) => {
                    parts.reverse();
                    self.parts = parts;
                }
                Ok(Told::End(totals)) => self.totals = Some(totals),
                Ok(Told::Unsound { reason }) => self.failure = Some(Failure::Unsound(reason)),
                Ok(told) => self.fail(&out_of_turn(&told)),
                Err(error) => self.fail(&error),
            }
        }
    }
}

impl Comparer {
    /// Compares the replicas of a group, has those made anew that are damaged or in the minority, and
    /// compares again if any were.
    pub async fn verify_and_mend(
        &self,
        group: u32,
        voters: &[NodeId],
        bytes_per_second: u64,
    ) -> GroupVerification {
        let (found, is_open) = self.verify(group, voters, bytes_per_second).await;
        let healthy: Vec<NodeId> =
            nodes_that(&found, |finding| *finding == ReplicaFinding::Identical);
        let ill: Vec<NodeId> = nodes_that(&found, |finding| match finding {
            ReplicaFinding::Damaged { .. } => true,
            ReplicaFinding::Differs { .. } => !is_open,
            _ => false,
        });
        if ill.is_empty() || healthy.is_empty() {
            return found;
        }
        let mut failures = Vec::new();
        for node in &ill {
            let opening = Opening::Mend {
                group,
                from: healthy.clone(),
                if_damaged: has_unreadable(&found, *node),
            };
            let mended = self.mend(*node, &opening).await;
            failures.push((*node, mended.err().map(|error| reason_of(&error))));
        }
        let (mut again, _) = self.verify(group, voters, bytes_per_second).await;
        for (node, failure) in failures {
            let before = found.replicas.iter().find(|replica| replica.node == node);
            let now = again
                .replicas
                .iter_mut()
                .find(|replica| replica.node == node);
            if let (Some(before), Some(now)) = (before, now) {
                match failure {
                    None => now.mended = Some(before.finding.clone()),
                    Some(_) => now.mending_failed = failure,
                }
            }
        }
        again
    }

    /// Also tells whether replicas differ without a majority for any.
    async fn verify(
        &self,
        group: u32,
        voters: &[NodeId],
        bytes_per_second: u64,
    ) -> (GroupVerification, bool) {
        // Of comparisons that are made at once, the one goes on that the first replica is ready for: if each
        // had some replicas, all would wait for the others, as they still do, and give up, where they do not
        // reach the same replicas.
        let mut rest: Vec<NodeId> = voters.to_vec();
        rest.sort_unstable();
        let mut rest = rest.into_iter();
        let mut joined = Vec::new();
        for node in rest.by_ref() {
            joined.push(self.join(group, node, bytes_per_second).await);
            if matches!(joined.last(), Some(Ok(_))) {
                break;
            }
        }
        let others = rest.map(|node| self.join(group, node, bytes_per_second));
        joined.extend(join_all(others).await);
        let mut participants = Vec::new();
        let mut absent = Vec::new();
        for joined in joined {
            match joined {
                Ok(participant) => participants.push(participant),
                Err((node, error)) => {
                    let reason = reason_of(&error);
                    let finding = ReplicaFinding::Unreachable { reason };
                    absent.push(verification(node, finding, &Totals::default()));
                }
            }
        }
        let at = match self.agree(group, &mut participants).await {
            Ok(at) => Some(at),
            Err(error) => {
                participants.iter_mut().for_each(|one| one.fail(&error));
                None
            }
        };
        let mut comparison = Comparison::new(participants.len(), voters.len());
        compare(&mut participants, &mut comparison).await;
        let mut replicas = absent;
        for (number, participant) in participants.into_iter().enumerate() {
            let totals = participant.totals.unwrap_or_default();
            let finding = match participant.failure {
                None => comparison.finding(number, &totals),
                Some(Failure::Gone(reason)) => ReplicaFinding::Unreachable { reason },
                Some(Failure::Unsound(reason)) => ReplicaFinding::Damaged {
                    messages: 0,
                    log_entries: 0,
                    places: vec![reason],
                },
            };
            replicas.push(verification(participant.node, finding, &totals));
        }
        replicas.sort_by_key(|replica| replica.node);
        let finding = finding_of(&replicas);
        let found = GroupVerification {
            group,
            at,
            finding,
            replicas,
        };
        (found, comparison.is_open())
    }

    async fn talk(&self, node: NodeId) -> Result<Words, ClusterError> {
        if node == self.own {
            let (here, there) = Talk::pair();
            tokio::spawn(self.service.clone().converse(there));
            return Ok(here.into());
        }
        let talk = self.peers.talk(node, Lane::Bulk, ServiceId::REPLICAS).await;
        talk.map(Words::from).map_err(broken)
    }

    /// Asks a replica to take part, and waits until it is ready.
    async fn join(
        &self,
        group: u32,
        node: NodeId,
        bytes_per_second: u64,
    ) -> Result<Participant, (NodeId, ClusterError)> {
        let ready = async {
            let mut words = self.talk(node).await?;
            let opening = Opening::Digest {
                group,
                bytes_per_second,
            };
            words.say(&opening).await?;
            Participant::ready(node, words).await
        };
        ready.await.map_err(|error| (node, error))
    }

    async fn mend(&self, node: NodeId, opening: &Opening) -> Result<(), ClusterError> {
        self.talk(node).await?.have_mended(opening).await
    }

    /// Finds an entry that all can be compared at, and waits until they are there.
    async fn agree(
        &self,
        group: u32,
        participants: &mut [Participant],
    ) -> Result<u64, ClusterError> {
        let mut last = participants.iter().map(|one| one.last).max().unwrap_or(0);
        for ahead in AHEAD {
            let at = last + ahead;
            let armed = participants.iter_mut().filter(|one| one.is_there());
            let passed = join_all(armed.map(|one| arm(one, at))).await;
            match passed.into_iter().flatten().max() {
                Some(applied) => last = applied,
                None => {
                    self.reach(group, participants).await?;
                    return Ok(at);
                }
            }
        }
        Err(broken(
            "entries are written faster than replicas agree on one",
        ))
    }

    /// Waits until all replicas are at the entry, and has the log go on as long as none is.
    async fn reach(
        &self,
        group: u32,
        participants: &mut [Participant],
    ) -> Result<(), ClusterError> {
        let reached = participants
            .iter_mut()
            .filter(|one| one.is_there())
            .map(|one| async {
                let compared = match one.answer(REACH_WAIT_MAX).await {
                    Ok(Told::Reached) => one.words.say(&Step::Compare).await,
                    Ok(told) => Err(out_of_turn(&told)),
                    Err(error) => Err(error),
                };
                if let Err(error) = compared {
                    one.fail(&error);
                }
            });
        let mut reached = std::pin::pin!(join_all(reached));
        let pause = Duration::from_millis(50);
        loop {
            // Where others write as well, this is not needed.
            if tokio::time::timeout(pause, reached.as_mut()).await.is_ok() {
                return Ok(());
            }
            let shard = &self.service.groups[group as usize].shard;
            let deadline = Instant::now() + FILL_WAIT_MAX;
            let filled = shard.propose(vec![no_operation()], Vec::new(), deadline);
            if let Err(error) = filled.await {
                tracing::debug!(group, %error, "the log does not go on for a comparison");
            }
        }
    }
}

/// Names an entry to a replica; tells where it is if that is behind it.
async fn arm(one: &mut Participant, at: u64) -> Option<u64> {
    let deadline = Instant::now() + ARM_WAIT_MAX;
    let mut told = match one.words.say(&Step::At { index: at }).await {
        Ok(()) => one.answer(ARM_WAIT_MAX).await,
        Err(error) => Err(error),
    };
    // Where it was armed at before, it may have come to meanwhile.
    if let Ok(Told::Reached) = told {
        let wait = deadline.saturating_duration_since(Instant::now());
        told = one.answer(wait).await;
    }
    match told {
        Ok(Told::Armed) => None,
        Ok(Told::Passed { applied }) => Some(applied),
        Ok(told) => {
            one.fail(&out_of_turn(&told));
            None
        }
        Err(error) => {
            one.fail(&error);
            None
        }
    }
}

/// Goes through all places that any replica has something at, in their order.
async fn compare(participants: &mut [Participant], comparison: &mut Comparison) {
    loop {
        join_all(participants.iter_mut().map(Participant::advance)).await;
        let heads = participants.iter().filter(|one| one.is_there());
        let place = heads
            .filter_map(|one| one.parts.last())
            .map(|part| &part.place)
            .min();
        let Some(place) = place.cloned() else { return };
        let held: Vec<Option<Part>> = participants
            .iter_mut()
            .map(|one| one.parts.pop_if(|part| part.place == place))
            .collect();
        let present: Vec<bool> = participants.iter().map(Participant::is_there).collect();
        comparison.step(&place, &held, &present);
    }
}

fn verification(node: NodeId, finding: ReplicaFinding, totals: &Totals) -> ReplicaVerification {
    ReplicaVerification {
        node,
        finding,
        messages: totals.messages,
        message_bytes: totals.message_bytes,
        records: totals.records,
        mended: None,
        mending_failed: None,
    }
}

fn nodes_that(found: &GroupVerification, holds: impl Fn(&ReplicaFinding) -> bool) -> Vec<NodeId> {
    let replicas = found.replicas.iter();
    replicas
        .filter(|replica| holds(&replica.finding))
        .map(|replica| replica.node)
        .collect()
}

/// Whether a replica knows itself that it is damaged.
fn has_unreadable(found: &GroupVerification, node: NodeId) -> bool {
    found.replicas.iter().any(|replica| match replica.finding {
        ReplicaFinding::Damaged {
            messages,
            log_entries,
            ..
        } => replica.node == node && messages + log_entries > 0,
        _ => false,
    })
}

fn finding_of(replicas: &[ReplicaVerification]) -> Finding {
    let any =
        |holds: fn(&ReplicaFinding) -> bool| replicas.iter().any(|replica| holds(&replica.finding));
    if any(|finding| matches!(finding, ReplicaFinding::Damaged { .. })) {
        return Finding::Damaged;
    }
    if any(|finding| matches!(finding, ReplicaFinding::Differs { .. })) {
        return Finding::Differs;
    }
    if !any(|finding| *finding == ReplicaFinding::Identical) {
        let reason = match replicas.first().map(|replica| &replica.finding) {
            Some(ReplicaFinding::Unreachable { reason }) => reason.clone(),
            _ => "the group has no voters that are known".to_owned(),
        };
        return Finding::Failed { reason };
    }
    match any(|finding| matches!(finding, ReplicaFinding::Unreachable { .. })) {
        true => Finding::Incomplete,
        false => Finding::Identical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Talk;

    #[tokio::test]
    async fn a_replica_that_reached_an_earlier_entry_is_armed_anew() {
        let (here, there) = Talk::pair();
        let mut replica = Words::from(there);
        replica.say(&Told::Ready { last: 5 }).await.unwrap();
        let ready = Participant::ready(NodeId(1), here.into()).await;
        let mut one = ready.unwrap();
        let answering = async {
            let asked: Step = replica.hear().await.unwrap();
            assert_eq!(asked, Step::At { index: 8 });
            // It was armed at 5, and came there before it heard of 8.
            replica.say(&Told::Reached).await.unwrap();
            replica.say(&Told::Armed).await.unwrap();
        };
        let (armed, ()) = tokio::join!(arm(&mut one, 8), answering);
        assert_eq!(armed, None);
        assert!(one.is_there());
    }
}
