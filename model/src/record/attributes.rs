//! What queue messages share: stored once, however many messages have it. See [`crate::attributes`].

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::command::QueuePolicy;
use crate::name::Name;

/// The number of attributes; 0: the plain ones, which have no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct AttributesId(pub u64);

/// Everything about a message that is not its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Attributes {
    /// What its producer asked for.
    pub policy: QueuePolicy,
    /// The queue it was moved from.
    pub moved_from: Option<Name>,
}

/// Attributes and how many messages have them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttributesEntry {
    /// What is shared.
    pub attributes: Arc<Attributes>,
    /// By how many messages; at 0 the record goes.
    pub messages: u64,
}

impl AttributesEntry {
    pub(super) fn weight(&self) -> usize {
        let name = |name: &Option<Name>| name.as_ref().map_or(0, |name| name.text().len());
        size_of::<Attributes>()
            + name(&self.attributes.policy.dead_letter)
            + name(&self.attributes.moved_from)
    }
}
