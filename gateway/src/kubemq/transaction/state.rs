//! The transaction of one stream: which message its client holds, and what a request may do to it now.
//! Pure bookkeeping.
//!
//! ```text
//!   empty --receive--> waiting --came--> held <--> busy --settled--> over
//!     ^                   |   |           |   failed,                 ^
//!     +-----failed--------+   |           |   extended                |
//!                             |           +--its time is up, busy---->+
//!                             +--nothing in time--------------------->+
//! ```
//!
//! While something is done with the message, later requests wait: whether they find it is not known yet.

use std::time::Duration;

use flotilla_broker::BrokerError;
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Name;
use tokio::time::Instant;

use crate::kubemq::config::KubemqLimits;
use crate::kubemq::convert::id_or_new;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::{
    QueueMessage, StreamQueueMessagesRequest, StreamQueueMessagesResponse,
    StreamRequestType as Type,
};
use crate::kubemq::{routing, validate};

/// The transaction of a stream.
pub struct Transaction {
    place: Place,
    /// The request that came last.
    latest: Origin,
}

enum Place {
    Empty,
    Waiting,
    Held(Held),
    Busy,
    Over,
}

/// A message that the client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub queue: Name,
    pub lease: LeaseId,
    pub sequence: Sequence,
    /// When it goes back.
    pub until: Instant,
}

/// What an answer says about the request it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    request_id: String,
    kind: i32,
}

/// What a request leads to.
#[derive(Debug)]
pub enum Next {
    /// That it is refused.
    Tell(Box<StreamQueueMessagesResponse>),
    Receive(Origin, Wanted),
    Act(Origin, Held, Act),
}

/// A checked receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub queue: Name,
    pub wait: Duration,
    pub visibility: Duration,
}

/// What is done with the message.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    Ack,
    Reject,
    Extend(Duration),
    Resend(Name),
    /// Another message is sent in its place.
    Replace(Box<QueueMessage>),
    /// Its time is up.
    Expire,
}

/// What a receive came to.
pub struct Got {
    pub origin: Origin,
    /// `None`: nothing in time.
    pub result: Result<Option<(Held, QueueMessage)>, RequestError>,
}

/// What became of an [`Act`].
pub struct Acted {
    pub origin: Origin,
    pub held: Held,
    pub result: Result<Outcome, RequestError>,
}

/// How an [`Act`] went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message is gone from the client's hand.
    Settled,
    /// It is the client's until then.
    Extended(Instant),
    /// It is gone because its time was up.
    Expired,
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            place: Place::Empty,
            latest: Origin::default(),
        }
    }
}

impl Transaction {
    /// Whether requests must wait.
    pub fn is_busy(&self) -> bool {
        matches!(self.place, Place::Busy)
    }

    /// Whether the stream ends with what was told last.
    pub fn is_over(&self) -> bool {
        matches!(self.place, Place::Over)
    }

