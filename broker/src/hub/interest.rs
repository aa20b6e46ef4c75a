//! What the listeners of this node want, as its peers are to know it: counts by key, with versions.
//!
//! A peer that knows everything up to a version is told what changed since; one that is too far
//! behind, or new, is told everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bincode::{Decode, Encode};
use flotilla_model::name::{Kind, Name};
use flotilla_model::pattern::Pattern;

use crate::api::error::BrokerError;
use crate::core::check_label;

/// Keys without listeners that are remembered, so that peers can be told of their end.
const ENDED_KEYS_MAX: usize = 4_096;

/// Who shares messages: all who listen alone to a pattern, or one group of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub(crate) struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub pattern: String,
    pub group: Option<String>,
}

impl Key {
    /// A key of what a client wants to listen to or serve, if it may be, and what names are matched
    /// with. All nodes are told of it: nothing may come in that cannot be told.
    pub fn checked(
        kind: Kind,
        namespace: String,
        pattern: String,
        group: Option<String>,
    ) -> Result<(Self, Pattern), BrokerError> {
        // The text of a pattern obeys the rules of a name.
        Name::new(&namespace, kind, &pattern)?;
        let matched = Pattern::parse(&pattern).map_err(|error| BrokerError::InvalidRequest {
            what: error.to_string(),
        })?;
        if let Some(group) = &group {
            check_label("group", group)?;
        }
        let key = Self {
            kind,
            namespace,
            pattern,
            group,
        };
        Ok((key, matched))
    }

    /// The name that it is for, if that is one and no pattern.
    pub fn exact_name(&self) -> Option<Arc<Name>> {
        let is_exact = Pattern::parse(&self.pattern).is_ok_and(|pattern| pattern.is_exact());
        let name = is_exact.then(|| Name::new(&self.namespace, self.kind, &self.pattern));
        Some(Arc::new(name?.ok()?))
    }

    /// What its texts weigh.
    pub fn bytes(&self) -> usize {
        let group = self.group.as_ref().map_or(0, String::len);
        self.namespace.len() + self.pattern.len() + group
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    count: u32,
    /// The version in which it changed last.
    changed: u64,
    /// The version in which it came to have listeners.
    since: u64,
}

/// Listeners by key.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    entries: HashMap<Key, Entry>,
    /// By the version of their last change.
    changes: BTreeMap<u64, Key>,
    ended: usize,
    version: u64,
    /// Peers that know less than this cannot be told by changes.
    forgotten: u64,
}

/// What a peer is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// It is everything.
    pub anew: bool,
    pub entries: Vec<(Key, u32)>,
    pub version: u64,
}

impl Interest {
    /// How many changes there were.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One listener more; returns the version that a peer must know to send this one anything.
    pub fn join(&mut self, key: Key) -> u64 {
        self.change(key, |entry| entry.count += 1)
    }

    /// One listener less.
    pub fn leave(&mut self, key: Key) {
        self.change(key, |entry| entry.count = entry.count.saturating_sub(1));
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) -> u64 {
        self.version += 1;
        let version = self.version;
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            count: 0,
            changed: 0,
            since: version,
        });
        let before = entry.count;
        // A key that is new was not among the ended ones.
        let was_ended = before == 0 && entry.changed > 0;
        change(entry);
        if before == 0 {
            entry.since = version;
        }
        self.changes.remove(&entry.changed);
        entry.changed = version;
        let (is_ended, since) = (entry.count == 0, entry.since);
        self.changes.insert(version, key);
        self.ended = self.ended + usize::from(is_ended) - usize::from(was_ended);
        self.forget();
        since
    }

    /// Lets go of the keys that ended first.
    fn forget(&mut self) {
        if self.ended <= ENDED_KEYS_MAX {
            return;
        }
        let entries = &self.entries;
        let has_ended = |key: &Key| entries.get(key).is_some_and(|entry| entry.count == 0);
        let oldest = self.changes.iter().find(|(_, key)| has_ended(key));
        if let Some((version, key)) = oldest.map(|(version, key)| (*version, key.clone())) {
            self.changes.remove(&version);
            self.entries.remove(&key);
            self.ended -= 1;
            self.forgotten = version;
        }
    }

    /// What a peer must be told that knows everything up to a version; `None`: it knows nothing.
    pub fn changes_since(&self, known: Option<u64>) -> Changes {
        let since = known.filter(|version| *version >= self.forgotten);
        let entries = match since {
            Some(version) => {
                let keys = self.changes.range(version + 1..).map(|(_, key)| key);
                keys.map(|key| (key.clone(), self.count(key))).collect()
            }
            None => {
                let listened = self.entries.iter().filter(|(_, entry)| entry.count > 0);
                listened
                    .map(|(key, entry)| (key.clone(), entry.count))
                    .collect()
            }
        };
        Changes {
            anew: since.is_none(),
            entries,
            version: self.version,
        }
    }

    fn count(&self, key: &Key) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u32) -> Key {
        Key {
            kind: Kind::Signal,
            namespace: "default".to_owned(),
            pattern: format!("p{number}"),
            group: None,
        }
    }

    fn take_in(table: &mut BTreeMap<Key, u32>, changes: Changes) -> u64 {
        if changes.anew {
            table.clear();
        }
        for (key, count) in changes.entries {
            table.insert(key, count);
        }
        table.retain(|_, count| *count > 0);
        changes.version
    }

    proptest! {
        /// A peer that is told changes, whenever and however often, knows who listens.
        #[test]
        fn a_peer_knows_what_there_is(
            steps in prop::collection::vec((0u32..5, any::<bool>(), any::<bool>()), 1..80),
        ) {
            let mut interest = Interest::default();
            let mut model: BTreeMap<Key, u32> = BTreeMap::new();
            let (mut table, mut known) = (BTreeMap::new(), None);
            for (number, joins, tells) in steps {
                let count = model.entry(key(number)).or_default();
                if joins {
                    *count += 1;
                    let since = interest.join(key(number));
                    prop_assert!(since <= interest.version());
                    prop_assert!(*count > 1 || since == interest.version());
                } else if *count > 0 {
                    *count -= 1;
                    interest.leave(key(number));
                }
                model.retain(|_, count| *count > 0);
                if tells {
                    known = Some(take_in(&mut table, interest.changes_since(known)));
                    prop_assert_eq!(&table, &model);
                }
            }
        }
    }

    #[test]
    fn a_group_that_cannot_be_told_to_other_nodes_is_refused() {
        let checked = |bytes: usize| {
            let group = Some("g".repeat(bytes));
            Key::checked(Kind::Request, "default".into(), "a.*".into(), group)
        };
        assert!(checked(1).is_ok() && checked(1_024).is_ok());
        for bytes in [0, 1_025] {
            let refused = checked(bytes).map(|(key, _)| key);
            let what = format!("a group's name must have 1 to 1024 bytes, not {bytes}");
            assert_eq!(refused, Err(BrokerError::InvalidRequest { what }));
        }
    }

    #[test]
    fn ended_keys_are_forgotten_and_whoever_missed_their_end_is_told_everything() {
        let mut interest = Interest::default();
        interest.join(key(0));
        let known = interest.version();
        for number in 1..=ENDED_KEYS_MAX as u32 + 10 {
            interest.join(key(number));
            interest.leave(key(number));
        }
        assert!(interest.entries.len() <= ENDED_KEYS_MAX + 1);
        let changes = interest.changes_since(Some(known));
        assert!(changes.anew);
        assert_eq!(changes.entries, [(key(0), 1)]);
    }
}
