//! A queue while a unit of work changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attributes;
use crate::ids::{ObjectId, ShardTime, WallTime};
use crate::key::Key;
use crate::live;
use crate::name::Name;
use crate::objects;
use crate::outcome::{Change, MessageRef};
use crate::overlay::Work;
use crate::record::{Attributes, AttributesId, NEVER, Queue, QueueMessage};
use crate::records::NeedsKeys;

/// A queue's root record, with what is written in one go when the unit ends.
pub(super) struct OpenQueue {
    pub object: ObjectId,
    pub state: Queue,
    /// Attributes looked up, and how many messages stopped having them.
    attributes: BTreeMap<AttributesId, (Arc<Attributes>, u64)>,
    plain: Arc<Attributes>,
    dead: Vec<MessageRef>,
}

impl OpenQueue {
    /// The queue of a name, created if it is new.
    pub fn by_name(work: &mut Work<'_>, name: &Name) -> Result<Self, NeedsKeys> {
        let (object, state) = objects::open_queue(work, name)?;
        Ok(Self::new(object, state))
    }

    /// The queue of a name, if there is one.
    pub fn find(work: &Work<'_>, name: &Name) -> Result<Option<Self>, NeedsKeys> {
        match objects::find_by_name(work, name)? {
            Some(object) => Ok(Some(Self::new(object, objects::existing(work, object)?))),
            None => Ok(None),
        }
    }

    /// The queue with an id, unless it was deleted.
    pub fn by_id(work: &Work<'_>, object: ObjectId) -> Result<Option<Self>, NeedsKeys> {
        let state = work.take::<Queue>(Key::Object(object))?;
        Ok(state.map(|state| Self::new(object, state)))
    }

    pub fn new(object: ObjectId, state: Queue) -> Self {
        Self {
            object,
            state,
            attributes: BTreeMap::new(),
            plain: Arc::default(),
            dead: Vec::new(),
        }
    }

    /// The attributes of a message of this queue.
    pub fn attributes(
        &mut self,
        work: &Work<'_>,
        id: AttributesId,
    ) -> Result<Arc<Attributes>, NeedsKeys> {
        if id == AttributesId(0) {
            return Ok(self.plain.clone());
        }
        if let Some((found, _)) = self.attributes.get(&id) {
            return Ok(found.clone());
        }
        let found = attributes::get(work, id)?;
        self.attributes.insert(id, (found.clone(), 0));
        Ok(found)
    }

    /// A message has left: its bytes are not counted here any more.
    pub fn leaves(&mut self, work: &Work<'_>, message: &QueueMessage) -> Result<(), NeedsKeys> {
        self.state.bytes -= u64::from(message.bytes);
        if message.attributes != AttributesId(0) {
            self.attributes(work, message.attributes)?;
            if let Some((_, gone)) = self.attributes.get_mut(&message.attributes) {
                *gone += 1;
            }
        }
        Ok(())
    }

    /// A message is gone for good, with its bytes.
    pub fn dies(&mut self, work: &Work<'_>, message: &QueueMessage) -> Result<(), NeedsKeys> {
        self.leaves(work, message)?;
        self.dead.push(message.at());
        Ok(())
    }

    /// Counts messages that expired.
    pub fn count_expired(&mut self, work: &mut Work<'_>, count: u64) {
        self.state.expired_total += count;
        work.meta.totals.expired += count;
    }

    /// How often a message may be delivered; 0: no limit.
    pub fn receive_count_max(&self, attributes: &Attributes) -> u32 {
        match attributes.policy.receive_count_max {
            0 => self.state.settings.receive_count_max,
            own => own,
        }
    }

    /// When a message expires that becomes deliverable at a time.
    pub fn expiry(
        &self,
        work: &Work<'_>,
        deliverable_at: ShardTime,
        ttl_ms: Option<u64>,
    ) -> (ShardTime, WallTime) {
        let limits = [ttl_ms, self.state.settings.retention_ms];
        match limits.into_iter().flatten().min() {
            Some(left_ms) => {
                let expires = deliverable_at.plus_ms(left_ms);
                (expires, work.wall_at(expires))
            }
            None => (NEVER, WallTime(0)),
        }
    }

    /// Says that there may be something to lease.
    pub fn note_available(&self, work: &mut Work<'_>) {
        work.note(Change::Available {
            object: self.object,
            name: Name::clone(&self.state.name),
        });
    }

    /// Writes everything.
    pub fn close(self, work: &mut Work<'_>) -> Result<(), NeedsKeys> {
        let object = self.object;
        let state = self.settle_accounts(work)?;
        work.put(Key::Object(object), state);
        Ok(())
    }

    /// Writes everything but the root record.
    pub fn settle_accounts(self, work: &mut Work<'_>) -> Result<Queue, NeedsKeys> {
        for (id, (_, gone)) in self.attributes {
            attributes::release(work, id, gone)?;
        }
        live::release(work, self.dead)?;
        Ok(self.state)
    }
}
