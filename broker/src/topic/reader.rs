//! Places in a topic and who reads on from them: one reader alone, or a group that shares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::Command;
use flotilla_model::ids::{ObjectId, Offset};
use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::ingress::Work;
use crate::topic::buffer::{Buffer, Resume};
use crate::topic::group::{GroupLedger, MemberId};
use crate::topic::run::{Item, Run};

/// Neighbouring messages that one member of a group gets in one turn, at most.
const TURN_MESSAGES_MAX: usize = 64;

/// After a change of leader a group hands out nothing for so long...
const GATHER_MIN: Duration = Duration::from_millis(300);
/// ...and while members seem to be missing no longer than this.
const GATHER_MAX: Duration = Duration::from_secs(3);
const GATHER_STEP: Duration = Duration::from_millis(50);

/// All below is done, and these ranges above it.
pub(crate) type Position = (Offset, Vec<(Offset, Offset)>);

/// What the shard was told of a durable cursor.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub cursor: String,
    /// `None`: unknown, so it is told again.
    pub told: Option<Position>,
    /// The cursor went with a deleted topic, and must be opened again before it is told anything.
    pub lost: bool,
}

impl Durable {
    pub fn new(cursor: String, position: Position) -> Self {
        Self {
            cursor,
            told: Some(position),
            lost: false,
        }
    }

    /// The commands that tell the shard a position.
    pub fn works(&self, topic: &Name, position: &Position) -> Vec<Work> {
        let mut works = Vec::with_capacity(2);
        if self.lost {
            works.push(Work::control(Command::OpenCursor {
                topic: topic.clone(),
                cursor: self.cursor.clone(),
                start: Offset::FIRST,
            }));
        }
        works.push(Work::control(Command::AdvanceCursor {
            topic: topic.clone(),
            cursor: self.cursor.clone(),
            low_water: position.0,
            settled: position.1.clone(),
        }));
        works
    }
}

/// A reader with a place of its own.
pub(crate) struct Reader {
    pub buffer: Arc<Buffer>,
    /// The next offset to deliver.
    pub next: Offset,
    /// All below is done, as far as it was delivered to this reader.
    pub done: Offset,
    pub durable: Option<Durable>,
}

impl Reader {
    /// Takes in what was done; true if the reader is gone.
    pub fn look(&mut self) -> bool {
        let progress = self.buffer.progress();
        for (_, last) in progress.finished {
            self.done = self.done.max(Offset(last.0 + 1));
        }
        progress.closed
    }

    pub fn position(&self) -> Position {
        (self.done, Vec::new())
    }

    /// Delivers from a run that covers `next`; false if nothing fits.
    pub fn deliver(&mut self, run: &Run) -> bool {
        let items = run.items_from(self.next);
        let count = self.buffer.fits(items);
        self.buffer.push(run.object, &items[..count]);
        if let Some(waiting) = items.get(count) {
            self.next = self.next.max(waiting.delivery.offset);
            return count > 0;
        }
        self.next = run.end;
        true
    }

    /// Goes on elsewhere, forgetting what was delivered.
    pub fn move_to(&mut self, offset: Offset) {
        self.buffer.reset(offset);
        self.next = offset;
        self.done = offset;
    }
}

/// Readers that share one place: every message goes to one of them.
pub(crate) struct Group {
    pub ledger: GroupLedger,
    pub members: Vec<Member>,
    pub durable: Durable,
    /// Since when its members come from another leader, each with what it holds.
    pub gathers_since: Option<Instant>,
    /// Whose turn it is.
    turn: usize,
}

/// One of a group.
pub(crate) struct Member {
    pub id: MemberId,
    pub buffer: Arc<Buffer>,
}

impl Group {
    pub fn new(cursor: String, position: Position) -> Self {
        Self {
            ledger: GroupLedger::new(position.0, &position.1),
            members: Vec::new(),
            durable: Durable::new(cursor, position),
            gathers_since: None,
            turn: 0,
        }
    }

    /// Takes in what members did; those that are gone lose what they held to the others.
    pub fn look(&mut self) {
        let ledger = &mut self.ledger;
        self.members.retain(|member| {
            let progress = member.buffer.progress();
            for (from, to) in progress.finished {
                ledger.settle(member.id, from, to);
            }
            if progress.closed {
                ledger.leave(member.id);
            }
            !progress.closed
        });
    }

    /// When to look again whether it hands out; `None` if it does.
    ///
    /// What a member still holds that has not come yet must not go to another: as long as there are
    /// messages that nobody who came knows about, there is a little more time for it.
    pub fn gathers_until(&self, now: Instant) -> Option<Instant> {
        let since = self.gathers_since?;
        if now < since + GATHER_MIN {
            return Some(since + GATHER_MIN);
        }
        let is_complete = !self.ledger.has_gaps() || now >= since + GATHER_MAX;
        (!is_complete).then(|| now + GATHER_STEP)
    }

    pub fn has_room(&self) -> bool {
        // All are asked, so that each of them rings when it has room again.
        let with_room = self
            .members
            .iter()
            .filter(|member| member.buffer.has_room());
        with_room.count() > 0
    }

    /// Hands out from a run that covers what is wanted next; false if nothing moved.
    pub fn deliver(&mut self, run: &Run) -> bool {
        let mut moved = false;
        while run.covers(self.ledger.wanted()) {
            let wanted = self.ledger.wanted();
            let items = run.items_from(wanted);
            let found = items.first().map_or(run.end, |item| item.delivery.offset);
            if found > wanted {
                // Nobody will ever get these. Only as far as they are next, in case some are done.
                let missing = self.ledger.stretch(found.0 - wanted.0);
                self.ledger.skip(missing);
                moved = true;
                continue;
            }
            let neighbours = neighbours(items);
            let most = self.ledger.stretch(neighbours.len() as u64) as usize;
            if !self.give_turn(run.object, &neighbours[..most]) {
                break;
            }
            moved = true;
        }
        moved
    }

