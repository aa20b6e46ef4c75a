//! Appending messages to a topic.

use super::{place_of, retention};
use crate::dedup;
use crate::ids::{DedupId, ObjectId, Offset};
use crate::key::Key;
use crate::live;
use crate::name::{Kind, Name};
use crate::objects::{self, check_name};
use crate::outcome::{Change, Outcome, Refusal};
use crate::overlay::Work;
use crate::places::{self, Original};
use crate::record::{Topic, TopicPage, TopicRecord};
use crate::records::NeedsKeys;

/// Appends slots of the entry, from `first_slot` on, to a topic.
pub(crate) fn append(
    work: &mut Work<'_>,
    name: &Name,
    count: u32,
    ids: &[(u32, DedupId)],
    first_slot: u32,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check(name, count, ids) {
        return Ok(Outcome::Refused(refusal));
    }
    let (object, mut topic) = objects::open_topic(work, name)?;
    let window_ms = topic.settings.dedup_window_ms;
    let found = places::duplicates(work, object, window_ms, ids)?;
    let duplicate_places: Vec<u32> = found.iter().map(|(place, _)| *place).collect();
    let first = topic.next;
    for (place, run) in places::kept(count, &duplicate_places) {
        live::hold_own(work, first_slot + place, run);
        add_record(work, object, &mut topic, first_slot + place, run)?;
    }
    // A kept message's offset: those before it in the command less the duplicates among them.
    let offset_of = |place: u32| {
        let before = duplicate_places.partition_point(|other| *other < place);
        Offset(first.0 + u64::from(place) - before as u64)
    };
    let duplicates = found
        .iter()
        .map(|(place, original)| {
            let offset = match original {
                Original::Stored(offset) => Offset(*offset),
                Original::Place(earlier) => offset_of(*earlier),
            };
            (*place, offset)
        })
        .collect();
    for (place, id) in ids {
        if duplicate_places.binary_search(place).is_err() {
            let (head, offset) = (&mut topic.dedup, offset_of(*place).0);
            dedup::remember(work, object, head, window_ms, *id, offset)?;
        }
    }
    if topic.next > first {
        topic.last_wall = work.meta.wall;
        retention::enforce(work, object, &mut topic)?;
        work.note(Change::Appended {
            object,
            name: Name::clone(&topic.name),
            next: topic.next,
        });
    }
    work.count_effort(4);
    work.put(Key::Object(object), topic);
    Ok(Outcome::Appended {
        first,
        at: work.meta.wall,
        duplicates,
    })
}

/// Adds an index record, or extends the last one if the messages follow its own in the same entry.
fn add_record(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &mut Topic,
    first_slot: u32,
    count: u32,
) -> Result<(), NeedsKeys> {
    let bytes = live::own_bytes(work, first_slot, count);
    let (index, wall, at) = (work.index, work.meta.wall, work.now());
    let record = TopicRecord {
        first: topic.next,
        index,
        first_slot,
        count,
        bytes,
        wall,
        at,
    };
    if !extend_last(work, object, topic, &record)? {
        let (page, at) = place_of(topic.next_record);
        work.edit_or_create::<TopicPage>(Key::TopicPage(object, page), at == 0)?
            .records
            .push(record);
        topic.next_record += 1;
    }
    topic.next = record.end();
    topic.bytes += bytes;
    topic.appended_bytes_total += bytes;
    let totals = &mut work.meta.totals;
    totals.appended += u64::from(count);
    totals.appended_bytes += bytes;
    Ok(())
}

fn extend_last(
    work: &mut Work<'_>,
    object: ObjectId,
    topic: &Topic,
    record: &TopicRecord,
) -> Result<bool, NeedsKeys> {
    if topic.next_record == topic.first_record {
        return Ok(false);
    }
    let (page, at) = place_of(topic.next_record - 1);
    let key = Key::TopicPage(object, page);
    let last = work
        .edit::<TopicPage>(key)?
        .expect("a topic has a page for its last index record");
    let last = &mut last.records[at];
    let follows = last.index == record.index && last.first_slot + last.count == record.first_slot;
    if follows {
        last.count += record.count;
        last.bytes += record.bytes;
    }
    Ok(follows)
}

fn check(name: &Name, count: u32, ids: &[(u32, DedupId)]) -> Result<(), Refusal> {
    check_name(name, Kind::Topic)?;
    if count == 0 {
        return Err(Refusal::Invalid {
            what: "an append must have messages".to_owned(),
        });
    }
    places::check(ids, count)
}
