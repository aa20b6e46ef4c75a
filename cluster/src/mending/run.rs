//! Comparisons of all groups: on demand, and in the background by whoever leads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_model::ids::NodeId;
use flotilla_storage::GroupId;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::mender::Mender;
use super::report::{Finding, GroupVerification, ReplicaFinding, Verification};
use super::service::ReplicaService;
use super::verify::Comparer;
use crate::membership::{Roster, members};
use crate::observer::Role;

/// How often the background looks for a group whose time has come.
const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// Someone waits for a comparison that was asked for: it may take more of the disks.
const ASKED_BYTES_PER_SECOND: u64 = 256 << 20;

/// While one waits for its replicas to write what they have, others are read.
const GROUPS_AT_ONCE: usize = 3;

/// How often replicas are compared in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// Between two comparisons of a group. `None` compares only on demand.
    pub interval: Option<Duration>,
    /// Most bytes that each replica reads for it in a second.
    pub bytes_per_second: u64,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(24 * 3600)),
            bytes_per_second: 8 << 20,
        }
    }
}

/// Compares, and remembers what was found.
pub(crate) struct Verifier {
    roster: Arc<Roster>,
    mender: Arc<Mender>,
    comparer: Comparer,
    runs: AtomicU64,
    latest: Mutex<Option<Verification>>,
}

impl Verifier {
    pub fn new(roster: Arc<Roster>, mender: Arc<Mender>, service: ReplicaService) -> Arc<Self> {
        let comparer = Comparer {
            own: roster.board.node,
            peers: roster.links.peers(),
            service,
        };
        Arc::new(Self {
            roster,
            mender,
            comparer,
            runs: AtomicU64::new(0),
            latest: Mutex::new(None),
        })
    }

    /// The last comparison that this node was asked for, or the one that is under way.
    pub fn latest(&self) -> Option<Verification> {
        self.latest.lock().clone()
    }

    /// Begins to compare all groups, unless that is under way already. Tells which comparison it is.
    pub fn begin(self: &Arc<Self>) -> u64 {
        let mut latest = self.latest.lock();
        if let Some(latest) = latest.as_ref().filter(|latest| latest.is_running) {
            return latest.run;
        }
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        *latest = Some(Verification {
            run,
            is_running: true,
            groups_total: self.roster.groups.len() as u32,
            groups: Vec::new(),
        });
        let verifier = self.clone();
        self.roster.metadata().node.runtime.spawn(async move {
            let groups = 0..verifier.roster.groups.len() as u32;
            let compared = groups.map(|group| verifier.compare(group, ASKED_BYTES_PER_SECOND));
            let mut compared = stream::iter(compared).buffered(GROUPS_AT_ONCE);
            while let Some(found) = compared.next().await {
                if let Some(latest) = verifier.latest.lock().as_mut() {
                    latest.groups.push(found);
                }
            }
            drop(compared);
            if let Some(latest) = verifier.latest.lock().as_mut() {
                latest.is_running = false;
            }
        });
        run
    }

    /// Compares the groups that this node leads, each in its time.
    pub async fn run(self: Arc<Self>, config: VerifyConfig) {
        let Some(interval) = config.interval else {
            return;
        };
        let begin = Instant::now();
        let count = self.roster.groups.len() as u32;
        // The first time spread over the interval, so that they do not all come together.
        let mut due: BTreeMap<GroupId, Instant> = (0..count)
            .map(|group| (GroupId(group), begin + interval * (group + 1) / count))
            .collect();
        loop {
            tokio::time::sleep(LOOK_PERIOD.min(interval)).await;
            for group in &self.roster.groups {
                let replica = &group.replica;
                let at = due.entry(replica.group).or_insert(begin);
                if Instant::now() < *at {
                    continue;
                }
                *at = Instant::now() + interval;
                // Whoever leads it has its own times.
                if *replica.role.borrow() == Role::Leader {
                    self.compare(replica.group.0, config.bytes_per_second).await;
                }
            }
        }
    }

    async fn compare(&self, group: u32, bytes_per_second: u64) -> GroupVerification {
        let begin = Instant::now();
        let reports = members(&self.roster).await;
        let Some(report) = reports.get(&group) else {
            return GroupVerification {
                group,
                at: None,
                finding: Finding::Failed {
                    reason: "its leader is not known or does not answer".to_owned(),
                },
                replicas: Vec::new(),
            };
        };
        let voters: &[NodeId] = &report.voters;
        let comparer = &self.comparer;
        let found = comparer
            .verify_and_mend(group, voters, bytes_per_second)
            .await;
        tracing::info!(
            group,
            at = found.at,
            finding = ?found.finding,
            elapsed_ms = begin.elapsed().as_millis() as u64,
            "replicas compared"
        );
        self.count(&found);
        found
    }

    fn count(&self, found: &GroupVerification) {
        let counts = &self.mender.counts;
        counts.compared.fetch_add(1, Ordering::Relaxed);
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        counts
            .compared_last_s
            .store(now_s.as_secs(), Ordering::Relaxed);
        for replica in &found.replicas {
            let finding = replica.mended.as_ref().unwrap_or(&replica.finding);
            let counter = match finding {
                ReplicaFinding::Damaged { .. } => &counts.found_damaged,
                ReplicaFinding::Differs { .. } => &counts.found_differing,
                ReplicaFinding::Identical | ReplicaFinding::Unreachable { .. } => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                group = found.group, node = %replica.node, ?finding,
                is_mended = replica.mended.is_some(), failure = ?replica.mending_failed,
                "a replica is not what it should be"
            );
        }
    }
}
