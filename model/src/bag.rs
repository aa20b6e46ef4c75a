//! Unordered lists of any length: an item has a place that its owner remembers.
//!
//! Places are given out ascending; a page that has become empty goes, and so do the places once the
//! whole bag is empty. Adding and removing touch one page each, and listing never meets a hole
//! larger than a page, however many items came and went.

use crate::key::{BagId, Key, TrieId};
use crate::overlay::Work;
use crate::record::{BAG_PAGE_ITEMS, BagHead, BagItem, BagPage};
use crate::records::{NeedsKeys, Records, find};
use crate::trie;

/// Adds an item and returns its place.
pub(crate) fn add(
    work: &mut Work<'_>,
    id: BagId,
    head: &mut BagHead,
    item: BagItem,
) -> Result<u64, NeedsKeys> {
    let place = head.next;
    let page = place / BAG_PAGE_ITEMS;
    let items =
        work.edit_or_create::<BagPage>(Key::Bag(id, page), place.is_multiple_of(BAG_PAGE_ITEMS))?;
    let is_new = items.0.is_empty();
    items.0.push(((place % BAG_PAGE_ITEMS) as u8, item));
    if is_new {
        trie::insert(work, TrieId::Bag(id), &mut head.height, page)?;
    }
    head.next += 1;
    head.live += 1;
    Ok(place)
}

/// Removes the item at a place.
pub(crate) fn remove(
    work: &mut Work<'_>,
    id: BagId,
    head: &mut BagHead,
    place: u64,
) -> Result<(), NeedsKeys> {
    let page = place / BAG_PAGE_ITEMS;
    let key = Key::Bag(id, page);
    let Some(items) = work.edit::<BagPage>(key)? else {
        return Ok(());
    };
    let Ok(found) = items
        .0
        .binary_search_by_key(&((place % BAG_PAGE_ITEMS) as u8), |(at, _)| *at)
    else {
        return Ok(());
    };
    items.0.remove(found);
    if items.0.is_empty() {
        work.delete(key);
        trie::remove(work, TrieId::Bag(id), &mut head.height, page)?;
    }
    head.live -= 1;
    if head.live == 0 {
        head.next = 0;
    }
    Ok(())
}

/// The items of the first page at or after a place, with their places; empty at the end.
pub(crate) fn items_from(
    records: &dyn Records,
    id: BagId,
    head: &BagHead,
    from: u64,
) -> Result<Vec<(u64, BagItem)>, NeedsKeys> {
    let mut page = from / BAG_PAGE_ITEMS;
    while let Some(found) = trie::next(records, TrieId::Bag(id), head.height, page)? {
        let items: Vec<_> = find::<BagPage>(records, Key::Bag(id, found))?
            .map(|items| items.0.clone())
            .unwrap_or_default()
            .into_iter()
            .map(|(at, item)| (found * BAG_PAGE_ITEMS + u64::from(at), item))
            .filter(|(place, _)| *place >= from)
            .collect();
        if !items.is_empty() {
            return Ok(items);
        }
        page = found + 1;
    }
    Ok(Vec::new())
}
