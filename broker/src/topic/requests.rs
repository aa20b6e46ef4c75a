//! What a topic's actor can be asked: subscriptions, and what operators do with groups.

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use bincode::{Decode, Encode};
use flotilla_model::command::Command;
use flotilla_model::ids::{ObjectId, Offset};
use flotilla_model::outcome::Outcome;
use tokio::sync::oneshot;

use crate::api::error::BrokerError;
use crate::api::topic::{CursorMode, Start, SubscribeTopic};
use crate::convert::unexpected;
use crate::fault::Fault;
use crate::ingress::Work;
use crate::topic::actor::TopicActor;
use crate::topic::buffer::{Buffer, Resume};
use crate::topic::open::{self, Opened};
use crate::topic::reader::{Durable, Group, Member, Reader};

/// Adds a reader; it is live when this is answered.
#[derive(Clone, Message)]
#[rtype(result = "Result<Attached, Fault>")]
pub(crate) struct Subscribe {
    pub request: SubscribeTopic,
    /// What is fed.
    pub buffer: Arc<Buffer>,
    /// What the reader brings from another leader.
    pub resume: Option<Resume>,
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Attached {
    /// The topic's incarnation, if it exists.
    pub object: Option<ObjectId>,
    /// The first offset that may come, unless a group shares its place.
    pub next: Offset,
    /// The cursor asked for is another reader's: this one's progress is not recorded.
    pub is_apart: bool,
}

/// Who is reading through durable cursors now.
#[derive(Message)]
#[rtype(result = "Vec<LiveCursor>")]
pub(crate) struct LiveCursors;

/// A durable cursor in use.
#[derive(Clone, Debug)]
pub(crate) struct LiveCursor {
    pub name: String,
    pub members: u64,
    pub outstanding: u64,
}

/// Moves a durable cursor, with whoever reads through it.
#[derive(Message)]
#[rtype(result = "Result<(), Fault>")]
pub(crate) struct MoveCursor {
    pub cursor: String,
    pub to: Start,
}

/// Forgets a durable cursor that is not in use.
#[derive(Message)]
#[rtype(result = "Result<(), Fault>")]
pub(crate) struct ForgetCursor(pub String);

/// Ends all subscriptions; the sender is answered when the last positions are stored.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop(pub oneshot::Sender<()>);

impl TopicActor {
    /// Makes a reader or member of an opened place.
    fn attach(
        &mut self,
        subscribe: Subscribe,
        opened: Opened,
        deletions: u64,
    ) -> Result<Attached, Fault> {
        let Subscribe {
            request,
            buffer,
            resume,
        } = subscribe;
        if self.deletions != deletions {
            return Err(Fault::Failed(BrokerError::Unavailable {
                reason: "the topic was deleted while it was being subscribed to".to_owned(),
            }));
        }
        if !self.serves() {
            return Err(Fault::Moved);
        }
        self.learn(opened.object, opened.end);
        // What was read of a topic that is no more says nothing about its successor.
        let is_other = |resume: &Resume| resume.object.is_some() && resume.object != opened.object;
        let starts_over = resume.as_ref().is_some_and(is_other);
        let resume = resume.filter(|_| !starts_over);
        let next = match &resume {
            _ if starts_over => Offset::FIRST,
            Some(resume) => resume.next,
            None => opened.start,
        };
        if starts_over {
            buffer.reset(next);
        }
        let mut attached = Attached {
            object: opened.object,
            next,
            is_apart: false,
        };
        let wake = Arc::clone(&self.wake);
        let feed = |attached: &Attached| {
            buffer.attach(Arc::clone(&wake), attached.object, attached.next, false);
        };
        let cursor = match &request.cursor {
            CursorMode::Group { name } | CursorMode::Exclusive { name } => {
                self.departed.get(name).cloned().or(opened.cursor)
            }
            CursorMode::None => None,
        };
        match (request.cursor, cursor) {
            (CursorMode::Group { name }, Some(position)) => {
                if self.exclusive(&name).is_some() {
                    return Err(in_use(&name, "one reader alone").into());
                }
                feed(&attached);
                let id = self.next_member();
                let gathers = resume.is_some();
                let group = self.groups.entry(name.clone()).or_insert_with(|| {
                    let mut group = Group::new(name, position);
                    group.gathers_since = gathers.then(Instant::now);
                    group
                });
                group.members.push(Member {
                    id,
                    buffer: Arc::clone(&buffer),
                });
                if let Some(resume) = resume {
                    group.claim(id, &resume, opened.end);
                }
            }
            (CursorMode::Exclusive { name }, Some((low_water, settled))) => {
                if self.groups.contains_key(&name) {
                    return Err(in_use(&name, "a group").into());
                }
                attached.is_apart = self.exclusive(&name).is_some();
                if !attached.is_apart {
                    attached.next = match &resume {
                        Some(resume) => resume.next.max(low_water),
                        None => low_water,
                    };
                }
                feed(&attached);
                let durable =
                    (!attached.is_apart).then(|| Durable::new(name, (low_water, settled)));
                self.add_reader(buffer, attached.next, resume, durable);
            }
            (_, _) => {
                feed(&attached);
                self.add_reader(buffer, next, resume, None);
            }
        }
        Ok(attached)
    }

