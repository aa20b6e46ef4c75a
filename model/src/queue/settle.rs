//! The ways in which the hold on messages ends.
//!
//! A consumer settles them; a lease whose time is over returns them; a session that ends releases
//! them.

use super::LEASE_MESSAGES_MAX;
use super::depart::depart;
use super::fate::end_hold;
use super::lease::ranges;
use super::open::OpenQueue;
use crate::command::{Selection, Settlement};
use crate::ids::{LeaseId, ObjectId, Sequence, SessionId};
use crate::key::Key;
use crate::mutation::{self, Mutation};
use crate::name::{Kind, Name};
use crate::objects::{check_name, not_found};
use crate::outcome::{Change, Outcome, Refusal};
use crate::overlay::Work;
use crate::record::{LeaseState, SequenceRange, Timer};
use crate::records::NeedsKeys;
use crate::{session, timers};

/// Settles messages of a lease for the session that holds it.
pub(crate) fn settle(
    work: &mut Work<'_>,
    name: &Name,
    session: SessionId,
    lease: LeaseId,
    which: &Selection,
    how: &Settlement,
) -> Result<Outcome, NeedsKeys> {
    if let Err(refusal) = check(name, which, how) {
        return Ok(Outcome::Refused(refusal));
    }
    let (mut queue, state) = match held_by(work, name, session, lease)? {
        Ok(found) => found,
        Err(Refusal::StaleLease { .. }) if mutation::is_chosen(Mutation::Lease) => {
            return Ok(Outcome::Settled {
                count: 0,
                not_held: Vec::new(),
                remaining: 0,
            });
        }
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    let (chosen, not_held, rest) = choose(&state.held, which);
    let remaining = rest.iter().map(|range| range.count).sum();
    let departures = end_hold(work, &mut queue, lease, &chosen, how)?;
    keep_rest(work, &queue, lease, state, rest)?;
    let from = queue.state.name.clone();
    queue.close(work)?;
    depart(work, &from, departures)?;
    Ok(Outcome::Settled {
        count: chosen.len() as u32,
        not_held,
        remaining,
    })
}

/// Restarts the visibility timer of a lease.
pub(crate) fn extend(
    work: &mut Work<'_>,
    name: &Name,
    session: SessionId,
    lease: LeaseId,
    visibility_ms: u64,
) -> Result<Outcome, NeedsKeys> {
    let checked = match visibility_ms {
        0 => Err(Refusal::Invalid {
            what: "a visibility time must be longer than nothing".to_owned(),
        }),
        _ => check_name(name, Kind::Queue),
    };
    if let Err(refusal) = checked {
        return Ok(Outcome::Refused(refusal));
    }
    let (queue, mut state) = match held_by(work, name, session, lease)? {
        Ok(found) => found,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    let deadline = work.now().plus_ms(visibility_ms);
    let timer = Timer::Lease(queue.object, lease);
    state.deadline = Some(deadline);
    state.armed = timers::arm_earlier(work, timer, state.armed, deadline)?;
    work.put(Key::Lease(queue.object, lease), state);
    Ok(Outcome::Done)
}

/// The timer of a lease fired: returns its messages if its time is over.
pub(crate) fn fire_lease(
    work: &mut Work<'_>,
    object: ObjectId,
    lease: LeaseId,
    bucket: u64,
) -> Result<(), NeedsKeys> {
    let key = Key::Lease(object, lease);
    let Some(mut state) = work.take::<LeaseState>(key)? else {
        return Ok(());
    };
    let Some(deadline) = state.deadline else {
        return Ok(());
    };
    if state.armed != bucket {
        return Ok(());
    }
    if deadline > work.now() {
        // It was extended since: look again then.
        state.armed = timers::arm_earlier(work, Timer::Lease(object, lease), 0, deadline)?;
        work.put(key, state);
        return Ok(());
    }
    end_whole(work, object, lease, state, &Settlement::Return)
}

/// A session that held a lease is over: its messages come back.
pub(crate) fn end_lease(
    work: &mut Work<'_>,
    object: ObjectId,
    lease: LeaseId,
    how: &Settlement,
) -> Result<(), NeedsKeys> {
    let state = work
        .take::<LeaseState>(Key::Lease(object, lease))?
        .expect("a session lists a lease as long as it exists");
    end_whole(work, object, lease, state, how)
}

/// Ends a lease other than by its holder's wish.
fn end_whole(
    work: &mut Work<'_>,
    object: ObjectId,
    lease: LeaseId,
    state: LeaseState,
    how: &Settlement,
) -> Result<(), NeedsKeys> {
    let Some(mut queue) = OpenQueue::by_id(work, object)? else {
        // The queue was deleted; its messages go with it, only the lease is left.
        session::remove_lease(work, state.session, state.place)?;
        work.delete(Key::Lease(object, lease));
        return Ok(());
    };
    let (chosen, _, _) = choose(&state.held, &Selection::All);
    let departures = end_hold(work, &mut queue, lease, &chosen, how)?;
    keep_rest(work, &queue, lease, state, Vec::new())?;
    let from = queue.state.name.clone();
    work.note(Change::LeaseEnded {
        name: Name::clone(&from),
        lease,
        how: how.clone(),
    });
    queue.close(work)?;
    depart(work, &from, departures)
}

/// Ends the newest lease of a queue if another session holds it, as if nobody did.
pub(super) fn release_newest(
    work: &mut Work<'_>,
    name: &Name,
    session: SessionId,
) -> Result<(), NeedsKeys> {
    let Some(queue) = OpenQueue::find(work, name)? else {
        return Ok(());
    };
    let (object, lease) = (queue.object, queue.state.last_lease);
    let state = work.take::<LeaseState>(Key::Lease(object, lease))?;
    match state.filter(|state| state.session != session) {
        Some(state) => end_whole(work, object, lease, state, &Settlement::Release),
        None => Ok(()),
    }
}

/// The queue and the lease, if this session holds it.
fn held_by(
    work: &Work<'_>,
    name: &Name,
    session: SessionId,
    lease: LeaseId,
) -> Result<Result<(OpenQueue, LeaseState), Refusal>, NeedsKeys> {
    let Some(queue) = OpenQueue::find(work, name)? else {
        return Ok(Err(not_found(name)));
    };
    let state = work.take::<LeaseState>(Key::Lease(queue.object, lease))?;
    Ok(match state.filter(|state| state.session == session) {
        Some(state) => Ok((queue, state)),
        None => Err(Refusal::StaleLease { lease }),
    })
}

/// Stores what a lease still holds, or ends it.
fn keep_rest(
    work: &mut Work<'_>,
    queue: &OpenQueue,
    lease: LeaseId,
    state: LeaseState,
    rest: Vec<SequenceRange>,
) -> Result<(), NeedsKeys> {
    let key = Key::Lease(queue.object, lease);
    if rest.is_empty() {
        session::remove_lease(work, state.session, state.place)?;
        work.delete(key);
    } else if rest != state.held {
        work.put(
            key,
            LeaseState {
                held: rest,
                ..state
            },
        );
    }
    Ok(())
}

/// Splits what a lease holds: chosen, asked for but not held, and the rest.
fn choose(
    held: &[SequenceRange],
    which: &Selection,
) -> (Vec<u64>, Vec<Sequence>, Vec<SequenceRange>) {
    let all = held.iter().flat_map(|range| range.first.0..range.end());
    let Selection::Sequences(asked) = which else {
        return (all.collect(), Vec::new(), Vec::new());
    };
    let mut asked = asked.iter().copied().peekable();
    let (mut chosen, mut not_held) = (Vec::new(), Vec::new());
    let rest = ranges(all.filter(|sequence| {
        while let Some(missed) = asked.next_if(|next| next.0 < *sequence) {
            not_held.push(missed);
        }
        let is_chosen = asked.next_if(|next| next.0 == *sequence).is_some();
        if is_chosen {
            chosen.push(*sequence);
        }
        !is_chosen
    }));
    not_held.extend(asked);
    (chosen, not_held, rest)
}

fn check(name: &Name, which: &Selection, how: &Settlement) -> Result<(), Refusal> {
    check_name(name, Kind::Queue)?;
    if let Settlement::Move { to } = how {
        check_name(to, Kind::Queue)?;
    }
    let Selection::Sequences(asked) = which else {
        return Ok(());
    };
    let is_ascending = asked.windows(2).all(|pair| pair[0] < pair[1]);
    if asked.is_empty() || asked.len() > LEASE_MESSAGES_MAX as usize || !is_ascending {
        return Err(Refusal::Invalid {
            what: format!("1 to {LEASE_MESSAGES_MAX} ascending sequences must be given"),
        });
    }
    Ok(())
}
