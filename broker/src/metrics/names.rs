//! Series of single names, capped: a million names must not become a million series.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flotilla_model::name::Name;
use parking_lot::RwLock;

/// What is counted per name.
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub messages_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub messages_out: AtomicU64,
    pub bytes_out: AtomicU64,
    /// In ms since the Unix epoch; 0: never.
    pub last_in_ms: AtomicU64,
    pub last_out_ms: AtomicU64,
}

/// The names that have series.
#[derive(Debug)]
pub(crate) struct NamedSeries {
    series: RwLock<BTreeMap<Name, Arc<Series>>>,
    names_max: usize,
}

impl NamedSeries {
    pub fn new(names_max: usize) -> Self {
        Self {
            series: RwLock::new(BTreeMap::new()),
            names_max,
        }
    }

    /// Counts for a name, if it has series or can still get them.
    pub fn count(&self, name: &Name, count: impl FnOnce(&Series)) {
        {
            let series = self.series.read();
            if let Some(found) = series.get(name) {
                return count(found);
            }
            if series.len() >= self.names_max {
                return;
            }
        }
        let mut series = self.series.write();
        if series.len() < self.names_max || series.contains_key(name) {
            count(series.entry(name.clone()).or_default());
        }
    }

    pub fn forget(&self, name: &Name) {
        if self.series.read().contains_key(name) {
            self.series.write().remove(name);
        }
    }

    pub fn names(&self) -> Vec<Name> {
        self.series.read().keys().cloned().collect()
    }

    pub fn all(&self) -> Vec<(Name, Arc<Series>)> {
        let series = self.series.read();
        series
            .iter()
            .map(|(name, series)| (name.clone(), Arc::clone(series)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn names_beyond_the_cap_get_no_series() {
        let named = NamedSeries::new(2);
        let name = |text: &str| Name::topic(text).expect("a name");
        let add = |text: &str| {
            named.count(&name(text), |series| {
                series.messages_in.fetch_add(1, Ordering::Relaxed);
            });
        };
        for text in ["a", "b", "c", "a"] {
            add(text);
        }
        assert_eq!(named.names(), [name("a"), name("b")]);
        named.forget(&name("b"));
        add("c");
        assert_eq!(named.names(), [name("a"), name("c")]);
        let counts: Vec<u64> = named
            .all()
            .iter()
            .map(|(_, series)| series.messages_in.load(Ordering::Relaxed))
            .collect();
        assert_eq!(counts, [2, 1]);
    }
}
