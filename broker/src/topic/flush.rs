//! Telling the shard how far the readers of durable cursors have come.
//!
//! Positions become commands at most once per interval, and at once when a subscription ends: its
//! successor must not get again what was done.

use std::time::Duration;

use actix::prelude::*;
use flotilla_model::outcome::{Outcome, Refusal};

use crate::api::error::BrokerError;
use crate::ingress::{EntryReply, SUBMISSION_WORKS_MAX};
use crate::topic::actor::TopicActor;
use crate::topic::reader::{Durable, Position};

/// A position that is on its way, and which of the submission's works tells it.
struct Told {
    durable: Durable,
    position: Position,
    work: usize,
}

impl TopicActor {
    /// Arms the timer if there is something to tell.
    pub(super) fn flush_soon(&mut self, context: &mut Context<Self>) {
        if self.flush_timer.is_some() || self.flushes_in_flight > 0 || !self.has_progress() {
            return;
        }
        let interval = self.core.config.cursor_flush_interval;
        self.arm_flush(interval, context);
    }

    /// Tells everything now. Flushes may overlap: the shard applies them in this order.
    pub(super) fn flush(&mut self, context: &mut Context<Self>) {
        let (works, told) = self.positions();
        if told.is_empty() {
            return;
        }
        let (_, ingress) = self.core.shard_for(&self.name);
        let Ok(pending) = ingress.try_submit(works) else {
            self.not_told(told);
            let interval = self.core.config.cursor_flush_interval;
            self.arm_flush(interval, context);
            return;
        };
        self.flushes_in_flight += 1;
        context.spawn(pending.into_actor(self).map(|result, actor, context| {
            actor.flushes_in_flight -= 1;
            actor.flushed(told, result);
            actor.stop_when_told();
            actor.tend(context);
        }));
    }

    /// Answers those who wait for the last positions to be stored.
    pub(super) fn stop_when_told(&mut self) {
        if self.parting.is_empty() && self.flushes_in_flight == 0 {
            for stopping in self.stopping.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = stopping.send(());
            }
        }
    }

    fn arm_flush(&mut self, after: Duration, context: &mut Context<Self>) {
        if self.flush_timer.is_none() {
            self.flush_timer = Some(context.run_later(after, |actor, context| {
                actor.flush_timer = None;
                actor.look_at_readers(context);
                actor.flush(context);
            }));
        }
    }

    fn has_progress(&self) -> bool {
        let readers = self.readers.iter().any(|reader| {
            let told = reader.durable.as_ref().map(|durable| &durable.told);
            told.is_some_and(|told| told.as_ref() != Some(&reader.position()))
        });
        let mut groups = self.groups.values();
        readers
            || !self.parting.is_empty()
            || groups.any(|group| group.durable.told.as_ref() != Some(&group.ledger.position()))
    }

    /// The commands for as many positions as one submission takes.
    fn positions(&mut self) -> (Vec<crate::ingress::Work>, Vec<Told>) {
        let (mut works, mut told) = (Vec::new(), Vec::new());
        let name = &self.name;
        let mut tell = |durable: Durable, position: Position| -> bool {
            if works.len() + 2 > SUBMISSION_WORKS_MAX {
                return false;
            }
            works.extend(durable.works(name, &position));
            told.push(Told {
                work: works.len() - 1,
                durable,
                position,
            });
            true
        };
        while let Some((cursor, (durable, position))) = self.parting.pop_first() {
            if !tell(durable.clone(), position.clone()) {
                self.parting.insert(cursor, (durable, position));
                break;
            }
        }
        for reader in &mut self.readers {
            let position = reader.position();
            if let Some(durable) = &mut reader.durable
                && durable.told.as_ref() != Some(&position)
                && tell(durable.clone(), position.clone())
            {
                durable.told = Some(position);
            }
        }
        for group in self.groups.values_mut() {
            let position = group.ledger.position();
            if group.durable.told.as_ref() != Some(&position)
                && tell(group.durable.clone(), position.clone())
            {
                group.durable.told = Some(position);
            }
        }
        (works, told)
    }

    fn flushed(&mut self, told: Vec<Told>, result: Result<EntryReply, BrokerError>) {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(topic = %self.name, %error, "positions of cursors could not be stored");
                return self.not_told(told);
            }
        };
        for told in told {
            let outcome = reply.outcome(told.work).map(|(outcome, _)| outcome);
            let lost = matches!(outcome, Ok(Outcome::Refused(Refusal::NotFound { .. })));
            if let Some(durable) = self.durable_mut(&told.durable.cursor) {
                // Deleted by someone meanwhile: opened again as soon as there is more to tell.
                durable.lost = lost;
            }
            if let Ok(Outcome::Refused(refusal)) = outcome
                && !lost
            {
                tracing::error!(topic = %self.name, cursor = told.durable.cursor, %refusal, "a position was refused");
            }
        }
    }

    /// Positions that did not get through are told again, unless others lead by now: then the readers
    /// themselves tell how far they are.
    fn not_told(&mut self, told: Vec<Told>) {
        if !self.serves() && !self.core.is_closing() {
            return;
        }
        for told in told {
            match self.durable_mut(&told.durable.cursor) {
                Some(durable) => durable.told = None,
                None => {
                    let cursor = told.durable.cursor.clone();
                    let parting = (told.durable, told.position);
                    self.parting.entry(cursor).or_insert(parting);
                }
            }
        }
    }

    fn durable_mut(&mut self, cursor: &str) -> Option<&mut Durable> {
        let readers = self.readers.iter_mut();
        let reader = readers
            .filter_map(|reader| reader.durable.as_mut())
            .find(|durable| durable.cursor == cursor);
        match reader {
            Some(durable) => Some(durable),
            None => self.groups.get_mut(cursor).map(|group| &mut group.durable),
        }
    }
}