    /// When the time of the message is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.held().map(|held| held.until)
    }

    /// What a request leads to. Not to be asked while the transaction is busy or over.
    pub fn request(&mut self, request: StreamQueueMessagesRequest, limits: &KubemqLimits) -> Next {
        let origin = Origin::of(&request);
        self.latest = origin.clone();
        let decided = match Type::try_from(request.stream_request_type_data) {
            Ok(Type::ReceiveMessage) => match self.wanted(&request, limits) {
                Ok(wanted) => {
                    self.place = Place::Waiting;
                    return Next::Receive(origin, wanted);
                }
                Err(refused) => Err(refused),
            },
            Ok(kind) => self.act(kind, request, limits),
            Err(_) => Err(RequestError::StreamType),
        };
        match decided {
            Ok((held, act)) => {
                self.place = Place::Busy;
                Next::Act(origin, held, act)
            }
            Err(refused) => Next::Tell(Box::new(origin.error(&refused))),
        }
    }

    /// The answer to a request that is refused, whatever the transaction is at.
    pub fn refuse(
        &mut self,
        request: &StreamQueueMessagesRequest,
        error: &RequestError,
    ) -> StreamQueueMessagesResponse {
        let origin = Origin::of(request);
        self.latest = origin.clone();
        origin.error(error)
    }

    /// Begins to give back a message whose time is up.
    pub fn expire(&mut self) -> Option<(Origin, Held)> {
        let held = self.held()?.clone();
        self.place = Place::Busy;
        Some((self.latest.clone(), held))
    }

    /// The answer to a receive.
    pub fn received(&mut self, got: Got) -> StreamQueueMessagesResponse {
        match got.result {
            Ok(Some((held, message))) => {
                self.place = Place::Held(held);
                StreamQueueMessagesResponse {
                    message: Some(message),
                    ..got.origin.done()
                }
            }
            Ok(None) => {
                self.place = Place::Over;
                got.origin.error(&RequestError::NothingInTime)
            }
            Err(failure) => {
                self.place = Place::Empty;
                got.origin.error(&failure)
            }
        }
    }

    /// The answer to what was done with the message.
    pub fn acted(&mut self, acted: Acted) -> StreamQueueMessagesResponse {
        let Acted {
            origin,
            held,
            result,
        } = acted;
        match result {
            Ok(Outcome::Settled) => {
                self.place = Place::Over;
                origin.done()
            }
            Ok(Outcome::Extended(until)) => {
                self.place = Place::Held(Held { until, ..held });
                origin.done()
            }
            Ok(Outcome::Expired) => {
                self.place = Place::Over;
                origin.error(&RequestError::VisibilityOver)
            }
            Err(failure) => {
                self.place = if is_gone(&failure) {
                    Place::Over
                } else {
                    Place::Held(held)
                };
                origin.error(&failure)
            }
        }
    }

    fn held(&self) -> Option<&Held> {
        match &self.place {
            Place::Held(held) => Some(held),
            _ => None,
        }
    }

    fn wanted(
        &self,
        request: &StreamQueueMessagesRequest,
        limits: &KubemqLimits,
    ) -> Result<Wanted, RequestError> {
        let wanted = Wanted {
            queue: validate::transaction_receive(request, limits)?,
            wait: limits.wait(request.wait_time_seconds),
            visibility: limits.visibility(request.visibility_seconds),
        };
        match self.place {
            Place::Empty => Ok(wanted),
            _ => Err(RequestError::ReceivesAlready),
        }
    }

    fn act(
        &self,
        kind: Type,
        request: StreamQueueMessagesRequest,
        limits: &KubemqLimits,
    ) -> Result<(Held, Act), RequestError> {
        validate::id("request id", &request.request_id)?;
        let held = |otherwise| self.held().cloned().ok_or(otherwise);
        let named = |otherwise| {
            let held = held(otherwise)?;
            if request.ref_sequence != held.sequence.0 {
                return Err(RequestError::AckSequence);
            }
            Ok(held)
        };
        Ok(match kind {
            Type::AckMessage => (named(RequestError::NothingToAck)?, Act::Ack),
            Type::RejectMessage => (named(RequestError::NothingToReject)?, Act::Reject),
            Type::ModifyVisibility => {
                let held = held(RequestError::NothingToAck)?;
                validate::visibility(request.visibility_seconds, limits)?;
                let visibility = limits.visibility(request.visibility_seconds);
                (held, Act::Extend(visibility))
            }
            Type::ResendMessage => {
                let held = held(RequestError::NothingToSend)?;
                (held, Act::Resend(validate::queue_name(&request.channel)?))
            }
            Type::SendModifiedMessage => {
                let message = request.modified_message.ok_or(RequestError::NoMessage)?;
                let held = held(RequestError::NothingToAck)?;
                // Where a list leads to is known when it is sent.
                if !routing::is_list(&message.channel) {
                    validate::queue_message(&message, limits)?;
                }
                (held, Act::Replace(Box::new(message)))
            }
            _ => return Err(RequestError::StreamType),
        })
    }
}

/// Whether a failure says that the client has the message no more.
fn is_gone(failure: &RequestError) -> bool {
    matches!(
        failure,
        RequestError::VisibilityOver | RequestError::Broker(BrokerError::NotFound { .. })
    )
}

impl Origin {
    fn of(request: &StreamQueueMessagesRequest) -> Self {
        Self {
            request_id: id_or_new(validate::echoed(&request.request_id).to_owned()),
            kind: request.stream_request_type_data,
        }
    }

    fn done(self) -> StreamQueueMessagesResponse {
        StreamQueueMessagesResponse {
            request_id: self.request_id,
            stream_request_type_data: self.kind,
            ..StreamQueueMessagesResponse::default()
        }
    }

    fn error(self, error: &RequestError) -> StreamQueueMessagesResponse {
        StreamQueueMessagesResponse {
            is_error: true,
            error: error.to_string(),
            ..self.done()
        }
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;
