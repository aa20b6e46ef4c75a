//! Serve: requests for whoever answers them, and the replies.

use std::collections::vec_deque::Drain;
use std::sync::Arc;

use flotilla_broker::{
    BrokerError, CallId, Reply, RequestDelivery, RequestSubscription, SubscribeRequests,
};
use flotilla_model::message::Text;
use flotilla_model::name::Kind;

use super::context::{Context, Sight};
use super::convert::{group, namespace, record_out};
use super::error::RequestError;
use super::feed::Feed;
use super::frame::message_bytes;
use super::protocol::serve_request::reply::Outcome;
use super::protocol::serve_response::{Call, Failed, Opened};
use super::protocol::{ServeRequest, ServeResponse};

/// Requests that a responder has at a time if it does not say how many it wants.
const CALLS_DEFAULT: u32 = 1_024;
/// What a failed reply weighs, about.
const FAILED_BYTES: usize = 128;

/// One who answers requests.
pub struct Responder {
    context: Arc<Context>,
    subscription: RequestSubscription,
    sight: Sight,
}

/// What a responder gets.
pub enum Arrived {
    Call(RequestDelivery),
    /// A reply did not reach whoever asked.
    Failed {
        call: u64,
        error: RequestError,
    },
}

impl Feed for Responder {
    type Request = ServeRequest;
    type Response = ServeResponse;
    type Arrived = Arrived;

    const ENDS_WITH_CLIENT: bool = true;

    async fn open(context: Arc<Context>, first: ServeRequest) -> Result<Self, RequestError> {
        let open = first.open.ok_or(RequestError::NotOpened)?;
        if !first.replies.is_empty() {
            return Err(RequestError::RepliesTooEarly);
        }
        let namespace = namespace(&open.namespace);
        let sight = context.allowed_to_follow(Kind::Request, namespace, &open.pattern)?;
        let wanted = SubscribeRequests {
            kind: Kind::Request,
            namespace: namespace.to_owned(),
            pattern: open.pattern,
            group: group(open.group)?,
            calls_max: match open.calls_max {
                0 => CALLS_DEFAULT,
                calls => calls,
            },
        };
        let subscription = context.broker.serve_requests(wanted).await?;
        Ok(Self {
            context,
            subscription,
            sight,
        })
    }

    fn opened() -> ServeResponse {
        ServeResponse {
            opened: Some(Opened {}),
            ..ServeResponse::default()
        }
    }

    fn said(&mut self, requests: Vec<ServeRequest>) -> Result<Vec<Arrived>, RequestError> {
        let mut failed = Vec::new();
        let mut replies = Vec::new();
        let mut ending = Ok(());
        for request in requests {
            if request.open.is_some() {
                // What was said before is passed on first.
                ending = Err(RequestError::OpenedTwice);
                break;
            }
            for reply in request.replies {
                let call = reply.call;
                match reply.outcome {
                    Some(Outcome::Record(record)) => {
                        replies.push((CallId(call), Reply::of(self.context.message(record))));
                    }
                    Some(Outcome::Refused(text)) => {
                        replies.push((CallId(call), Reply::refusal(Text::from(text))));
                    }
                    None => failed.push(Arrived::Failed {
                        call,
                        error: RequestError::ReplyEmpty,
                    }),
                }
            }
        }
        failed.extend(self.unseen(&mut replies));
        let calls: Vec<u64> = replies.iter().map(|(call, _)| call.0).collect();
        let results = self.subscription.reply(replies);
        for (call, result) in calls.into_iter().zip(results) {
            if let Err(error) = result {
                let error = error.into();
                failed.push(Arrived::Failed { call, error });
            }
        }
        ending.map(|()| failed)
    }

    async fn next(&mut self) -> Result<Vec<Arrived>, BrokerError> {
        let mut deliveries = self.subscription.next().await?;
        let hidden = deliveries.extract_if(.., |one| !self.sight.has(&one.name));
        let hidden = hidden.map(|one| one.call).collect();
        self.subscription.decline(hidden);
        Ok(deliveries.into_iter().map(Arrived::Call).collect())
    }

    fn bytes(arrived: &Arrived) -> usize {
        match arrived {
            Arrived::Call(delivery) => {
                message_bytes(&delivery.message) + delivery.name.text().len()
            }
            Arrived::Failed { .. } => FAILED_BYTES,
        }
    }

    fn frame(arrived: Drain<'_, Arrived>) -> ServeResponse {
        let mut frame = ServeResponse::default();
        for one in arrived {
            match one {
                Arrived::Call(delivery) => frame.calls.push(call_out(&delivery)),
                Arrived::Failed { call, error } => frame.failed.push(Failed {
                    call,
                    error: Some(error.wire()),
                }),
            }
        }
        frame
    }
}

impl Responder {
    /// Takes out the replies to what this client is not to see: it can guess the number of a request that is not
    /// taken back yet.
    fn unseen(&self, replies: &mut Vec<(CallId, Reply)>) -> Vec<Arrived> {
        if !self.sight.is_limited() {
            return Vec::new();
        }
        let calls: Vec<CallId> = replies.iter().map(|(call, _)| *call).collect();
        let mut names = self.subscription.names_of(&calls).into_iter();
        let is_unseen = |_: &mut (CallId, Reply)| {
            let name = names.next().flatten();
            name.is_some_and(|name| !self.sight.has(&name))
        };
        let unseen = replies.extract_if(.., is_unseen);
        unseen
            .map(|(call, _)| Arrived::Failed {
                call: call.0,
                error: RequestError::from(BrokerError::Conflict {
                    what: format!("request {call} is over, or was given to somebody else"),
                }),
            })
            .collect()
    }
}

fn call_out(delivery: &RequestDelivery) -> Call {
    let timeout_ms = u64::try_from(delivery.timeout_left.as_millis()).unwrap_or(u64::MAX);
    Call {
        call: delivery.call.0,
        name: delivery.name.text().to_owned(),
        // A part of a millisecond is one: less than that would be no time at all.
        timeout_ms: timeout_ms.max(1),
        record: Some(record_out(&delivery.message)),
    }
}
