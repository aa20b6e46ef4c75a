//! Questions about a topic and its cursors.

use std::sync::Arc;

use super::value;
use crate::bag;
use crate::cursor;
use crate::ids::{LogIndex, ObjectId, Offset, ShardTime, WallTime};
use crate::key::{BagId, Key};
use crate::name::{Kind, Name};
use crate::objects::find_by_name;
use crate::record::{BagItem, CursorState, PAGE_RECORDS, Topic, TopicPage, TopicRecord};
use crate::records::{NeedsKeys, Records, find, require};
use crate::settings::TopicSettings;
use crate::topic::{place_of, record_at};

/// A topic and its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its id.
    pub object: ObjectId,
    /// Its name.
    pub name: Arc<Name>,
    /// How it keeps messages.
    pub settings: Arc<TopicSettings>,
    /// The first retained offset.
    pub first: Offset,
    /// The offset that the next message gets.
    pub next: Offset,
    /// Bytes of the stored index records; the oldest can hold messages that are dropped already.
    pub bytes: u64,
    /// When the last message came; `None`: none ever did.
    pub last_wall: Option<WallTime>,
    /// How many durable cursors it has.
    pub cursors: u64,
    /// Bytes ever appended.
    pub appended_bytes_total: u64,
}

impl TopicInfo {
    /// How many messages are retained.
    pub fn messages(&self) -> u64 {
        self.next.0 - self.first.0
    }
}

/// Where neighbouring messages of a topic are: in neighbouring slots of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// The offset of the first message.
    pub first: Offset,
    /// The entry.
    pub index: LogIndex,
    /// The slot of the first message.
    pub first_slot: u32,
    /// How many messages.
    pub count: u32,
    /// Bytes of the whole record, which may have begun earlier.
    pub bytes: u64,
    /// When they came.
    pub wall: WallTime,
}

/// A durable cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorInfo {
    /// Its name.
    pub name: Arc<str>,
    /// All below is done.
    pub low_water: Offset,
    /// Done above it, inclusive ranges.
    pub settled: Vec<(Offset, Offset)>,
    /// When it was last opened or moved.
    pub moved_at: ShardTime,
    /// Its place in the list, for going on from it.
    pub place: u64,
}

/// A topic by name.
pub fn topic_info(records: &dyn Records, name: &Name) -> Result<Option<TopicInfo>, NeedsKeys> {
    match find_topic(records, name)? {
        Some(object) => topic_info_of(records, object),
        None => Ok(None),
    }
}

/// A topic by id.
pub fn topic_info_of(
    records: &dyn Records,
    object: ObjectId,
) -> Result<Option<TopicInfo>, NeedsKeys> {
    let topic = super::object::<Topic>(records, object)?;
    Ok(topic.map(|topic| TopicInfo {
        object,
        name: topic.name,
        settings: topic.settings,
        first: topic.first,
        next: topic.next,
        bytes: topic.bytes,
        last_wall: (topic.next > Offset::FIRST).then_some(topic.last_wall),
        cursors: topic.cursors.live,
        appended_bytes_total: topic.appended_bytes_total,
    }))
}

/// Where the messages from an offset on are, in at most `records_max` records. What is below the
/// first retained offset is left out. Empty at the end, and for a topic that is gone.
pub fn topic_locate(
    records: &dyn Records,
    object: ObjectId,
    from: Offset,
    records_max: usize,
) -> Result<Vec<IndexRecord>, NeedsKeys> {
    let Some(topic) = super::object::<Topic>(records, object)? else {
        return Ok(Vec::new());
    };
    let from = from.max(topic.first);
    if from >= topic.next || records_max == 0 {
        return Ok(Vec::new());
    }
    let start = last_where(records, object, &topic, |record| record.first <= from)?
        .unwrap_or(topic.first_record);
    let end = topic
        .next_record
        .min(start.saturating_add(records_max as u64));
    let pages = place_of(start).0..=place_of(end - 1).0;
    require(records, pages.map(|page| Key::TopicPage(object, page)))?;
    let mut located = Vec::with_capacity((end - start) as usize);
    let mut number = start;
    while number < end {
        let (page, at) = place_of(number);
        let Some(found) = find::<TopicPage>(records, Key::TopicPage(object, page))? else {
            break;
        };
        let here = (end - number).min(PAGE_RECORDS - at as u64);
        located.extend(
            found
                .records
                .iter()
                .skip(at)
                .take(here as usize)
                .map(|record| clipped(record, from)),
        );
        number += here;
    }
    Ok(located)
}

