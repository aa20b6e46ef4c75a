//! The state machine of a shard: applies one entry, in steps that can be interrupted.
//!
//! ```text
//!   begin ─► due timers ─► graves ─► proposal ─► its commands ─► keep outcomes ─┐─► finish
//!                                        ▲─────────── next proposal ────────────┘
//! ```
//!
//! Each step is a unit of work with an overlay of its own, see [`crate::overlay`]. A step whose
//! records are not in memory changes nothing and says which ones it needs; the caller loads them
//! and goes on exactly there. Everything that decides how much is done per entry (timers, graves)
//! counts records, never time, so that every replica does the same.

use std::sync::Arc;

use crate::apply::run_command;
use crate::command::{EntryHead, Proposal};
use crate::ids::{LogIndex, ShardId, ShardTime};
use crate::key::Key;
use crate::origin::Verdict;
use crate::outcome::{Applied, Outcome, Refusal, ReleasedSlots};
use crate::overlay::{Changes, Work};
use crate::record::{ShardMeta, SlotSet, Stored};
use crate::records::{MemoryRecords, NeedsKeys, RecordsMut, find};
use crate::{due, graveyard, live, origin};

/// Messages and pages touched by one call of [`EntryRun::advance`], about: short enough to hold a
/// lock for.
const ADVANCE_EFFORT: u64 = 8_192;
/// Messages and pages touched by the timers of one entry, about.
const TIMERS_EFFORT: u64 = 65_536;
/// Steps of removing the dead in one entry.
const GRAVE_STEPS: u32 = 64;
/// What a step costs that touches nothing.
const STEP_EFFORT: u64 = 2;
/// Commands that are looked at ahead when one has to wait for records anyway.
const COMMANDS_AHEAD: usize = 256;
/// Keys after which looking ahead stops.
const KEYS_AHEAD: usize = 1_024;

/// The application of one entry.
///
/// Readers may look at the state between two calls of [`Self::advance`]; a checkpoint must be
/// taken between entries.
#[derive(Debug)]
pub struct EntryRun {
    shard: ShardId,
    index: LogIndex,
    head: Arc<EntryHead>,
    slot_bytes: Arc<[u32]>,
    stage: Stage,
    meta: Option<ShardMeta>,
    changes: Changes,
    /// Slots of this entry that are referred to.
    own: SlotSet,
    /// All slots below belong to proposals before.
    slots_taken: u64,
    effort: u64,
    applied: Applied,
}

#[derive(Debug)]
enum Stage {
    Timers {
        effort: u64,
    },
    Graves {
        steps: u32,
    },
    Proposal {
        number: usize,
    },
    Commands {
        number: usize,
        outcomes: Vec<Outcome>,
        next_slot: u64,
        /// How far a command of several steps has come.
        progress: u64,
    },
    Keep {
        number: usize,
        outcomes: Arc<[Outcome]>,
    },
    Finish,
    Ended,
}

impl EntryRun {
    /// Begins to apply an entry; `slot_bytes` are the lengths of its slots.
    pub fn new(shard: ShardId, index: LogIndex, head: EntryHead, slot_bytes: Vec<u32>) -> Self {
        Self {
            shard,
            index,
            head: Arc::new(head),
            slot_bytes: slot_bytes.into(),
            stage: Stage::Timers { effort: 0 },
            meta: None,
            changes: Changes::default(),
            own: SlotSet::default(),
            slots_taken: 0,
            effort: 0,
            applied: Applied::default(),
        }
    }

    /// Goes on for a bounded time. `Ok(None)`: call again. After `Ok(Some(_))` the entry is applied
    /// and further calls give nothing.
    pub fn advance(&mut self, state: &mut dyn RecordsMut) -> Result<Option<Applied>, NeedsKeys> {
        if self.meta.is_none() {
            let mut meta = find::<ShardMeta>(state, Key::Meta)?
                .map_or_else(ShardMeta::default, |meta| meta.clone());
            meta.time = meta.time.max(self.head.now);
            meta.wall = self.head.wall;
            self.meta = Some(meta);
        }
        self.effort = 0;
        let result = loop {
            match self.step(state) {
                Ok(()) if matches!(self.stage, Stage::Ended) => {
                    break Ok(Some(std::mem::take(&mut self.applied)));
                }
                Ok(()) if self.effort >= ADVANCE_EFFORT => break Ok(None),
                Ok(()) => {}
                Err(missing) => break Err(self.look_ahead(state, missing)),
            }
        };
        // Readers in between must find the heights of tries that the records of tries belong to.
        if let Some(meta) = &self.meta {
            state.put(Key::Meta, Some(Arc::new(meta.clone().wrap())));
        }
        result
    }

