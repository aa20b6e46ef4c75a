//! Who holds leases: sessions and their nodes.
//!
//! A session has a record only while it holds something, and is listed under its node then, so that
//! all that a dead process held can be found.

use crate::command::Settlement;
use crate::ids::{LeaseId, NodeId, ObjectId, SessionId};
use crate::key::{BagId, Key};
use crate::origin::{self, LIFE_NEVER};
use crate::overlay::Work;
use crate::record::{BagItem, Grave, NodeSessions, SessionNodes, SessionState};
use crate::records::{NeedsKeys, find, require};
use crate::{bag, graveyard};

/// Nodes in the list of those with sessions above which it is cleared of idle ones.
const NODES_LISTED: usize = 64;
/// Sessions and leases ended at once; the rest follows in the background.
const END_STEPS_AT_ONCE: u64 = 64;

/// Whether a session's node has started again since.
pub(crate) fn is_over(work: &Work<'_>, session: SessionId) -> Result<bool, NeedsKeys> {
    Ok(find::<NodeSessions>(work, Key::Node(session.node))?
        .is_some_and(|node| session.incarnation < node.incarnation_first))
}

/// Lists a lease under its session; returns its place there.
pub(crate) fn add_lease(
    work: &mut Work<'_>,
    session: SessionId,
    object: ObjectId,
    lease: LeaseId,
) -> Result<u64, NeedsKeys> {
    let key = Key::Session(session);
    let mut state = match work.take::<SessionState>(key)? {
        Some(state) => state,
        None => {
            list_node(work, session)?;
            let node_key = Key::Node(session.node);
            let mut node = work.take::<NodeSessions>(node_key)?.unwrap_or_default();
            let item = BagItem::Session(session.incarnation, session.number);
            let place = bag::add(
                work,
                BagId::NodeSessions(session.node),
                &mut node.sessions,
                item,
            )?;
            work.put(node_key, node);
            SessionState {
                place,
                ..SessionState::default()
            }
        }
    };
    let place = bag::add(
        work,
        BagId::SessionLeases(session),
        &mut state.leases,
        BagItem::Lease(object, lease),
    )?;
    work.put(key, state);
    work.meta.totals.leases += 1;
    Ok(place)
}

/// Lists the node of a session that begins to hold something, so that it can be found without
/// knowing which nodes there are.
fn list_node(work: &mut Work<'_>, session: SessionId) -> Result<(), NeedsKeys> {
    let key = Key::SessionNodes;
    let listed = work.find::<SessionNodes>(key)?;
    let found = listed.as_ref().map_or(Err(0), |nodes| {
        nodes
            .0
            .binary_search_by_key(&session.node, |(node, _)| *node)
    });
    let mut nodes = match (&listed, found) {
        // Nearly always: nothing is written then.
        (Some(nodes), Ok(place)) if nodes.0[place].1 >= session.incarnation => return Ok(()),
        (Some(nodes), _) => SessionNodes::clone(nodes),
        (None, _) => SessionNodes::default(),
    };
    match found {
        Ok(place) => nodes.0[place].1 = session.incarnation,
        Err(place) => nodes.0.insert(place, (session.node, session.incarnation)),
    }
    if nodes.0.len() > NODES_LISTED {
        drop_idle(work, &mut nodes, session.node)?;
    }
    work.put(key, nodes);
    Ok(())
}

/// Takes nodes without sessions off the list: a cluster meets many nodes over the years.
fn drop_idle(work: &Work<'_>, nodes: &mut SessionNodes, keep: NodeId) -> Result<(), NeedsKeys> {
    require(work, nodes.0.iter().map(|(node, _)| Key::Node(*node)))?;
    let mut holding = Vec::with_capacity(nodes.0.len());
    for (node, incarnation) in &nodes.0 {
        let sessions = work.find::<NodeSessions>(Key::Node(*node))?;
        if *node == keep || sessions.is_some_and(|sessions| sessions.sessions.live > 0) {
            holding.push((*node, *incarnation));
        }
    }
    nodes.0 = holding;
    Ok(())
}

