//! What queue messages have in common, stored once and counted.
//!
//! A policy can name a dead-letter queue with a name of 64 KiB; a million messages with that policy
//! hold a number each. The record goes with the last message that has it.

use std::sync::Arc;

use crate::key::Key;
use crate::overlay::Work;
use crate::record::{Attributes, AttributesEntry, AttributesId};
use crate::records::{NeedsKeys, Records, find};

/// The number for these attributes, for that many more messages.
pub(crate) fn intern(
    work: &mut Work<'_>,
    attributes: &Attributes,
    messages: u64,
) -> Result<AttributesId, NeedsKeys> {
    if *attributes == Attributes::default() {
        return Ok(AttributesId(0));
    }
    let index_key = Key::AttributesIndex(digest(attributes));
    if let Some(id) = work.find::<AttributesId>(index_key)?.map(|id| *id) {
        let entry = work
            .edit::<AttributesEntry>(Key::Attributes(id.0))?
            .expect("the index of attributes names only those that exist");
        entry.messages += messages;
        return Ok(id);
    }
    work.meta.last_attributes += 1;
    let id = AttributesId(work.meta.last_attributes);
    work.put(index_key, id);
    work.put(
        Key::Attributes(id.0),
        AttributesEntry {
            attributes: Arc::new(attributes.clone()),
            messages,
        },
    );
    Ok(id)
}

/// That many messages do not have these attributes any more.
pub(crate) fn release(
    work: &mut Work<'_>,
    id: AttributesId,
    messages: u64,
) -> Result<(), NeedsKeys> {
    if id == AttributesId(0) || messages == 0 {
        return Ok(());
    }
    let entry = work
        .edit::<AttributesEntry>(Key::Attributes(id.0))?
        .expect("attributes exist as long as a message has them");
    entry.messages -= messages;
    if entry.messages == 0 {
        let digest = digest(&entry.attributes);
        work.delete(Key::Attributes(id.0));
        work.delete(Key::AttributesIndex(digest));
    }
    Ok(())
}

/// The attributes with a number.
pub(crate) fn get(records: &dyn Records, id: AttributesId) -> Result<Arc<Attributes>, NeedsKeys> {
    if id == AttributesId(0) {
        return Ok(Arc::default());
    }
    let entry = find::<AttributesEntry>(records, Key::Attributes(id.0))?
        .expect("attributes exist as long as a message has them");
    Ok(entry.attributes.clone())
}

fn digest(attributes: &Attributes) -> [u8; 16] {
    let bytes = bincode::encode_to_vec(attributes, bincode::config::standard())
        .expect("plain values can always be encoded");
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    digest
}