    fn step(&mut self, state: &mut dyn RecordsMut) -> Result<(), NeedsKeys> {
        match &self.stage {
            Stage::Timers { effort } => {
                let spent = *effort;
                let before = self.effort;
                let fired = self.unit(state, due::fire_next)?;
                let effort = spent + (self.effort - before);
                self.stage = if fired && effort < TIMERS_EFFORT {
                    Stage::Timers { effort }
                } else {
                    Stage::Graves { steps: 0 }
                };
            }
            Stage::Graves { steps } => {
                let steps = *steps;
                let cleaned = self.unit(state, |work| {
                    if graveyard::is_empty(work) {
                        return Ok(false);
                    }
                    graveyard::clean_step(work)?;
                    Ok(true)
                })?;
                self.stage = if cleaned && steps + 1 < GRAVE_STEPS {
                    Stage::Graves { steps: steps + 1 }
                } else {
                    Stage::Proposal { number: 0 }
                };
            }
            Stage::Proposal { number } => {
                let number = *number;
                self.judge(state, number)?;
            }
            Stage::Commands { .. } => self.command(state)?,
            Stage::Keep { number, outcomes } => {
                let (number, outcomes) = (*number, outcomes.clone());
                let head = self.head.clone();
                let Proposal {
                    origin, sequence, ..
                } = head.proposals[number];
                self.unit(state, |work| {
                    origin::keep(work, origin, sequence, outcomes.clone())
                })?;
                self.applied.outcomes.push(outcomes);
                self.stage = Stage::Proposal { number: number + 1 };
            }
            Stage::Finish => self.finish(state)?,
            Stage::Ended => {}
        }
        Ok(())
    }

    /// Decides whether a proposal is applied, and begins with it.
    fn judge(&mut self, state: &mut dyn RecordsMut, number: usize) -> Result<(), NeedsKeys> {
        let head = self.head.clone();
        let Some(proposal) = head.proposals.get(number) else {
            self.stage = Stage::Finish;
            return Ok(());
        };
        let verdict = self.unit(state, |work| {
            origin::judge(work, proposal.origin, proposal.sequence)
        })?;
        self.stage = match verdict {
            Verdict::Apply => {
                let first = u64::from(proposal.first_slot);
                // Slots that an earlier proposal may have taken cannot be taken again.
                let next_slot = if first < self.slots_taken {
                    u64::MAX
                } else {
                    first
                };
                Stage::Commands {
                    number,
                    outcomes: Vec::with_capacity(proposal.commands.len()),
                    next_slot,
                    progress: 0,
                }
            }
            Verdict::Repeat(outcomes) => {
                self.applied.outcomes.push(outcomes);
                Stage::Proposal { number: number + 1 }
            }
            Verdict::Refuse(refusal) => {
                let refused = Outcome::Refused(refusal);
                let outcomes = vec![refused; proposal.commands.len()];
                self.applied.outcomes.push(outcomes.into());
                Stage::Proposal { number: number + 1 }
            }
        };
        Ok(())
    }

    /// Runs the next command of the present proposal, or a step of it.
    fn command(&mut self, state: &mut dyn RecordsMut) -> Result<(), NeedsKeys> {
        let head = self.head.clone();
        let Stage::Commands {
            number,
            outcomes,
            next_slot,
            progress,
        } = &self.stage
        else {
            return Ok(());
        };
        let (number, next_slot, mut progress) = (*number, *next_slot, *progress);
        let Some(command) = head.proposals[number].commands.get(outcomes.len()) else {
            self.slots_taken = self.slots_taken.max(next_slot);
            if let Stage::Commands { outcomes, .. } = &mut self.stage {
                let outcomes = std::mem::take(outcomes).into();
                self.stage = Stage::Keep { number, outcomes };
            }
            return Ok(());
        };
        let slot_end = next_slot.saturating_add(command.slot_count());
        let is_within = slot_end <= self.slot_bytes.len() as u64;
        let outcome = if is_within {
            self.unit(state, |work| {
                run_command(work, command, next_slot as u32, &mut progress)
            })?
        } else {
            Some(Outcome::Refused(Refusal::Invalid {
                what: "the command takes more slots than there are".to_owned(),
            }))
        };
        if let Stage::Commands {
            outcomes,
            next_slot,
            progress: kept_progress,
            ..
        } = &mut self.stage
        {
            *kept_progress = progress;
            if let Some(outcome) = outcome {
                outcomes.push(outcome);
                *next_slot = slot_end;
                *kept_progress = 0;
            }
        }
        Ok(())
    }

