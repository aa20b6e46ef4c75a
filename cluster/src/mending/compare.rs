//! Which of several replicas is damaged, and which differs from the others: decided here, without a
//! network or a clock.

use flotilla_model::key::Key;

use super::message::{ENTRIES_PER_PART, Part, Place, Totals};
use super::report::ReplicaFinding;

/// Places told of a replica.
const PLACES_MAX: usize = 8;

/// A comparison under way.
pub(super) struct Comparison {
    /// All voters, those included that do not answer: a majority is one of all.
    voters: usize,
    found: Vec<Found>,
    /// Whole, but nobody can tell who is right.
    is_open: bool,
}

#[derive(Clone, Default)]
struct Found {
    damaged_places: Vec<String>,
    /// Where it is not what a majority of all voters holds.
    minority_places: Vec<String>,
    /// Where it is not what all others hold, and there is no majority.
    open_places: Vec<String>,
}

impl Comparison {
    /// Of so many replicas that answer, out of so many voters.
    pub fn new(replicas: usize, voters: usize) -> Self {
        Self {
            voters,
            found: vec![Found::default(); replicas],
            is_open: false,
        }
    }

    /// Takes what the replicas hold at the first place that any of them has something at: `None` for those
    /// that have nothing there, and not `present` those that broke off.
    pub fn step(&mut self, place: &Place, parts: &[Option<Part>], present: &[bool]) {
        let mut whole: Vec<Option<&Option<Part>>> = Vec::with_capacity(parts.len());
        for (number, part) in parts.iter().enumerate() {
            let is_damaged = part.as_ref().is_some_and(|part| part.damaged > 0);
            if is_damaged {
                note(&mut self.found[number].damaged_places, place);
            }
            // What is not whole says nothing about the rest.
            whole.push((present[number] && !is_damaged).then_some(part));
        }
        let mut held = whole.iter().flatten();
        let Some(first) = held.next() else { return };
        if held.all(|part| part == first) {
            return;
        }
        let count = |part: &Option<Part>| {
            whole
                .iter()
                .flatten()
                .filter(|other| **other == part)
                .count()
        };
        let majority = whole
            .iter()
            .flatten()
            .find(|part| count(part) * 2 > self.voters);
        for (found, part) in self.found.iter_mut().zip(&whole) {
            match (part, majority) {
                (Some(part), Some(majority)) if part != majority => {
                    note(&mut found.minority_places, place);
                }
                (Some(_), None) => {
                    note(&mut found.open_places, place);
                    self.is_open = true;
                }
                _ => {}
            }
        }
    }

    /// Whether replicas differ without a majority for either side: none of them must be made anew.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// What is to be said of a replica of which all was read.
    pub fn finding(&self, replica: usize, totals: &Totals) -> ReplicaFinding {
        let found = &self.found[replica];
        if totals.damaged > 0 || totals.log_damaged > 0 {
            let mut places = found.damaged_places.clone();
            if let Some(first) = totals.log_damaged_first {
                places.push(format!("entry {first} of the log"));
            }
            return ReplicaFinding::Damaged {
                messages: totals.damaged,
                log_entries: totals.log_damaged,
                places,
            };
        }
        let places = [&found.minority_places[..], &found.open_places[..]].concat();
        match places.is_empty() {
            true => ReplicaFinding::Identical,
            false => ReplicaFinding::Differs { places },
        }
    }
}

fn note(places: &mut Vec<String>, place: &Place) {
    if places.len() < PLACES_MAX {
        places.push(describe(place));
    }
}

fn describe(place: &Place) -> String {
    match place {
        Place::Entries { first } => {
            format!(
                "messages of entries {first} to {}",
                first + ENTRIES_PER_PART - 1
            )
        }
        Place::Records { upto } => match Key::decode(upto) {
            Ok(key) => format!("state records up to {key:?}"),
            Err(_) => "state records that are not of this build".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place::Entries { first: 32 };

    fn part(crc: u32, damaged: u32) -> Option<Part> {
        Some(Part {
            place: PLACE,
            count: 1,
            bytes: 1,
            crc,
            damaged,
        })
    }

    fn findings(voters: usize, parts: &[Option<Part>]) -> (Vec<ReplicaFinding>, bool) {
        let mut comparison = Comparison::new(parts.len(), voters);
        comparison.step(&PLACE, parts, &vec![true; parts.len()]);
        let findings = parts.iter().enumerate().map(|(replica, part)| {
            let damaged = part.as_ref().map_or(0, |part| u64::from(part.damaged));
            let totals = Totals {
                damaged,
                ..Totals::default()
            };
            comparison.finding(replica, &totals)
        });
        (findings.collect(), comparison.is_open())
    }

    fn places() -> Vec<String> {
        vec!["messages of entries 32 to 47".to_owned()]
    }

    #[test]
    fn the_majority_of_all_voters_is_right() {
        let differs = ReplicaFinding::Differs { places: places() };
        let same = ReplicaFinding::Identical;
        let (found, is_open) = findings(3, &[part(1, 0), part(2, 0), part(1, 0)]);
        assert_eq!(found, [same.clone(), differs.clone(), same.clone()]);
        assert!(!is_open);
        // Something that only one of them has.
        let (found, _) = findings(3, &[None, part(2, 0), None]);
        assert_eq!(found, [same.clone(), differs.clone(), same]);
    }

    #[test]
    fn without_a_majority_nobody_is_right() {
        let differs = ReplicaFinding::Differs { places: places() };
        for (voters, parts) in [
            (2, vec![part(1, 0), part(2, 0)]),
            (3, vec![part(1, 0), part(2, 0)]),
            (3, vec![part(1, 0), part(2, 0), part(3, 0)]),
            (5, vec![part(1, 0), part(1, 0), part(2, 0)]),
        ] {
            let (found, is_open) = findings(voters, &parts);
            assert!(found.iter().all(|finding| *finding == differs), "{found:?}");
            assert!(is_open);
        }
    }

    #[test]
    fn what_is_not_whole_is_damaged_and_no_voice() {
        let damaged = ReplicaFinding::Damaged {
            messages: 3,
            log_entries: 0,
            places: places(),
        };
        let (found, is_open) = findings(2, &[part(1, 0), part(9, 3)]);
        assert_eq!(found, [ReplicaFinding::Identical, damaged]);
        assert!(!is_open);
    }
}
