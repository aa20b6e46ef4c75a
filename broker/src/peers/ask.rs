//! Short questions to the broker of another node.

use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_cluster::{Lane, ServiceId};
use flotilla_model::ids::{LeaseId, NodeId, ObjectId, SessionId, ShardId};
use flotilla_model::name::{Kind, Name};

use crate::api::topic::Start;
use crate::core::Core;
use crate::fault::Fault;
use crate::name_limits;
use crate::objects;
use crate::peers::conversation::Broken;
use crate::peers::error::WireFault;
use crate::peers::wire;

/// An answer that takes longer is given up: a leader may be asked again.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A question.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum Question {
    Topic(Name),
    Queue(Name),
    Groups(Name),
    ResetGroup {
        topic: Name,
        group: String,
        to: Start,
    },
    DeleteGroup {
        topic: Name,
        group: String,
    },
    Held {
        queue: Name,
        lease: LeaseId,
        session: SessionId,
    },
    Objects {
        shard: ShardId,
        kind: Kind,
        after: Option<ObjectId>,
    },
    SignalNames {
        after: Option<Name>,
        limit: u32,
    },
    RequestNames {
        kind: Kind,
        after: Option<Name>,
        limit: u32,
    },
    QueueSpan(Name),
    IntroduceName(Name),
    ForgetName(Name),
    Unclaimed(Name),
    Count {
        shard: ShardId,
        kind: Kind,
    },
}

impl Core {
    /// Asks the broker of another node.
    pub async fn ask<T: Decode<()>>(&self, node: NodeId, question: &Question) -> Result<T, Fault> {
        let answer: Result<T, WireFault> = self.ask_raw(node, question).await?;
        Ok(answer?)
    }

    async fn ask_raw<T: Decode<()>>(&self, node: NodeId, question: &Question) -> Result<T, Broken> {
        let request = wire::frame(question, [], 0)?;
        let peers = self.cluster.peers();
        let service = ServiceId::BROKER;
        let answer = peers
            .call(node, Lane::Bulk, service, request, ANSWER_MAX)
            .await?;
        Ok(wire::unframe(answer)?.0)
    }
}

/// Answers another node; an error is the text of a refusal.
pub(crate) async fn answer(core: &Arc<Core>, request: Bytes) -> Result<Bytes, String> {
    let (question, _) = wire::unframe(request).map_err(|error| error.to_string())?;
    let framed = match question {
        Question::Topic(name) => frame(objects::topic(core, checked(&name)?).await),
        Question::Queue(name) => frame(objects::queue(core, checked(&name)?).await),
        Question::QueueSpan(name) => frame(objects::queue_span(core, checked(&name)?).await),
        Question::Groups(topic) => frame(objects::groups(core, checked(&topic)?).await),
        Question::ResetGroup { topic, group, to } => {
            frame(objects::reset_group(core, checked(&topic)?, &group, to).await)
        }
        Question::DeleteGroup { topic, group } => {
            frame(objects::delete_group(core, checked(&topic)?, &group).await)
        }
        Question::Held {
            queue,
            lease,
            session,
        } => frame(objects::held(core, checked(&queue)?, lease, session).await),
        Question::Objects { shard, kind, after } => {
            frame(objects::part(core, shard, kind, after).await)
        }
        Question::SignalNames { after, limit } => frame(
            core.used_names(Kind::Signal, after, limit as usize)
                .await
                .map_err(Fault::from),
        ),
        Question::RequestNames { kind, after, limit } => frame(
            core.used_names(kind, after, limit as usize)
                .await
                .map_err(Fault::from),
        ),
        Question::IntroduceName(name) => {
            let name = checked(&name)?.clone();
            frame(core.introduce_name(name).await.map_err(Fault::from))
        }
        Question::ForgetName(name) => frame(core.forget_name(&name).await.map_err(Fault::from)),
        Question::Unclaimed(name) => frame(objects::unclaimed(core, checked(&name)?).await),
        Question::Count { shard, kind } => frame(name_limits::count(core, shard, kind).await),
    };
    framed.map_err(|error| error.to_string())
}

fn frame<T: Encode>(answer: Result<T, Fault>) -> Result<Bytes, wire::WireError> {
    wire::frame(&answer.map_err(WireFault::from), [], 0)
}

/// A name from elsewhere has not been checked.
fn checked(name: &Name) -> Result<&Name, String> {
    name.check().map_err(|error| error.to_string())?;
    Ok(name)
}
