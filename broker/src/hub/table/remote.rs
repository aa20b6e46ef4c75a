//! What other nodes told of those who listen there.

use flotilla_model::ids::NodeId;
use flotilla_model::pattern::Pattern;

use crate::hub::interest::Key;
use crate::hub::table::{Member, Table, Target};

/// Listeners of another node that listen alone to one pattern.
pub(super) struct Remote {
    pub node: NodeId,
    pub count: u32,
    key: Key,
    pattern: Pattern,
}

/// What a node told, in one conversation.
pub(crate) struct Told {
    pub node: NodeId,
    /// A later one has a higher number.
    pub conversation: u64,
    /// Nothing told before counts.
    pub anew: bool,
    pub entries: Vec<(Key, u32)>,
}

impl<M: Member> Table<M> {
    /// Takes in what another node told, unless a later conversation with it has begun.
    pub fn told(&mut self, told: Told, keys_max: usize) {
        let known = self.conversations.entry(told.node).or_default();
        if told.conversation < *known {
            return;
        }
        *known = told.conversation;
        if told.anew {
            self.forget(told.node);
        }
        let mut is_whole = true;
        for (key, count) in told.entries {
            is_whole &= self.set_remote(told.node, key, count, keys_max);
        }
        if !is_whole {
            tracing::warn!(node = %told.node, keys_max, "a node listens to more than is remembered");
        }
    }

    /// A conversation ended: what was told in it no longer counts. False if a later one goes on.
    pub fn gone(&mut self, node: NodeId, conversation: u64) -> bool {
        let is_last = self.conversations.get(&node) == Some(&conversation);
        if is_last {
            self.conversations.remove(&node);
            self.forget(node);
        }
        is_last
    }

    /// Another node has so many listeners under a key now. False if it may have no more keys.
    pub(super) fn set_remote(
        &mut self,
        node: NodeId,
        key: Key,
        count: u32,
        keys_max: usize,
    ) -> bool {
        let Ok(pattern) = Pattern::parse(&key.pattern) else {
            return true;
        };
        let told = self.told.entry(node).or_default();
        if count > 0 && told.len() >= keys_max && !told.contains_key(&key) {
            return false;
        }
        if key.group.is_some() {
            if count > 0 {
                told.insert(key.clone(), None);
            } else {
                told.remove(&key);
            }
            self.set_group(node, &key, &pattern, count);
        } else {
            self.set_alone(node, key, pattern, count);
        }
        true
    }

    fn set_group(&mut self, node: NodeId, key: &Key, pattern: &Pattern, count: u32) {
        if count == 0 && !self.group_ids.contains_key(key) {
            return;
        }
        let id = self.group(key, pattern);
        if let Some(group) = self.groups.get_mut(&id) {
            group.set_elsewhere(node, count);
        }
        self.drop_empty(id);
    }

    fn set_alone(&mut self, node: NodeId, key: Key, pattern: Pattern, count: u32) {
        let told = self.told.entry(node).or_default();
        match told.get(&key).copied().flatten() {
            Some(id) if count > 0 => {
                if let Some(remote) = self.remotes.get_mut(&id) {
                    remote.count = count;
                }
            }
            Some(id) => {
                told.remove(&key);
                self.remotes.remove(&id);
                self.take(&key, &pattern, Target::Remote(id));
            }
            None if count > 0 => {
                self.last_id += 1;
                let id = self.last_id;
                told.insert(key.clone(), Some(id));
                self.put(&key, &pattern, Target::Remote(id));
                let remote = Remote {
                    node,
                    count,
                    key,
                    pattern,
                };
                self.remotes.insert(id, remote);
            }
            None => {}
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        for (key, remote) in self.told.remove(&node).unwrap_or_default() {
            match remote {
                Some(id) => {
                    if let Some(remote) = self.remotes.remove(&id) {
                        self.take(&remote.key, &remote.pattern, Target::Remote(id));
                    }
                }
                None => {
                    let Some(id) = self.group_ids.get(&key).copied() else {
                        continue;
                    };
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.set_elsewhere(node, 0);
                    }
                    self.drop_empty(id);
                }
            }
        }
    }
}
