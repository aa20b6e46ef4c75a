//! Request: asks whoever serves a name, and tells what became of it, in any order.
//!
//! ```text
//!   client -> inbound -> inbox -> sending -> requester
//!                  refused |                     | replies
//!                          +----> answers <------+
//!                                    +-> frame -> client
//! ```
//!
//! The stream is polled by its connection's task: nothing is spawned, and a batch of requests or of replies
//! is one call to the broker. Dropping the stream gives up what is not answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{
    Answer, BrokerError, REQUEST_TIMEOUT_MAX, Reply, Request, Requester, WhenNobody,
};
use flotilla_model::name::{Kind, Name};
use futures::future::{BoxFuture, Fuse, FusedFuture};
use futures::{FutureExt, Stream};
use tonic::Status;

use super::context::{Bounds, Context, ServerEnd};
use super::convert::{name, namespace, record_out};
use super::error::RequestError;
use super::frame::{message_bytes, take_frame};
use super::protocol::reply_batch::Item as ReplyItem;
use super::protocol::reply_batch::item::Outcome;
use super::protocol::request_batch::Item;
use super::protocol::{ReplyBatch, RequestBatch};
use super::publish::bytes_of;
use crate::access::Action;
use crate::transport::inbound::{Ended, Inbound};

/// What an error weighs in a frame, about.
const ERROR_BYTES: usize = 128;

/// Serves one client that asks.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<ReplyBatch, Status>> + Send
where
    S: Stream<Item = Result<RequestBatch, Status>> + Send + Unpin,
{
    let asking = Asking {
        server_end: context.server_end(),
        inbound: Inbound::new(requests),
        inbox: VecDeque::new(),
        last_name: None,
        sending: Fuse::terminated(),
        requester: Arc::new(context.broker.open_requester()),
        under_way: UnderWay::default(),
        answers: VecDeque::new(),
        context,
    };
    futures::stream::try_unfold(asking, |mut asking| async move {
        Ok(asking.next().await?.map(|replies| (replies, asking)))
    })
}

struct Asking<S> {
    context: Arc<Context>,
    server_end: ServerEnd,
    inbound: Inbound<S>,
    /// Read, and not begun.
    inbox: VecDeque<Item>,
    /// Clients mostly ask for the same again.
    last_name: Option<Arc<Name>>,
    /// Waits for room in the broker.
    sending: Fuse<BoxFuture<'static, ()>>,
    requester: Arc<Requester>,
    under_way: UnderWay,
    /// Not given out.
    answers: VecDeque<Told>,
}

/// What became of a request, under its client's number.
struct Told {
    request: u64,
    outcome: Result<Reply, RequestError>,
}

impl<S> Asking<S>
where
    S: Stream<Item = Result<RequestBatch, Status>> + Send + Unpin,
{
    /// `None` when the client has ended its side and has all answers.
    async fn next(&mut self) -> Result<Option<ReplyBatch>, Status> {
        loop {
            if self.sending.is_terminated() {
                self.begin();
            }
            if !self.answers.is_empty() {
                let frame = take_frame(&mut self.answers, Told::bytes);
                let replies = frame.map(Told::wire).collect();
                return Ok(Some(ReplyBatch { replies }));
            }
            match self.inbound.ended() {
                Some(Ended::Failed(status)) => return Err(status.clone()),
                Some(Ended::HalfClosed) if self.inbox.is_empty() && self.under_way.is_empty() => {
                    return Ok(None);
                }
                _ => {}
            }
            let reads_on = self.inbox.is_empty() && self.inbound.ended().is_none();
            let together = self.context.bounds.together;
            tokio::select! {
                biased;
                error = &mut self.server_end => return Err(error.status()),
                () = &mut self.sending, if !self.sending.is_terminated() => {}
                answers = self.requester.next(), if !self.under_way.is_empty() => {
                    let answers = answers.map_err(|error| RequestError::from(error).status())?;
                    self.answers.extend(self.under_way.end(answers));
                }
                batches = self.inbound.next_batch(together), if reads_on => {
                    let requests = batches.into_iter().flat_map(|batch| batch.requests);
                    self.inbox.extend(requests);
                }
            }
        }
    }

    /// Hands what was read to the broker, as far as there is room.
    fn begin(&mut self) {
        let mut batch = Vec::new();
        // What is refused waits for the client too.
        while self.answers.len() < self.context.bounds.in_flight_max
            && self.under_way.has_room(&self.context.bounds)
            && let Some(item) = self.inbox.pop_front()
        {
            let number = item.request;
            let bytes = bytes_of(item.record.as_slice());
            match self.request(item) {
                Ok(request) => batch.push((self.under_way.begin(number, bytes), request)),
                Err(error) => self.answers.push_back(Told {
                    request: number,
                    outcome: Err(error),
                }),
            }
        }
        if !batch.is_empty() {
            let requester = Arc::clone(&self.requester);
            let sending = async move { requester.send(batch).await };
            self.sending = sending.boxed().fuse();
        }
    }

    fn request(&mut self, item: Item) -> Result<Request, RequestError> {
        let timeout = Duration::from_millis(item.timeout_ms);
        if timeout.is_zero() || timeout > REQUEST_TIMEOUT_MAX {
            return Err(RequestError::Value {
                field: "timeout_ms",
                given: item.timeout_ms,
                allowed: "1 to 3600000 are allowed",
            });
        }
        Ok(Request {
            name: self.name(&item)?,
            message: Arc::new(self.context.message(item.record.unwrap_or_default())),
            extra: bytes::Bytes::new(),
            timeout,
            when_nobody: WhenNobody::Fail,
        })
    }

    fn name(&mut self, item: &Item) -> Result<Arc<Name>, RequestError> {
        // Where there are rules, they are asked each time: they may change.
        let is_last = |last: &&Arc<Name>| {
            self.context.caller.is_unrestricted()
                && last.text() == item.name
                && last.namespace() == namespace(&item.namespace)
        };
        if let Some(last) = self.last_name.as_ref().filter(is_last) {
            return Ok(Arc::clone(last));
        }
        let name = name(&item.namespace, Kind::Request, &item.name)?;
        let name = Arc::new(self.context.allowed(Action::Write, name)?);
        self.last_name = Some(Arc::clone(&name));
        Ok(name)
    }
}

