//! Subscribe: one topic, replayed and then live, within the window that the client makes room in.

use std::collections::vec_deque::Drain;
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{
    BrokerError, CursorMode, Start, SubscribeTopic, TopicDelivery, TopicSubscription,
};
use flotilla_model::ids::Offset;
use flotilla_model::name::Kind as NameKind;

use super::context::Context;
use super::convert::{name, record_out, unix_ms, wall_time};
use super::error::RequestError;
use super::feed::Feed;
use super::frame::message_bytes;
use super::protocol::subscribe_request::open;
use super::protocol::subscribe_request::{Kind, Open};
use super::protocol::subscribe_response::{Kind as Told, Opened};
use super::protocol::{Deliveries, Delivery, SubscribeRequest, SubscribeResponse};
use crate::access::Action;

/// Longest name of a cursor that the broker keeps.
const CURSOR_BYTES_MAX: usize = 1_024;
const WINDOW_RECORDS_DEFAULT: u32 = 1_024;
const WINDOW_RECORDS_MAX: u32 = 65_536;
const WINDOW_BYTES_DEFAULT: u64 = 8 << 20;
const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// One who reads a topic.
pub struct Reader {
    subscription: TopicSubscription,
}

impl Feed for Reader {
    type Request = SubscribeRequest;
    type Response = SubscribeResponse;
    type Arrived = TopicDelivery;

    const ENDS_WITH_CLIENT: bool = true;

    async fn open(context: Arc<Context>, first: SubscribeRequest) -> Result<Self, RequestError> {
        let Some(Kind::Open(open)) = first.kind else {
            return Err(RequestError::NotOpened);
        };
        let mut wanted = wanted(open)?;
        wanted.topic = context.allowed(Action::Read, wanted.topic)?;
        if let CursorMode::Exclusive { name } | CursorMode::Group { name } = &wanted.cursor {
            context.allowed_cursor(name)?;
        }
        let subscription = context.broker.subscribe_topic(wanted).await?;
        Ok(Self { subscription })
    }

    fn opened() -> SubscribeResponse {
        response(Told::Opened(Opened {}))
    }

    fn said(
        &mut self,
        requests: Vec<SubscribeRequest>,
    ) -> Result<Vec<TopicDelivery>, RequestError> {
        for request in requests {
            self.subscription.done(progress(request)?);
        }
        Ok(Vec::new())
    }

    async fn next(&mut self) -> Result<Vec<TopicDelivery>, BrokerError> {
        self.subscription.next().await
    }

    fn bytes(arrived: &TopicDelivery) -> usize {
        message_bytes(&arrived.message)
    }

    fn frame(arrived: Drain<'_, TopicDelivery>) -> SubscribeResponse {
        let deliveries = arrived.map(|one| Delivery {
            offset: one.offset.0,
            time_unix_ms: unix_ms(one.at),
            record: Some(record_out(&one.message)),
        });
        let deliveries = deliveries.collect();
        response(Told::Deliveries(Deliveries { deliveries }))
    }
}

fn response(told: Told) -> SubscribeResponse {
    SubscribeResponse { kind: Some(told) }
}

/// What a later frame says to be done.
fn progress(request: SubscribeRequest) -> Result<Offset, RequestError> {
    match request.kind {
        Some(Kind::DoneUpto(upto)) => Ok(Offset(upto)),
        Some(Kind::Open(_)) => Err(RequestError::OpenedTwice),
        None => Err(RequestError::EmptyFrame),
    }
}

/// What the first frame asks for.
fn wanted(open: Open) -> Result<SubscribeTopic, RequestError> {
    Ok(SubscribeTopic {
        topic: name(&open.namespace, NameKind::Topic, &open.topic)?,
        start: open.start.map_or(Ok(Start::NewOnly), start)?,
        cursor: open.cursor.map_or(Ok(CursorMode::None), cursor)?,
        buffer_messages: match open.window_records {
            0 => WINDOW_RECORDS_DEFAULT,
            records @ 1..=WINDOW_RECORDS_MAX => records,
            records => {
                return Err(RequestError::Value {
                    field: "window_records",
                    given: records.into(),
                    allowed: "at most 65536 are allowed",
                });
            }
        },
        buffer_bytes: match open.window_bytes {
            0 => WINDOW_BYTES_DEFAULT,
            bytes @ 1..=WINDOW_BYTES_MAX => bytes,
            bytes => {
                return Err(RequestError::Value {
                    field: "window_bytes",
                    given: bytes,
                    allowed: "at most 67108864 are allowed",
                });
            }
        },
    })
}

fn start(start: open::Start) -> Result<Start, RequestError> {
    let flag = |field, is_set, start| {
        if is_set {
            Ok(start)
        } else {
            Err(RequestError::Value {
                field,
                given: 0,
                allowed: "it must be true if it is given",
            })
        }
    };
    match start {
        open::Start::First(is_set) => flag("first", is_set, Start::First),
        open::Start::Last(is_set) => flag("last", is_set, Start::Last),
        open::Start::Offset(offset) => Ok(Start::Offset(Offset(offset))),
        open::Start::TimeUnixMs(time) => Ok(Start::Wall(wall_time(time))),
        open::Start::AgoMs(ms) => Ok(Start::Ago(Duration::from_millis(ms))),
    }
}

fn cursor(cursor: open::Cursor) -> Result<CursorMode, RequestError> {
    let (name, is_group) = match cursor {
        open::Cursor::Exclusive(name) => (name, false),
        open::Cursor::Group(name) => (name, true),
    };
    if !(1..=CURSOR_BYTES_MAX).contains(&name.len()) {
        return Err(RequestError::Length {
            what: "cursor",
            bytes: name.len(),
            allowed: CURSOR_BYTES_MAX,
        });
    }
    Ok(if is_group {
        CursorMode::Group { name }
    } else {
        CursorMode::Exclusive { name }
    })
}
