//! Subscribe: one topic, replayed and then live, within the window that the client makes room in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{CursorMode, Start, SubscribeTopic, TopicDelivery, TopicSubscription};
use flotilla_model::ids::Offset;
use flotilla_model::name::Kind as NameKind;
use futures::Stream;
use tonic::Status;

use super::context::{Context, FRAME_BYTES_MAX, ServerEnd};
use super::convert::{name, record_out, unix_ms, wall_time};
use super::error::RequestError;
use super::protocol::subscribe_request::open;
use super::protocol::subscribe_request::{Kind, Open};
use super::protocol::subscribe_response::{Kind as Told, Opened};
use super::protocol::{Deliveries, Delivery, SubscribeRequest, SubscribeResponse};
use crate::transport::inbound::{BatchBounds, Ended, Inbound};

/// Longest name of a cursor that the broker keeps.
const CURSOR_BYTES_MAX: usize = 1_024;
const WINDOW_RECORDS_DEFAULT: u32 = 1_024;
const WINDOW_RECORDS_MAX: u32 = 65_536;
const WINDOW_BYTES_DEFAULT: u64 = 8 << 20;
const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// Serves one subscription.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<SubscribeResponse, Status>> + Send
where
    S: Stream<Item = Result<SubscribeRequest, Status>> + Send + Unpin,
{
    let reader = Reader {
        server_end: context.server_end(),
        context,
        inbound: Inbound::new(requests),
        subscription: None,
        arrived: VecDeque::new(),
    };
    futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|told| {
            let response = SubscribeResponse { kind: Some(told) };
            (response, reader)
        }))
    })
}

struct Reader<S> {
    context: Arc<Context>,
    server_end: ServerEnd,
    inbound: Inbound<S>,
    /// Once the first frame was served.
    subscription: Option<TopicSubscription>,
    /// Taken from the subscription, and not given out.
    arrived: VecDeque<TopicDelivery>,
}

impl<S> Reader<S>
where
    S: Stream<Item = Result<SubscribeRequest, Status>> + Send + Unpin,
{
    /// `None` when the client has ended its side.
    async fn next(&mut self) -> Result<Option<Told>, Status> {
        loop {
            if !self.arrived.is_empty() {
                return Ok(Some(Told::Deliveries(self.frame())));
            }
            match self.inbound.ended() {
                Some(Ended::HalfClosed) => return Ok(None),
                Some(Ended::Failed(status)) => return Err(status.clone()),
                None => {}
            }
            let Some(subscription) = &mut self.subscription else {
                match self.open().await? {
                    Some(subscription) => self.subscription = Some(subscription),
                    None => continue,
                }
                return Ok(Some(Told::Opened(Opened {})));
            };
            let together = self.context.bounds.together;
            tokio::select! {
                biased;
                error = &mut self.server_end => return Err(error.status()),
                // Before more is taken: it makes room.
                requests = self.inbound.next_batch(together) => {
                    for request in requests {
                        subscription.done(progress(request).map_err(|error| error.status())?);
                    }
                }
                arrived = subscription.next() => {
                    let arrived = arrived.map_err(|error| RequestError::from(error).status())?;
                    self.arrived = arrived.into();
                }
            }
        }
    }

    /// Serves the first frame; `None` if there is none.
    async fn open(&mut self) -> Result<Option<TopicSubscription>, Status> {
        let first = BatchBounds {
            count_max: 1,
            bytes_max: usize::MAX,
        };
        let opening = async {
            let Some(request) = self.inbound.next_batch(first).await.pop() else {
                return Ok(None);
            };
            let Some(Kind::Open(open)) = request.kind else {
                return Err(RequestError::NotOpened);
            };
            let subscription = self.context.broker.subscribe_topic(wanted(open)?).await?;
            Ok(Some(subscription))
        };
        let opened = tokio::select! {
            error = &mut self.server_end => Err(error),
            opened = opening => opened,
        };
        opened.map_err(|error| error.status())
    }

    /// As much of what arrived as a frame should hold, at least one message.
    fn frame(&mut self) -> Deliveries {
        let mut deliveries = Vec::with_capacity(self.arrived.len().min(1_024));
        let mut bytes = 0;
        while bytes < FRAME_BYTES_MAX
            && let Some(arrived) = self.arrived.pop_front()
        {
            bytes += arrived.message.encoded_len();
            deliveries.push(Delivery {
                offset: arrived.offset.0,
                time_unix_ms: unix_ms(arrived.at),
                record: Some(record_out(&arrived.message)),
            });
        }
        Deliveries { deliveries }
    }
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