/// The offset of the first retained message that came at a wall time or later; the next offset if
/// there is none. `None` for a topic that is gone. Where the wall clock went back, it is one of them.
pub fn topic_offset_at_wall(
    records: &dyn Records,
    object: ObjectId,
    wall: WallTime,
) -> Result<Option<Offset>, NeedsKeys> {
    let Some(topic) = super::object::<Topic>(records, object)? else {
        return Ok(None);
    };
    let earlier = last_where(records, object, &topic, |record| record.wall < wall)?;
    let first_later = earlier.map_or(topic.first_record, |number| number + 1);
    if first_later >= topic.next_record {
        return Ok(Some(topic.next));
    }
    let record = record_at(records, object, first_later)?;
    Ok(Some(record.first.max(topic.first)))
}

/// A cursor by name.
pub fn cursor_get(
    records: &dyn Records,
    name: &Name,
    cursor: &str,
) -> Result<Option<CursorInfo>, NeedsKeys> {
    let Some(object) = find_topic(records, name)? else {
        return Ok(None);
    };
    let state = value::<CursorState>(records, Key::Cursor(object, cursor::digest(cursor)))?;
    Ok(state.map(shown))
}

/// Cursors of a topic after a place of the list, at most `limit`.
pub fn cursors(
    records: &dyn Records,
    name: &Name,
    after_place: Option<u64>,
    limit: usize,
) -> Result<Vec<CursorInfo>, NeedsKeys> {
    let Some(object) = find_topic(records, name)? else {
        return Ok(Vec::new());
    };
    let Some(topic) = super::object::<Topic>(records, object)? else {
        return Ok(Vec::new());
    };
    let mut keys = Vec::new();
    let mut from = after_place.map_or(0, |place| place + 1);
    while keys.len() < limit {
        let items = bag::items_from(records, BagId::Cursors(object), &topic.cursors, from)?;
        let Some((last, _)) = items.last() else {
            break;
        };
        from = last + 1;
        keys.extend(items.iter().filter_map(|(_, item)| match item {
            BagItem::Cursor(digest) => Some(Key::Cursor(object, *digest)),
            BagItem::Lease(..) | BagItem::Session(..) => None,
        }));
    }
    keys.truncate(limit);
    require(records, keys.iter().copied())?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        found.extend(value::<CursorState>(records, key)?.map(shown));
    }
    Ok(found)
}

/// The last index record that a test holds for, where it holds for none after one it fails for.
fn last_where(
    records: &dyn Records,
    object: ObjectId,
    topic: &Topic,
    holds: impl Fn(&TopicRecord) -> bool,
) -> Result<Option<u64>, NeedsKeys> {
    let (mut low, mut high) = (topic.first_record, topic.next_record);
    if low == high {
        return Ok(None);
    }
    // Readers are mostly at the tail: look into the last page before searching through all of them.
    let last_page = place_of(high - 1).0 * PAGE_RECORDS;
    if last_page > low {
        if holds(&record_at(records, object, last_page)?) {
            low = last_page;
        } else {
            high = last_page;
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(&record_at(records, object, middle)?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok((low > topic.first_record).then(|| low - 1))
}

fn clipped(record: &TopicRecord, from: Offset) -> IndexRecord {
    let skip = from.0.saturating_sub(record.first.0) as u32;
    IndexRecord {
        first: Offset(record.first.0 + u64::from(skip)),
        index: record.index,
        first_slot: record.first_slot + skip,
        count: record.count - skip,
        bytes: record.bytes,
        wall: record.wall,
    }
}

fn shown(state: CursorState) -> CursorInfo {
    CursorInfo {
        name: state.name,
        low_water: state.low_water,
        settled: state.settled,
        moved_at: state.moved_at,
        place: state.place,
    }
}

fn find_topic(records: &dyn Records, name: &Name) -> Result<Option<ObjectId>, NeedsKeys> {
    match name.kind() {
        Kind::Topic => find_by_name(records, name),
        Kind::Queue | Kind::Signal | Kind::Request | Kind::Command => Ok(None),
    }
}
