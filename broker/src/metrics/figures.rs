//! The counters and the last sample as figures.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use flotilla_model::name::{Kind, Name};

use crate::api::figures::{Figures, KindFigures, NameFigures, QueueFigures};
use crate::core::Core;
use crate::metrics::Metrics;
use crate::metrics::sample::lag;

const KINDS: [Kind; 5] = [
    Kind::Topic,
    Kind::Queue,
    Kind::Signal,
    Kind::Request,
    Kind::Command,
];

/// Everything, as of now; what shards hold is as of the last sample.
pub(crate) fn of(core: &Core) -> Figures {
    let sample = core.sample.get();
    let mut queues: BTreeMap<&Name, QueueFigures> = BTreeMap::new();
    for (name, info) in &sample.queues {
        let figures = QueueFigures {
            available: info.available,
            delayed: info.delayed,
            expired_total: info.expired_total,
        };
        queues.insert(name, figures);
    }
    let mut readers: BTreeMap<&Name, Vec<(String, u64)>> = BTreeMap::new();
    for (name, info, cursors) in &sample.topics {
        let of_cursors = cursors
            .iter()
            .map(|one| (one.name.to_string(), lag(info, one)));
        readers.insert(name, of_cursors.collect());
    }
    let names = core.metrics.0.named.all().into_iter();
    let names = names.map(|(name, series)| NameFigures {
        messages_in: series.messages_in.load(Ordering::Relaxed),
        bytes_in: series.bytes_in.load(Ordering::Relaxed),
        messages_out: series.messages_out.load(Ordering::Relaxed),
        bytes_out: series.bytes_out.load(Ordering::Relaxed),
        last_in_ms: series.last_in_ms.load(Ordering::Relaxed),
        last_out_ms: series.last_out_ms.load(Ordering::Relaxed),
        queue: queues.get(&name).copied(),
        readers: readers.remove(&name).unwrap_or_default(),
        name,
    });
    Figures {
        names: names.collect(),
        kinds: KINDS.map(|kind| core.metrics.kind_figures(kind)).into(),
        replies: core.metrics.replies(),
    }
}

impl Metrics {
    fn kind_figures(&self, kind: Kind) -> KindFigures {
        let counters = self.kind(kind);
        KindFigures {
            kind,
            messages_out: counters.messages_out.get(),
            bytes_out: counters.bytes_out.get(),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}