    fn add_reader(
        &mut self,
        buffer: Arc<Buffer>,
        next: Offset,
        resume: Option<Resume>,
        durable: Option<Durable>,
    ) {
        let held = resume.and_then(|resume| resume.held.first().map(|(offset, _)| *offset));
        self.readers.push(Reader {
            buffer,
            next,
            done: held.map_or(next, |held| held.min(next)),
            durable,
        });
    }

    fn exclusive(&mut self, cursor: &str) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| {
            let durable = reader.durable.as_ref();
            durable.is_some_and(|durable| durable.cursor == cursor)
        })
    }

    /// Whoever reads through the cursor goes on at its new place.
    fn moved(&mut self, cursor: &str, to: Offset) {
        self.parting.remove(cursor);
        self.departed.remove(cursor);
        let position = (to, Vec::new());
        if let Some(group) = self.groups.get_mut(cursor) {
            group.move_to(to);
            group.durable.told = Some(position);
        } else if let Some(reader) = self.exclusive(cursor) {
            reader.move_to(to);
            if let Some(durable) = &mut reader.durable {
                durable.told = Some(position);
            }
        }
    }
}

fn in_use(cursor: &str, by: &str) -> BrokerError {
    BrokerError::InvalidRequest {
        what: format!("cursor {cursor:?} is in use by {by}"),
    }
}

impl Handler<Subscribe> for TopicActor {
    type Result = ResponseActFuture<Self, Result<Attached, Fault>>;

    fn handle(&mut self, message: Subscribe, context: &mut Context<Self>) -> Self::Result {
        // The positions of readers that are gone are on their way before the cursor is opened again.
        self.tend(context);
        let cursor = match &message.request.cursor {
            CursorMode::None => None,
            CursorMode::Exclusive { name } | CursorMode::Group { name } => Some(name.clone()),
        };
        let refused = if self.core.is_closing() {
            Some(BrokerError::ShuttingDown.into())
        } else if !self.serves() {
            Some(Fault::Moved)
        } else if self.subscriptions() + self.busy >= self.core.config.waiters_per_name_max {
            Some(Fault::Failed(BrokerError::Busy {
                what: format!("{} has too many subscriptions", self.name),
            }))
        } else if cursor
            .as_ref()
            .is_some_and(|name| self.parting.contains_key(name))
        {
            Some(Fault::Failed(BrokerError::Busy {
                what: "the cursor's position is not stored yet".to_owned(),
            }))
        } else {
            None
        };
        if let Some(fault) = refused {
            return Box::pin(actix::fut::ready(Err(fault)));
        }
        self.busy += 1;
        let (core, topic, deletions) = (Arc::clone(&self.core), self.name.clone(), self.deletions);
        let start = message.request.start;
        let opening = async move { open::open(&core, &topic, start, cursor.as_deref()).await };
        Box::pin(opening.into_actor(self).map(move |opened, actor, context| {
            actor.busy -= 1;
            // A closing broker has told its subscriptions to end already.
            let open = actor.core.check_open().map_err(Fault::from);
            let attached = open
                .and(opened)
                .and_then(|opened| actor.attach(message, opened, deletions));
            actor.tend(context);
            attached
        }))
    }
}

