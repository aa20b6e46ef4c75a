//! What a node answers to those who look for a cluster, whether it is in one or not.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::board::Board;
use super::message::{Answer, Candidate, Claim, Greeting, Joined, Question, Terms, decode, encode};
use super::plan::{Plan, PlannedNode};
use super::promise::promise;
use crate::identity::{PassportOffice, Standing};

/// Takes nodes into the cluster that this node is a member of.
pub(crate) trait Registrar: Send + Sync + 'static {
    fn join(&self, candidate: Candidate) -> BoxFuture<'static, Result<Joined, NotTaken>>;

    /// What speaks against a node for good.
    fn objection(&self, node: &PlannedNode) -> Option<String>;
}

/// Why a candidate was not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Asking again changes nothing.
    Refused(String),
    /// It may be possible later, or elsewhere.
    NotYet(String),
}

/// Answers of this node. Clones are the same service.
#[derive(Clone)]
pub(crate) struct FormingService {
    inner: Arc<Inner>,
}

struct Inner {
    office: PassportOffice,
    me: PlannedNode,
    terms: Terms,
    board: Board,
    registrar: OnceLock<Arc<dyn Registrar>>,
}

impl FormingService {
    pub fn new(office: PassportOffice, me: PlannedNode, terms: Terms, board: Board) -> Self {
        Self {
            inner: Arc::new(Inner {
                office,
                me,
                terms,
                board,
                registrar: OnceLock::new(),
            }),
        }
    }

    /// From now on nodes can join by this one.
    pub fn serve_joins(&self, registrar: Arc<dyn Registrar>) {
        // A node starts once: there is no second one to set.
        let _ = self.inner.registrar.set(registrar);
    }

    /// Who this node is now.
    pub fn greeting(&self) -> Greeting {
        let inner = &self.inner;
        greeting(&inner.office, &inner.me, inner.terms, &inner.board)
    }

    /// Answers an encoded question.
    pub async fn answer(self, question: Bytes) -> Result<Bytes, String> {
        let answer = match decode(&question)? {
            Question::Greet(theirs) => {
                let inner = &self.inner;
                if theirs.node.disk != inner.me.disk {
                    inner.board.heard(&theirs);
                }
                let registrar = inner.registrar.get();
                match registrar.and_then(|registrar| registrar.objection(&theirs.node)) {
                    Some(objection) => Answer::Refused(objection),
                    None => Answer::Greeting(self.greeting()),
                }
            }
            Question::Prepare(plan) => self.prepare(plan).await,
            Question::Join(candidate) => self.join(candidate).await,
        };
        encode(&answer)
    }

    async fn prepare(&self, plan: Plan) -> Answer {
        let inner = &self.inner;
        if let Err(complaint) = plan.check() {
            return Answer::Refused(complaint);
        }
        if plan.node_of(inner.me.disk).is_none() {
            return Answer::Refused("this node's disk is not the planned one".to_owned());
        }
        let cluster = plan.cluster;
        match promise(&inner.office, plan).await {
            Ok(true) => Answer::Prepared,
            Ok(false) => Answer::Refused(match inner.office.passport().standing {
                Standing::Planned(other) => {
                    format!("it is promised to the plan for cluster {}", other.cluster)
                }
                Standing::Member { cluster, .. } => format!("it is a member of cluster {cluster}"),
                Standing::Fresh => format!("it could not be promised to cluster {cluster}"),
            }),
            Err(error) => Answer::NotYet(crate::error::chain(&error)),
        }
    }

    async fn join(&self, candidate: Candidate) -> Answer {
        let Some(registrar) = self.inner.registrar.get() else {
            return Answer::NotYet("this node is still starting".to_owned());
        };
        match registrar.join(candidate).await {
            Ok(joined) => Answer::Joined(joined),
            Err(NotTaken::Refused(reason)) => Answer::Refused(reason),
            Err(NotTaken::NotYet(reason)) => Answer::NotYet(reason),
        }
    }
}

/// Who this node is now.
pub(super) fn greeting(
    office: &PassportOffice,
    me: &PlannedNode,
    terms: Terms,
    board: &Board,
) -> Greeting {
    let claim = match office.passport().standing {
        Standing::Fresh => Claim::Fresh,
        Standing::Planned(plan) => Claim::Planned {
            cluster: plan.cluster,
        },
        Standing::Member { cluster, node, .. } => Claim::Member { cluster, node },
    };
    Greeting {
        node: me.clone(),
        terms,
        claim,
        sees: board.seen(),
    }
}