impl Told {
    fn bytes(&self) -> usize {
        match &self.outcome {
            Ok(reply) => message_bytes(&reply.message),
            Err(RequestError::Refused(text)) => ERROR_BYTES + text.len(),
            Err(_) => ERROR_BYTES,
        }
    }

    fn wire(self) -> ReplyItem {
        let outcome = match self.outcome {
            Ok(reply) => Outcome::Record(record_out(&reply.message)),
            Err(error) => Outcome::Error(error.wire()),
        };
        ReplyItem {
            request: self.request,
            outcome: Some(outcome),
        }
    }
}

/// A responder that says no has replied, for the broker; here it is an error like others.
fn reply_or_error(outcome: Result<Reply, BrokerError>) -> Result<Reply, RequestError> {
    let reply = outcome?;
    if reply.executed {
        Ok(reply)
    } else {
        Err(RequestError::Refused(reply.error.as_str().to_owned()))
    }
}

/// The requests of a stream that are not answered.
#[derive(Default)]
struct UnderWay {
    /// The client's number, and the bytes, of each. Clients may give a number twice.
    requests: HashMap<u64, (u64, usize)>,
    last_tag: u64,
    bytes: usize,
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether one more may be begun; one always may.
    fn has_room(&self, bounds: &Bounds) -> bool {
        self.requests.len() < bounds.in_flight_max && self.bytes < bounds.in_flight_bytes_max
    }

    /// The tag by which the broker is to answer it.
    fn begin(&mut self, number: u64, bytes: usize) -> u64 {
        self.last_tag += 1;
        self.requests.insert(self.last_tag, (number, bytes));
        self.bytes += bytes;
        self.last_tag
    }

    /// What the client is to hear of answers.
    fn end(&mut self, answers: Vec<Answer>) -> impl Iterator<Item = Told> {
        answers.into_iter().filter_map(|answer| {
            let (request, bytes) = self.requests.remove(&answer.tag)?;
            self.bytes -= bytes;
            Some(Told {
                request,
                outcome: reply_or_error(answer.outcome),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::protocol::error::Code;
    use crate::transport::inbound::BatchBounds;

    fn answer(tag: u64, outcome: Result<Reply, BrokerError>) -> Answer {
        Answer { tag, outcome }
    }

    fn bounds() -> Bounds {
        Bounds {
            request_bytes_max: 0,
            together: BatchBounds {
                count_max: 1,
                bytes_max: 1,
            },
            in_flight_max: 3,
            in_flight_bytes_max: 100,
            batch_records_max: 0,
            items_max: 0,
            leases_max: 0,
            lease_bytes_max: 0,
        }
    }

    #[test]
    fn no_more_is_under_way_than_the_bounds_allow_and_one_request_always_may_be() {
        let mut under_way = UnderWay::default();
        assert!(under_way.has_room(&bounds()));
        let large = under_way.begin(1, 1_000);
        assert!(!under_way.has_room(&bounds()), "the bytes are reached");
        let unknown = || Err(BrokerError::OutcomeUnknown);
        assert_eq!(under_way.end(vec![answer(large, unknown())]).count(), 1);
        let tags: Vec<u64> = (0..3).map(|_| under_way.begin(7, 1)).collect();
        assert!(!under_way.has_room(&bounds()), "the count is reached");
        let answers = tags.into_iter().map(|tag| answer(tag, unknown()));
        let told: Vec<u64> = under_way
            .end(answers.collect())
            .map(|told| told.request)
            .collect();
        assert_eq!(told, [7, 7, 7]);
        assert!(under_way.is_empty() && under_way.has_room(&bounds()));
        assert_eq!(under_way.bytes, 0);
    }

    #[test]
    fn a_refusal_is_an_error_with_the_responders_text_and_a_text_beside_a_reply_is_not() {
        let refusal = Reply::refusal("not today".to_owned().into());
        let error = reply_or_error(Ok(refusal)).unwrap_err().wire();
        assert_eq!(error.code(), Code::Refused);
        assert_eq!(error.text, "not today");
        let reply = Reply {
            executed: true,
            error: "None".to_owned().into(),
            ..Reply::default()
        };
        assert_eq!(reply_or_error(Ok(reply.clone())), Ok(reply));
    }
}