impl Handler<LiveCursors> for TopicActor {
    type Result = MessageResult<LiveCursors>;

    fn handle(&mut self, _: LiveCursors, context: &mut Context<Self>) -> Self::Result {
        self.look_at_readers(context);
        let groups = self.groups.iter().map(|(name, group)| LiveCursor {
            name: name.clone(),
            members: group.members.len() as u64,
            outstanding: group.ledger.outstanding(),
        });
        let readers = self.readers.iter().filter_map(|reader| {
            Some(LiveCursor {
                name: reader.durable.as_ref()?.cursor.clone(),
                members: 1,
                outstanding: reader.buffer.unfinished() as u64,
            })
        });
        MessageResult(groups.chain(readers).collect())
    }
}

impl Handler<MoveCursor> for TopicActor {
    type Result = ResponseActFuture<Self, Result<(), Fault>>;

    fn handle(&mut self, message: MoveCursor, context: &mut Context<Self>) -> Self::Result {
        self.look_at_readers(context);
        self.busy += 1;
        let (core, topic) = (Arc::clone(&self.core), self.name.clone());
        let MoveCursor { cursor, to } = message;
        let name = cursor.clone();
        let moving = async move {
            let place = open::resolve(&core, &topic, to).await?;
            // A cursor can be moved within its topic only.
            let to = place.start.min(place.end);
            let (_, ingress) = core.shard_for(&topic);
            let command = Command::ResetCursor { topic, cursor, to };
            let reply = ingress.run(vec![Work::control(command)]).await?;
            match reply.outcome(0)?.0 {
                Outcome::Done => Ok(to),
                other => Err(Fault::Failed(unexpected(other))),
            }
        };
        Box::pin(moving.into_actor(self).map(move |moved, actor, context| {
            actor.busy -= 1;
            let moved = moved.map(|to| actor.moved(&name, to));
            actor.tend(context);
            moved
        }))
    }
}

impl Handler<ForgetCursor> for TopicActor {
    type Result = ResponseActFuture<Self, Result<(), Fault>>;

    fn handle(&mut self, message: ForgetCursor, context: &mut Context<Self>) -> Self::Result {
        self.look_at_readers(context);
        let cursor = message.0;
        if self.groups.contains_key(&cursor) || self.exclusive(&cursor).is_some() {
            return Box::pin(actix::fut::ready(Err(
                in_use(&cursor, "live members").into()
            )));
        }
        self.busy += 1;
        self.parting.remove(&cursor);
        self.departed.remove(&cursor);
        let (core, topic) = (Arc::clone(&self.core), self.name.clone());
        let forgetting = async move {
            let (_, ingress) = core.shard_for(&topic);
            let command = Command::DeleteCursor { topic, cursor };
            let reply = ingress.run(vec![Work::control(command)]).await?;
            match reply.outcome(0)?.0 {
                Outcome::Done => Ok(()),
                other => Err(Fault::Failed(unexpected(other))),
            }
        };
        Box::pin(
            forgetting
                .into_actor(self)
                .map(|forgotten, actor, context| {
                    actor.busy -= 1;
                    actor.tend(context);
                    forgotten
                }),
        )
    }
}

impl Handler<Stop> for TopicActor {
    type Result = ();

    fn handle(&mut self, message: Stop, context: &mut Context<Self>) {
        self.look_at_readers(context);
        self.end_all(&BrokerError::ShuttingDown);
        self.flush(context);
        self.stopping.push(message.0);
        self.stop_when_told();
    }
}
