//! Reports of damage: kept across restarts, and taken back when nobody misses anything by it.

use super::Applier;
use crate::SegmentId;
use crate::damage::{DamagedRange, REPORTS_MAX};
use crate::records::damage_key;

impl Applier {
    pub(super) fn record_damage(&mut self, range: &DamagedRange, contents_unknown: bool) {
        if contents_unknown {
            self.groups.mark_all_suspect();
            self.touched_groups
                .extend(self.groups.iter().map(|(group, _)| group));
            self.gap = Some(range.clone());
        }
        self.add_damage(range.clone());
    }

    /// Keeps a report across restarts. Returns whether it is new.
    pub(crate) fn add_damage(&mut self, range: DamagedRange) -> bool {
        if self.damage.len() >= REPORTS_MAX || self.damage.contains(&range) {
            return false;
        }
        self.batch
            .insert(damage_key(self.damage.len() as u32), &range.encode()[..]);
        self.changes += 1;
        self.damage.push(range);
        true
    }

    /// Nothing that is needed lies in a damaged part of the segment any more.
    pub(crate) fn settle_segment(&mut self, segment: SegmentId) {
        self.settle_damage(|range| range.segment == segment);
    }

    /// Takes back reports that `is_over` says yes to.
    pub(super) fn settle_damage(&mut self, mut is_over: impl FnMut(&mut DamagedRange) -> bool) {
        let before = self.damage.clone();
        self.damage.retain_mut(|range| !is_over(range));
        if self.damage == before {
            return;
        }
        // Numbers are places in the list.
        for (number, range) in self.damage.iter().enumerate() {
            self.batch
                .insert(damage_key(number as u32), &range.encode()[..]);
        }
        for number in self.damage.len()..before.len() {
            self.batch.remove(damage_key(number as u32));
        }
        self.changes += before.len();
    }
}