/// Takes a lease off its session's list.
pub(crate) fn remove_lease(
    work: &mut Work<'_>,
    session: SessionId,
    place: u64,
) -> Result<(), NeedsKeys> {
    let key = Key::Session(session);
    let mut state = work
        .take::<SessionState>(key)?
        .expect("a session exists as long as it holds a lease");
    bag::remove(
        work,
        BagId::SessionLeases(session),
        &mut state.leases,
        place,
    )?;
    work.meta.totals.leases -= 1;
    if state.leases.live > 0 {
        work.put(key, state);
        return Ok(());
    }
    work.delete(key);
    let node_key = Key::Node(session.node);
    let mut node = work
        .take::<NodeSessions>(node_key)?
        .expect("a node exists as long as it has sessions");
    bag::remove(
        work,
        BagId::NodeSessions(session.node),
        &mut node.sessions,
        state.place,
    )?;
    work.put(node_key, node);
    Ok(())
}

/// A lease that the session holds.
pub(crate) fn first_lease(
    work: &Work<'_>,
    session: SessionId,
) -> Result<Option<(ObjectId, LeaseId)>, NeedsKeys> {
    let Some(state) = work.find::<SessionState>(Key::Session(session))? else {
        return Ok(None);
    };
    let items = bag::items_from(work, BagId::SessionLeases(session), &state.leases, 0)?;
    Ok(items.iter().find_map(|(_, item)| match item {
        BagItem::Lease(object, lease) => Some((*object, *lease)),
        _ => None,
    }))
}

/// A session of a life of the node below this one, from a place in the node's list on, and its place.
pub(crate) fn next_old_session(
    work: &Work<'_>,
    node: NodeId,
    incarnation: u64,
    from: u64,
) -> Result<Option<(u64, SessionId)>, NeedsKeys> {
    let Some(state) = work.find::<NodeSessions>(Key::Node(node))? else {
        return Ok(None);
    };
    let mut at = from;
    loop {
        let items = bag::items_from(work, BagId::NodeSessions(node), &state.sessions, at)?;
        let Some((last, _)) = items.last() else {
            return Ok(None);
        };
        at = last + 1;
        for (place, item) in items {
            if let BagItem::Session(life, number) = item
                && life < incarnation
            {
                let session = SessionId {
                    node,
                    incarnation: life,
                    number,
                };
                return Ok(Some((place, session)));
            }
        }
    }
}

/// Ends sessions: one lease a step; what a bounded number of steps leaves over goes to the grave.
pub(crate) fn end(
    work: &mut Work<'_>,
    mut which: Grave,
    steps: &mut u64,
) -> Result<bool, NeedsKeys> {
    *steps += 1;
    if *steps > END_STEPS_AT_ONCE {
        graveyard::bury(work, which);
        return Ok(true);
    }
    graveyard::step(work, &mut which)
}

/// Releases one lease of a session; returns whether it holds no more.
pub(crate) fn end_step(work: &mut Work<'_>, session: SessionId) -> Result<bool, NeedsKeys> {
    end_first_lease(work, session, &Settlement::Release)
}

/// Withdraws one lease of a session; returns whether it holds no more.
pub(crate) fn withdraw_step(work: &mut Work<'_>, session: SessionId) -> Result<bool, NeedsKeys> {
    end_first_lease(work, session, &Settlement::Withdraw { pause_ms: 0 })
}

fn end_first_lease(
    work: &mut Work<'_>,
    session: SessionId,
    how: &Settlement,
) -> Result<bool, NeedsKeys> {
    let Some((object, lease)) = first_lease(work, session)? else {
        return Ok(true);
    };
    crate::queue::end_lease(work, object, lease, how)?;
    Ok(false)
}

/// Ends what earlier lives of a node held.
pub(crate) fn end_old(
    work: &mut Work<'_>,
    node: NodeId,
    incarnation: u64,
    steps: &mut u64,
) -> Result<bool, NeedsKeys> {
    let state = work.edit_or_default::<NodeSessions>(Key::Node(node))?;
    state.incarnation_first = state.incarnation_first.max(incarnation);
    end(work, Grave::OldSessions(node, incarnation), steps)
}

/// Clears what a node has left that never comes back: all its lives are over.
pub(crate) fn forget_node(
    work: &mut Work<'_>,
    node: NodeId,
    steps: &mut u64,
) -> Result<bool, NeedsKeys> {
    if !end_old(work, node, LIFE_NEVER, steps)? {
        return Ok(false);
    }
    origin::forget(work, node);
    Ok(true)
}

/// Releases one lease of an earlier life of a node; returns whether none is left.
pub(crate) fn end_old_step(
    work: &mut Work<'_>,
    node: NodeId,
    incarnation: u64,
) -> Result<bool, NeedsKeys> {
    let Some((_, session)) = next_old_session(work, node, incarnation, 0)? else {
        return Ok(true);
    };
    end_step(work, session)?;
    Ok(false)
}
