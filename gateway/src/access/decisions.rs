//! The rules in force, and what they said before.
//!
//! A decision looks at every record, and batches ask the same again and again: what was decided is remembered,
//! in bounds, under a digest, since names may be long. New rules begin with an empty memory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use parking_lot::RwLock;

use super::rules::{Action, Pattern, Rules};
use super::watch::{Reading, RulesSource, Watch};
use crate::error::GatewayError;

/// Decisions that are remembered; then the memory is emptied. About 2 MiB.
const REMEMBERED_MAX: usize = 65_536;

/// What clients may do.
pub struct Decisions {
    source: RulesSource,
    /// What the source gave when it was read first.
    first: Option<Vec<u8>>,
    current: RwLock<Current>,
}

struct Current {
    rules: Arc<Rules>,
    remembered: HashMap<[u8; 16], bool>,
}

impl Current {
    fn new(rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
            remembered: HashMap::new(),
        }
    }
}

impl Decisions {
    /// By the rules of a source, which must be right the first time.
    pub fn new(source: RulesSource) -> Result<Self, GatewayError> {
        let bytes = source.read()?;
        let rules = source.parse(&bytes)?;
        Ok(Self {
            source,
            first: Some(bytes),
            current: RwLock::new(Current::new(rules)),
        })
    }

    /// Whether a client may do this.
    pub fn allow(&self, client: &str, pattern: Pattern, channel: &str, action: Action) -> bool {
        let key = digest(client, pattern, channel, action);
        let rules = {
            let current = self.current.read();
            if let Some(decided) = current.remembered.get(&key) {
                return *decided;
            }
            Arc::clone(&current.rules)
        };
        let decided = rules.allow(client, pattern, channel, action);
        let mut current = self.current.write();
        // What rules said that are gone by now is not to be remembered with the new ones.
        if Arc::ptr_eq(&rules, &current.rules) {
            if current.remembered.len() >= REMEMBERED_MAX {
                current.remembered.clear();
            }
            current.remembered.insert(key, decided);
        }
        decided
    }

    /// Puts new rules in force whenever the source has some.
    pub async fn keep_current(&self, told: impl Fn(Reading)) -> Infallible {
        let mut watch = Watch::new(&self.source, self.first.as_deref());
        loop {
            let (reading, rules) = watch.next().await;
            if let Some(rules) = rules {
                *self.current.write() = Current::new(rules);
            }
            told(reading);
        }
    }
}

fn digest(client: &str, pattern: Pattern, channel: &str, action: Action) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    // Its length tells where the client ends: a channel may have any character in it.
    hasher.update(&(client.len() as u64).to_le_bytes());
    hasher.update(client.as_bytes());
    hasher.update(&[pattern as u8, action as u8]);
    hasher.update(channel.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decisions(json: &str) -> Decisions {
        Decisions::new(RulesSource::Inline(json.to_owned())).unwrap()
    }

    #[test]
    fn a_decision_is_the_same_the_second_time_and_for_nothing_else() {
        let decisions = decisions(r#"[{"ClientID":"ab","Channel":"c","Queues":true,"Read":true}]"#);
        for _ in 0..2 {
            assert!(decisions.allow("ab", Pattern::Queues, "c", Action::Read));
            assert!(!decisions.allow("ab", Pattern::Queues, "c", Action::Write));
            assert!(!decisions.allow("ab", Pattern::Events, "c", Action::Read));
            assert!(!decisions.allow("a", Pattern::Queues, "bc", Action::Read));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let decisions =
            decisions(r#"[{"ClientID":".*","Channel":"even[0-9]*","Queues":true,"Read":true}]"#);
        for number in 0..REMEMBERED_MAX + 10 {
            let channel = format!("even{number}");
            assert!(decisions.allow("a", Pattern::Queues, &channel, Action::Read));
        }
        assert!(decisions.current.read().remembered.len() <= REMEMBERED_MAX);
        assert!(!decisions.allow("a", Pattern::Queues, "odd", Action::Read));
    }
}
