//! Lets go of the log behind a checkpoint, except for what other members may still need.
//!
//! A member that was away for a moment should find the entries that it missed, not be sent the whole
//! state. A leader knows what each member has, and keeps the rest for those that are alive, however
//! much it is; for those that are not, and on followers, which know nothing of the others but may lead
//! next, some bytes of log are kept, at most a part of the room that the disk has. When disk space is
//! short, that is all that those get that are alive too. It is never nothing as long as there is room: a
//! member that is a little behind would be sent one snapshot after another, each of which is behind again
//! when it has arrived.

use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::watch::WatchReceiver;

use crate::replica::{AppliedMark, Replica};
use crate::types::Groups;
use flotilla_raft::Raft;

type Metrics = openraft::RaftMetrics<Groups>;

/// Raft takes note of a snapshot within its own loop; longer means that it has stopped.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(10);
/// A member that was not heard of for longer is not waited for.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// With less room than this above the reserve, disk space is short.
const SHORT_BYTES: u64 = 1 << 30;
/// One in so many bytes of the room may be kept for other members, by each group. The room shrinks by what
/// is kept, so that many groups together do not take all of it.
const ROOM_PARTS: u64 = 16;

/// What is known of the other members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// There are none.
    Nobody,
    /// This node does not lead.
    Unknown,
    /// The newest entry that all of them have, and the newest that all that are alive have.
    Known { lowest: u64, lowest_alive: u64 },
}

/// The entry up to which the log may go.
fn released(checkpoint: u64, beyond_kept: Option<u64>, others: Others, is_short: bool) -> u64 {
    let beyond_kept = beyond_kept.unwrap_or(0).min(checkpoint);
    match others {
        Others::Nobody => checkpoint,
        Others::Unknown => beyond_kept,
        Others::Known { lowest, .. } if lowest >= checkpoint => checkpoint,
        Others::Known { .. } if is_short => beyond_kept,
        Others::Known { lowest_alive, .. } => beyond_kept.min(lowest_alive),
    }
}

fn others(metrics: &Metrics) -> Others {
    let members = metrics.membership_config.membership().nodes();
    let others: Vec<u64> = members
        .map(|(node, _)| *node)
        .filter(|node| *node != metrics.id)
        .collect();
    if others.is_empty() {
        return Others::Nobody;
    }
    let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat) else {
        return Others::Unknown;
    };
    let mut lowest = u64::MAX;
    let mut lowest_alive = u64::MAX;
    for node in others {
        let matched = replication.get(&node).copied().flatten();
        let matched = matched.map_or(0, |log_id| log_id.index);
        let heard = heartbeat.get(&node).copied().flatten();
        lowest = lowest.min(matched);
        if heard.is_some_and(|at| at.elapsed() < SILENCE_MAX) {
            lowest_alive = lowest_alive.min(matched);
        }
    }
    Others::Known {
        lowest,
        lowest_alive,
    }
}

/// Tells Raft of a checkpoint, then hides the log that nobody needs. Tells whether some of what the
/// checkpoint covers was kept. A Raft that has stopped does neither.
pub(crate) async fn release_log(replica: &Replica, raft: &Raft, mark: &AppliedMark) -> bool {
    let Some(checkpoint) = mark.log_id.as_ref().map(|log_id| log_id.index) else {
        return false;
    };
    if !tell_raft(raft, checkpoint).await {
        // The next start finds the checkpoint and purges after the next one.
        return false;
    }
    let others = others(&raft.metrics().borrow_watched());
    let room = room_bytes(replica).await;
    let keep_bytes = replica.checkpoint.log_keep_bytes.min(room / ROOM_PARTS);
    let beyond_kept = replica.log_window.lock().beyond(keep_bytes);
    let upto = released(checkpoint, beyond_kept, others, room < SHORT_BYTES);
    if upto > 0 && raft.trigger().purge_log(upto).await.is_ok() {
        replica.log_window.lock().forget(upto);
    }
    upto < checkpoint
}

async fn tell_raft(raft: &Raft, checkpoint: u64) -> bool {
    let mut metrics = raft.data_metrics();
    let is_known = |snapshot: Option<crate::types::LogId>| {
        snapshot.is_some_and(|log_id| log_id.index >= checkpoint)
    };
    if is_known(metrics.borrow_watched().snapshot) {
        return true;
    }
    if raft.trigger().snapshot().await.is_err() {
        return false;
    }
    let noted = async {
        loop {
            if is_known(metrics.borrow_watched().snapshot) {
                return true;
            }
            if metrics.changed().await.is_err() {
                return false;
            }
        }
    };
    tokio::time::timeout(SNAPSHOT_WAIT_MAX, noted)
        .await
        .unwrap_or(false)
}

/// Bytes that the disk has room for above the reserve; none while the log is out of service.
async fn room_bytes(replica: &Replica) -> u64 {
    let log = replica.log.clone();
    let room = tokio::task::spawn_blocking(move || log.room_bytes()).await;
    room.ok().and_then(Result::ok).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(lowest: u64, lowest_alive: u64) -> Others {
        Others::Known {
            lowest,
            lowest_alive,
        }
    }

    #[test]
    fn alone_nothing_is_kept() {
        assert_eq!(released(100, None, Others::Nobody, false), 100);
    }

    #[test]
    fn a_follower_keeps_some_log_in_case_it_leads_next() {
        assert_eq!(released(100, Some(40), Others::Unknown, false), 40);
        assert_eq!(released(100, None, Others::Unknown, false), 0);
        assert_eq!(released(100, Some(400), Others::Unknown, false), 100);
    }

    #[test]
    fn what_everyone_has_is_not_kept() {
        assert_eq!(released(100, Some(40), known(100, 100), false), 100);
    }

    #[test]
    fn a_member_that_is_away_is_waited_for_by_bytes() {
        assert_eq!(released(100, Some(40), known(30, 100), false), 40);
        assert_eq!(released(100, None, known(30, 100), false), 0);
    }

    #[test]
    fn a_member_that_is_alive_is_not_left_behind() {
        assert_eq!(released(100, Some(40), known(30, 30), false), 30);
        assert_eq!(released(100, Some(40), known(0, 0), false), 0);
    }

    #[test]
    fn when_space_is_short_members_that_are_alive_are_waited_for_by_bytes_too() {
        assert_eq!(released(100, Some(40), known(30, 30), true), 40);
        assert_eq!(released(100, None, known(30, 30), true), 0);
        assert_eq!(released(100, Some(400), known(0, 0), true), 100);
        assert_eq!(released(100, Some(40), Others::Unknown, true), 40);
    }
}