    fn finish(&mut self, state: &mut dyn RecordsMut) -> Result<(), NeedsKeys> {
        let own = std::mem::take(&mut self.own);
        let kept = self.unit(state, |work| {
            live::keep_own(work, &own)?;
            work.meta.applied = work.index;
            due::next(work)
        });
        self.own = own;
        self.applied.next_due = kept?;
        self.applied.feature_level = self.meta.as_ref().map_or(0, |meta| meta.feature_level);
        self.release_unused();
        self.stage = Stage::Ended;
        Ok(())
    }

    /// Reports the slots of this entry that nothing refers to.
    fn release_unused(&mut self) {
        let total = self.slot_bytes.len() as u32;
        let mut at = 0;
        for (first, count) in self.own.runs().into_iter().chain([(total, 0)]) {
            if first > at {
                let bytes = &self.slot_bytes[at as usize..first as usize];
                self.applied.released.push(ReleasedSlots {
                    index: self.index,
                    first: at,
                    count: first - at,
                    bytes: bytes.iter().map(|bytes| u64::from(*bytes)).sum(),
                });
            }
            at = first + count;
        }
    }

    /// Runs a unit of work; its changes reach the state if it finishes.
    fn unit<T: Judged>(
        &mut self,
        state: &mut dyn RecordsMut,
        work: impl FnOnce(&mut Work<'_>) -> Result<T, NeedsKeys>,
    ) -> Result<T, NeedsKeys> {
        let meta = self
            .meta
            .as_mut()
            .expect("the root record is read before the first step");
        let before = meta.clone();
        let mut unit = Work::new(
            state,
            &mut self.changes,
            meta,
            self.shard,
            self.index,
            &self.slot_bytes,
        );
        let result = work(&mut unit);
        self.effort += STEP_EFFORT + self.changes.effort;
        match &result {
            Ok(value) if !value.is_refusal() => self.commit(state),
            _ => self.meta = Some(before),
        }
        result
    }

    fn commit(&mut self, state: &mut dyn RecordsMut) {
        self.changes.write_to(state);
        self.applied.changes.append(&mut self.changes.notes);
        self.applied.released.append(&mut self.changes.released);
        for slots in self.changes.own_slots.drain(..) {
            if slots.live {
                self.own.insert(slots.first, slots.count);
            } else {
                let was_live = self.own.remove(slots.first, slots.count);
                assert!(was_live, "slots die once, after they lived: {slots:?}");
            }
        }
    }

    /// Adds to the missing records those that the next commands will miss, as far as can be told
    /// without them: a batch for many cold names is then loaded in a few rounds.
    fn look_ahead(&mut self, state: &dyn RecordsMut, missing: NeedsKeys) -> NeedsKeys {
        let NeedsKeys(mut keys) = missing;
        if let (
            Stage::Commands {
                number,
                outcomes,
                next_slot,
                ..
            },
            Some(meta),
        ) = (&self.stage, &self.meta)
        {
            let commands = &self.head.proposals[*number].commands[outcomes.len()..];
            let mut slot = *next_slot;
            for command in commands.iter().take(COMMANDS_AHEAD) {
                let end = slot.saturating_add(command.slot_count());
                if keys.len() >= KEYS_AHEAD || end > self.slot_bytes.len() as u64 {
                    break;
                }
                let mut scratch = meta.clone();
                let mut work = Work::new(
                    state,
                    &mut self.changes,
                    &mut scratch,
                    self.shard,
                    self.index,
                    &self.slot_bytes,
                );
                if let Err(more) = run_command(&mut work, command, slot as u32, &mut 0) {
                    keys.extend(more.0);
                }
                slot = end;
            }
            self.changes.clear();
        }
        keys.sort_unstable();
        keys.dedup();
        NeedsKeys(keys)
    }
}

/// What a unit of work comes to: a refused command has changed nothing, whatever it did on its way.
trait Judged {
    fn is_refusal(&self) -> bool {
        false
    }
}

impl Judged for () {}
impl Judged for bool {}
impl Judged for Verdict {}
impl Judged for Option<ShardTime> {}
impl Judged for Option<Outcome> {
    fn is_refusal(&self) -> bool {
        matches!(self, Some(Outcome::Refused(_)))
    }
}

/// Applies an entry to a state that is all in memory.
pub fn apply_in_memory(
    shard: ShardId,
    index: LogIndex,
    head: EntryHead,
    slot_bytes: Vec<u32>,
    state: &mut MemoryRecords,
) -> Applied {
    let mut run = EntryRun::new(shard, index, head, slot_bytes);
    loop {
        match run.advance(state) {
            Ok(Some(applied)) => return applied,
            Ok(None) => {}
            Err(missing) => panic!("state in memory has no missing records: {missing:?}"),
        }
    }
}