    /// Gives a fair share of the items to the next member that has room.
    fn give_turn(&mut self, object: ObjectId, items: &[Item]) -> bool {
        let share = items
            .len()
            .div_ceil(self.members.len().max(1))
            .min(TURN_MESSAGES_MAX);
        for _ in 0..self.members.len() {
            let member = &self.members[self.turn % self.members.len()];
            self.turn = (self.turn + 1) % self.members.len();
            let count = member.buffer.fits(&items[..share]);
            if count > 0 {
                self.ledger.hand_out(member.id, count as u64);
                member.buffer.push(object, &items[..count]);
                return true;
            }
        }
        false
    }

    /// Goes on elsewhere, forgetting what was handed out.
    pub fn move_to(&mut self, offset: Offset) {
        for member in &self.members {
            member.buffer.reset(offset);
        }
        self.ledger = GroupLedger::new(offset, &[]);
    }

    /// A member comes from another leader with what it holds and what it was done with there.
    pub fn claim(&mut self, member: MemberId, resume: &Resume, end: Offset) {
        for (from, to) in &resume.finished {
            self.ledger.finish(*from, (*to).min(last_before(end)));
        }
        for (offset, _) in resume.held.iter().filter(|(offset, _)| *offset < end) {
            self.ledger.claim(member, *offset);
        }
    }

    /// Every member has to find the shard's next leader.
    pub fn leave(&self) {
        for member in &self.members {
            member.buffer.leave();
        }
    }

    /// Ends every member's subscription.
    pub fn end(&self, error: &BrokerError) {
        for member in &self.members {
            member.buffer.end(error.clone());
        }
    }
}

fn last_before(end: Offset) -> Offset {
    Offset(end.0.saturating_sub(1))
}

/// The items up to the first gap between their offsets.
fn neighbours(items: &[Item]) -> &[Item] {
    let broken = items
        .windows(2)
        .position(|pair| pair[0].delivery.offset.0 + 1 != pair[1].delivery.offset.0);
    &items[..broken.map_or(items.len(), |place| place + 1)]
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::WallTime;
    use flotilla_model::message::Message;

    use super::*;
    use crate::api::topic::TopicDelivery;

    fn run(from: u64, end: u64, missing: &[u64]) -> Run {
        let items = (from..end)
            .filter(|offset| !missing.contains(offset))
            .map(|offset| Item {
                delivery: TopicDelivery {
                    offset: Offset(offset),
                    at: WallTime(0),
                    message: Message::default(),
                },
                bytes: 1,
            })
            .collect();
        Run::of(from, end, items)
    }

    fn group(members: u64, credit: u32) -> Group {
        let mut group = Group::new("g".to_owned(), (Offset(1), Vec::new()));
        for id in 0..members {
            group.members.push(Member {
                id,
                buffer: Arc::new(Buffer::new(credit, 1_000_000, true)),
            });
        }
        group
    }

    async fn taken(member: &Member) -> Vec<u64> {
        let taken = member.buffer.take().await.expect("not ended");
        taken
            .into_iter()
            .map(|delivery| delivery.offset.0)
            .collect()
    }

    #[tokio::test]
    async fn a_burst_is_spread_over_the_members() {
        let mut group = group(2, 100);
        group.deliver(&run(1, 11, &[]));
        let (first, second) = (
            taken(&group.members[0]).await,
            taken(&group.members[1]).await,
        );
        assert!(
            first.len() >= 4 && second.len() >= 4,
            "{first:?} {second:?}"
        );
        let mut all = [first, second].concat();
        all.sort_unstable();
        assert_eq!(all, (1..11).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_a_lost_member_held_goes_to_the_others_in_order() {
        let mut group = group(2, 100);
        group.deliver(&run(1, 11, &[]));
        let lost = taken(&group.members[0]).await;
        group.members[0].buffer.close();
        group.look();
        let kept = taken(&group.members[0]).await;
        group.deliver(&run(1, 11, &[]));
        assert_eq!(taken(&group.members[0]).await, lost);
        for offset in lost.into_iter().chain(kept) {
            group.members[0].buffer.done(Offset(offset));
        }
        group.look();
        assert_eq!(group.ledger.position(), (Offset(11), Vec::new()));
    }

    #[tokio::test]
    async fn missing_messages_do_not_hold_up_a_group() {
        let mut group = group(1, 100);
        group.deliver(&run(1, 6, &[1, 3, 5]));
        assert_eq!(taken(&group.members[0]).await, [2, 4]);
        group.members[0].buffer.done(Offset(4));
        group.look();
        assert_eq!(group.ledger.position(), (Offset(6), Vec::new()));
    }

    #[test]
    fn a_reader_passes_over_what_is_missing() {
        let buffer = Arc::new(Buffer::new(1, 1_000_000, false));
        let mut reader = Reader {
            buffer,
            next: Offset(1),
            done: Offset(1),
            durable: None,
        };
        assert!(reader.deliver(&run(1, 4, &[1, 3])));
        assert_eq!(reader.next, Offset(4));
        assert!(!reader.deliver(&run(4, 6, &[])));
        assert_eq!(reader.next, Offset(4));
    }
}
