//! One request under way on a node: who asked, who may reply, and until when.

use std::sync::Arc;
use std::time::Instant;

use flotilla_model::ids::NodeId;

use crate::api::request::CallId;
use crate::hub::interest::Key;
use crate::hub::request::absence::Absence;
use crate::hub::request::asker::Inbox;
use crate::hub::request::letter::Letter;

/// Who has to do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A requester of this node.
    Asker(u64),
    /// A responder of this node that has the request.
    Member(u64),
    /// A node that has it.
    Node(NodeId),
}

/// Who waits for the reply.
#[derive(Clone)]
pub(crate) enum Asker {
    Here {
        inbox: Arc<Inbox>,
        tag: u64,
    },
    /// Another node, which calls it by its own number.
    There {
        node: NodeId,
        call: CallId,
    },
}

/// Somebody who may reply.
pub(crate) struct With {
    pub party: Party,
    /// The groups in whose name it has the request.
    pub groups: Vec<Arc<Key>>,
}

/// A request under way.
pub(crate) struct Call {
    pub asker: Asker,
    pub letter: Letter,
    pub deadline: Instant,
    /// It is over as soon as nobody can reply any more.
    pub fails_early: bool,
    /// How often it was given to somebody else of a group.
    pub rerouted: u32,
    pub(super) with: Vec<With>,
    /// Members of groups that did not take it, so that it is not given to them again.
    pub(super) passed: Vec<Party>,
    pub(super) absence: Absence,
}

impl Call {
    pub fn new(asker: Asker, letter: Letter, deadline: Instant, fails_early: bool) -> Self {
        Self {
            asker,
            letter,
            deadline,
            fails_early,
            rerouted: 0,
            with: Vec::new(),
            passed: Vec::new(),
            absence: Absence::Nobody,
        }
    }

    /// Who has it.
    pub fn parties(&self) -> impl Iterator<Item = Party> {
        self.with.iter().map(|with| with.party)
    }

    /// The requester of this node.
    pub(super) fn asker_here(&self) -> Option<Party> {
        match &self.asker {
            Asker::Here { inbox, .. } => Some(Party::Asker(inbox.id())),
            Asker::There { .. } => None,
        }
    }

    /// The node that asked, and its number of it.
    pub(super) fn asker_there(&self) -> Option<(NodeId, CallId)> {
        match &self.asker {
            Asker::Here { .. } => None,
            Asker::There { node, call } => Some((*node, *call)),
        }
    }
}
