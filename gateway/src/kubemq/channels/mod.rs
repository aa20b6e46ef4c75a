//! Channel management: queries to one channel that the server itself answers.
//!
//! What fails is told in the answer, as the clients of this protocol expect it; only what is wrong with a
//! query as such fails its call.

mod describe;
mod pick;
mod search;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_broker::BrokerError;
use flotilla_model::name::{Kind, Name};

use self::describe::Channel;
use self::pick::Picker;
use self::search::Search;
use super::context::Context;
use super::convert::now_ns;
use super::error::{RequestError, shown};
use super::protocol::{Request, Response};
use super::validate;
use crate::access::Action;

/// Where these queries are sent.
pub const CHANNEL: &str = "kubemq.cluster.internal.requests";

/// Names that are asked for at a time.
const PAGE: u32 = 1_000;

/// The pattern that a channel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelType {
    Events,
    EventsStore,
    Commands,
    Queries,
    Queues,
}

impl ChannelType {
    fn of(text: &str) -> Result<Self, RequestError> {
        Ok(match text {
            "events" => Self::Events,
            "events_store" => Self::EventsStore,
            "commands" => Self::Commands,
            "queries" => Self::Queries,
            "queues" => Self::Queues,
            _ => {
                return Err(RequestError::Unknown {
                    what: "channel type",
                    given: shown(text),
                    allowed: "events, events_store, commands, queries or queues",
                });
            }
        })
    }

    fn text(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::EventsStore => "events_store",
            Self::Commands => "commands",
            Self::Queries => "queries",
            Self::Queues => "queues",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Events => Kind::Signal,
            Self::EventsStore => Kind::Topic,
            Self::Commands => Kind::Command,
            Self::Queries => Kind::Request,
            Self::Queues => Kind::Queue,
        }
    }
}

/// Answers a query whose id has been filled in.
pub async fn answer(context: &Context, request: Request) -> Result<Response, RequestError> {
    let time = Duration::from_millis(u64::try_from(request.timeout).unwrap_or(0));
    let working = tokio::time::timeout(time, work(context, &request));
    let done = context
        .until_ending(working)
        .await?
        .map_err(|_| RequestError::NoResponse)?;
    let (body, error) = match done {
        Ok(body) => (body, String::new()),
        // Clients take these two from the status only.
        Err(error @ (RequestError::ShuttingDown | RequestError::AccessDenied)) => {
            return Err(error);
        }
        Err(error) => (Bytes::new(), error.to_string()),
    };
    Ok(Response {
        client_id: context.config.host.clone(),
        request_id: request.request_id,
        timestamp: now_ns(),
        executed: error.is_empty(),
        body,
        error,
        ..Response::default()
    })
}

async fn work(context: &Context, request: &Request) -> Result<Bytes, RequestError> {
    let operation = request.metadata.as_str();
    let kind = ChannelType::of(tag(&request.tags, "channel_type"));
    let channel = tag(&request.tags, "channel");
    let target = |kind: ChannelType| {
        let name = validate::name(kind.kind(), channel)?;
        context.allowed(&request.client_id, Action::Write, name)
    };
    match operation {
        "create-channel" => {
            context.broker.create(target(kind?)?).await?;
            Ok(Bytes::new())
        }
        "delete-channel" => {
            delete(context, target(kind?)?).await?;
            Ok(Bytes::new())
        }
        "list-channels" => {
            let search = Search::new(tag(&request.tags, "channel_search"))?;
            list(context, &request.client_id, kind?, search).await
        }
        _ => Err(RequestError::Unknown {
            what: "operation",
            given: shown(operation),
            allowed: "create-channel, delete-channel or list-channels",
        }),
    }
}

async fn delete(context: &Context, name: Name) -> Result<(), RequestError> {
    let deleted = if name.kind().is_stored() {
        context.broker.delete(name).await
    } else {
        context.broker.forget(&name).await
    };
    deleted.map_err(|error| match error {
        BrokerError::NotFound { .. } => RequestError::ChannelUnknown,
        other => RequestError::from(other),
    })
}

/// The channels that are searched for and that the client has any use for, by name, as JSON.
async fn list(
    context: &Context,
    client: &str,
    kind: ChannelType,
    search: Search,
) -> Result<Bytes, RequestError> {
    // Each of them may hold what fills a response, and asks all shards. Who waits too long is told so.
    let turn = Arc::clone(&context.channel_lists).acquire_owned().await;
    let turn = turn.map_err(|_| RequestError::ShuttingDown)?;
    let picker = Picker::new(search, context.caller.clone(), client.to_owned(), turn);
    let now_ms = now_ns() / 1_000_000;
    let mut list = describe::List::new(context.config.response_bytes_max);
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = context.broker.list(kind.kind(), after, PAGE).await?;
        found.extend(picker.pick(page.items).await);
        // No item takes less than its fixed parts: more need not be gathered to know that they are too many.
        list.check_count(found.len())?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    for item in &found {
        list.add(&Channel::of(kind.text(), item, now_ms))?;
    }
    Ok(list.finish())
}

fn tag<'a>(tags: &'a HashMap<String, String>, key: &str) -> &'a str {
    tags.get(key).map_or("", String::as_str)
}
