//! Names of signals and requests that were used lately: they store nothing, but operators list them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_model::ids::WallTime;
use flotilla_model::name::{Kind, Name};

/// What is remembered of a name.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub messages: u64,
    pub deliveries: u64,
    /// The last message; 0 before the first.
    pub last: WallTime,
    last_used: Instant,
    /// Its key among the uses.
    turn: u64,
}

/// A bounded memory of names, which forgets the least recently used.
#[derive(Debug)]
pub(crate) struct SeenNames {
    names: BTreeMap<Arc<Name>, Seen>,
    uses: BTreeMap<u64, Arc<Name>>,
    last_turn: u64,
    names_max: usize,
    idle_max: Duration,
}

impl SeenNames {
    pub fn new(names_max: usize, idle_max: Duration) -> Self {
        Self {
            names: BTreeMap::new(),
            uses: BTreeMap::new(),
            last_turn: 0,
            names_max,
            idle_max,
        }
    }

    /// A name was published or listened to.
    pub fn note(&mut self, name: &Arc<Name>, messages: u64, deliveries: u64, now: Instant) {
        self.last_turn += 1;
        let turn = self.last_turn;
        let last = if messages > 0 {
            wall_now()
        } else {
            WallTime(0)
        };
        match self.names.get_mut(name) {
            Some(seen) => {
                self.uses.remove(&seen.turn);
                seen.messages += messages;
                seen.deliveries += deliveries;
                seen.last = seen.last.max(last);
                seen.last_used = now;
                seen.turn = turn;
            }
            None => {
                let seen = Seen {
                    messages,
                    deliveries,
                    last,
                    last_used: now,
                    turn,
                };
                self.names.insert(Arc::clone(name), seen);
            }
        }
        self.uses.insert(turn, Arc::clone(name));
        self.forget(now);
    }

    /// Names of a kind after another one, in their order.
    pub fn after(
        &mut self,
        kind: Kind,
        after: Option<&Name>,
        limit: usize,
    ) -> Vec<(Arc<Name>, Seen)> {
        self.forget(Instant::now());
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let from = match &from {
            Bound::Excluded(name) => Bound::Excluded(name),
            _ => Bound::Unbounded,
        };
        self.names
            .range::<Name, _>((from, Bound::Unbounded))
            .filter(|(name, _)| name.kind() == kind)
            .take(limit)
            .map(|(name, seen)| (Arc::clone(name), seen.clone()))
            .collect()
    }

    /// Drops a name; false if it was not there.
    pub fn drop_name(&mut self, name: &Name) -> bool {
        let Some(seen) = self.names.remove(name) else {
            return false;
        };
        self.uses.remove(&seen.turn);
        true
    }

    /// Drops what is beyond the bound or too old: the least recently used come first.
    fn forget(&mut self, now: Instant) {
        while let Some((turn, name)) = self.uses.first_key_value() {
            let old = self
                .names
                .get(name)
                .is_none_or(|seen| now.duration_since(seen.last_used) > self.idle_max);
            if self.names.len() <= self.names_max && !old {
                break;
            }
            let (turn, name) = (*turn, Arc::clone(name));
            self.uses.remove(&turn);
            self.names.remove(&name);
        }
    }
}

fn wall_now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    WallTime(since_epoch.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Arc<Name> {
        Arc::new(Name::signal(text).expect("a name"))
    }

    fn texts(names: &mut SeenNames, after: Option<&Name>, limit: usize) -> Vec<String> {
        let found = names.after(Kind::Signal, after, limit);
        found
            .iter()
            .map(|(name, _)| name.text().to_owned())
            .collect()
    }

    #[test]
    fn only_messages_are_activity() {
        let (mut names, now) = (SeenNames::new(10, Duration::from_secs(60)), Instant::now());
        let last = |names: &mut SeenNames| names.after(Kind::Signal, None, 1)[0].1.last;
        names.note(&name("a"), 0, 0, now);
        assert_eq!(last(&mut names), WallTime(0));
        names.note(&name("a"), 1, 0, now);
        let sent = last(&mut names);
        assert!(sent > WallTime(0));
        names.note(&name("a"), 0, 0, now);
        assert_eq!(last(&mut names), sent);
    }

    #[test]
    fn the_least_recently_used_name_is_forgotten_first() {
        let mut names = SeenNames::new(2, Duration::from_secs(60));
        let now = Instant::now();
        names.note(&name("a"), 1, 0, now);
        names.note(&name("b"), 1, 0, now);
        names.note(&name("a"), 1, 0, now);
        names.note(&name("c"), 1, 0, now);
        assert_eq!(texts(&mut names, None, 10), ["a", "c"]);
        assert_eq!(texts(&mut names, Some(&name("a")), 10), ["c"]);
        assert_eq!(names.after(Kind::Signal, None, 1)[0].1.messages, 2);
    }

    #[test]
    fn a_name_that_was_dropped_is_a_new_one_when_it_is_used_again() {
        let mut names = SeenNames::new(10, Duration::from_secs(60));
        let now = Instant::now();
        names.note(&name("a"), 3, 0, now);
        assert!(names.drop_name(&name("a")));
        assert!(!names.drop_name(&name("a")));
        assert!(names.uses.is_empty());
        names.note(&name("a"), 0, 0, now);
        assert_eq!(names.after(Kind::Signal, None, 1)[0].1.messages, 0);
    }

    #[test]
    fn an_unused_name_is_forgotten() {
        let mut names = SeenNames::new(10, Duration::from_secs(60));
        let now = Instant::now();
        names.note(&name("a"), 1, 0, now);
        names.note(&name("b"), 1, 0, now + Duration::from_secs(61));
        assert_eq!(texts(&mut names, None, 10), ["b"]);
    }
}
