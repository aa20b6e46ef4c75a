//! Removing every available message.

use super::open::OpenQueue;
use super::page::{pages_ahead, tidy};
use crate::key::{Key, TrieId};
use crate::name::{Kind, Name};
use crate::objects::{check_name, not_found};
use crate::outcome::Outcome;
use crate::overlay::Work;
use crate::record::QueuePage;
use crate::records::NeedsKeys;
use crate::trie;

/// Pages emptied in one step.
const PAGES_STEP: u32 = 64;

/// Removes available messages of some pages and adds their number to `purged`; gives the outcome
/// when none is left.
pub(crate) fn purge_step(
    work: &mut Work<'_>,
    name: &Name,
    purged: &mut u64,
) -> Result<Option<Outcome>, NeedsKeys> {
    if let Err(refusal) = check_name(name, Kind::Queue) {
        return Ok(Some(Outcome::Refused(refusal)));
    }
    let Some(mut queue) = OpenQueue::find(work, name)? else {
        return Ok(Some(Outcome::Refused(not_found(name))));
    };
    let object = queue.object;
    let trie_id = TrieId::Available(object);
    let mut is_done = false;
    for _ in 0..PAGES_STEP {
        let height = queue.state.available_height;
        let Some(page) = trie::next(work, trie_id, height, 0)? else {
            is_done = true;
            break;
        };
        let key = Key::QueuePage(object, page);
        let found = match work.edit::<QueuePage>(key) {
            Ok(found) => found.expect("a page with available messages exists"),
            Err(missing) => {
                return Err(pages_ahead(
                    work,
                    missing,
                    trie_id,
                    height,
                    object,
                    page + 1,
                ));
            }
        };
        let mut gone = Vec::new();
        found.messages.retain(|message| {
            if message.is_available() {
                gone.push(*message);
            }
            !message.is_available()
        });
        for message in &gone {
            queue.dies(work, message)?;
        }
        let count = gone.len() as u64;
        queue.state.available -= count;
        queue.state.purged_total += count;
        *purged += count;
        work.count_effort(count);
        tidy(work, &mut queue, page, true)?;
    }
    queue.close(work)?;
    Ok(is_done.then_some(Outcome::Purged(*purged)))
}
