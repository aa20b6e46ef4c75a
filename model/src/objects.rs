//! Finding, creating and deleting topics and queues by name.

use std::sync::Arc;

use crate::ids::ObjectId;
use crate::key::{Key, TrieId};
use crate::name::{Kind, Name};
use crate::outcome::{Change, Refusal};
use crate::overlay::Work;
use crate::record::{Grave, Queue, Stored, Topic};
use crate::records::{NeedsKeys, Records, find};
use crate::{graveyard, trie};

/// The object with a name.
pub(crate) fn find_by_name(
    records: &dyn Records,
    name: &Name,
) -> Result<Option<ObjectId>, NeedsKeys> {
    Ok(find::<ObjectId>(records, Key::Name(name.digest()))?.map(|object| *object))
}

/// Finds a topic, or creates it with the shard's defaults.
pub(crate) fn open_topic(work: &mut Work<'_>, name: &Name) -> Result<(ObjectId, Topic), NeedsKeys> {
    match find_by_name(work, name)? {
        Some(object) => Ok((object, existing::<Topic>(work, object)?)),
        None => {
            let settings = work.meta.defaults.topic.clone();
            let topic = Topic::new(Arc::new(name.clone()), settings);
            let object = register(work, name)?;
            work.meta.totals.topics += 1;
            work.put(Key::Object(object), topic.clone());
            Ok((object, topic))
        }
    }
}

/// Finds a queue, or creates it with the shard's defaults.
pub(crate) fn open_queue(work: &mut Work<'_>, name: &Name) -> Result<(ObjectId, Queue), NeedsKeys> {
    match find_by_name(work, name)? {
        Some(object) => Ok((object, existing::<Queue>(work, object)?)),
        None => {
            let settings = work.meta.defaults.queue.clone();
            let queue = Queue::new(Arc::new(name.clone()), settings);
            let object = register(work, name)?;
            work.meta.totals.queues += 1;
            work.put(Key::Object(object), queue.clone());
            Ok((object, queue))
        }
    }
}

/// The object that a name's entry points to.
pub(crate) fn existing<T: Stored>(work: &Work<'_>, object: ObjectId) -> Result<T, NeedsKeys> {
    Ok(work
        .take::<T>(Key::Object(object))?
        .expect("a name points to an object as long as it is there"))
}

/// Removes a name at once; what the object holds is removed bit by bit. Returns whether it was there.
pub(crate) fn delete(work: &mut Work<'_>, name: &Name) -> Result<bool, NeedsKeys> {
    let Some(object) = find_by_name(work, name)? else {
        return Ok(false);
    };
    let grave = match name.kind() {
        Kind::Queue => {
            work.meta.totals.queues -= 1;
            Grave::Queue(object, Box::new(existing(work, object)?))
        }
        Kind::Topic | Kind::Signal | Kind::Request | Kind::Command => {
            work.meta.totals.topics -= 1;
            Grave::Topic(object, Box::new(existing(work, object)?))
        }
    };
    work.delete(Key::Name(name.digest()));
    work.delete(Key::Object(object));
    let mut height = work.meta.objects_height;
    trie::remove(work, TrieId::Objects, &mut height, object.0)?;
    work.meta.objects_height = height;
    graveyard::bury(work, grave);
    work.note(Change::Deleted {
        kind: name.kind(),
        name: name.clone(),
    });
    Ok(true)
}

fn register(work: &mut Work<'_>, name: &Name) -> Result<ObjectId, NeedsKeys> {
    work.meta.last_object += 1;
    let object = ObjectId(work.meta.last_object);
    let mut height = work.meta.objects_height;
    trie::insert(work, TrieId::Objects, &mut height, object.0)?;
    work.meta.objects_height = height;
    work.put(Key::Name(name.digest()), object);
    Ok(object)
}

/// Refuses a name that is not of the kind or not within the limits: commands come from other nodes.
pub(crate) fn check_name(name: &Name, kind: Kind) -> Result<(), Refusal> {
    if name.kind() != kind {
        return Err(Refusal::Invalid {
            what: format!("a {kind} was expected, not a {}", name.kind()),
        });
    }
    name.check().map_err(|error| Refusal::Invalid {
        what: error.to_string(),
    })
}

/// The refusal for a name that is not there.
pub(crate) fn not_found(name: &Name) -> Refusal {
    /// Enough to recognise a name by; an outcome must not carry 64 KiB of it.
    const SHOWN_CHARS: usize = 200;
    Refusal::NotFound {
        what: name.to_string().chars().take(SHOWN_CHARS).collect(),
    }
}
