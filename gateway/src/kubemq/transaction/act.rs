//! What the transaction of a stream asks of the broker.

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{BrokerError, Fill, Receive, Session};
use flotilla_model::command::{Selection, Settlement};
use tokio::time::Instant;
use tracing::warn;

use super::state::{Act, Acted, Got, Held, Origin, Outcome, Wanted};
use crate::kubemq::context::Context;
use crate::kubemq::convert::queue_out;
use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::QueueMessage;
use crate::kubemq::queue_send::send_all;

/// A message stays the client's for at least this long while another one is sent in its place: longer
/// than sending takes before it is given up.
const REPLACING_MIN: Duration = Duration::from_secs(60);

/// Waits for a message.
pub async fn receive(
    context: Arc<Context>,
    session: Arc<Session>,
    origin: Origin,
    wanted: Wanted,
) -> Got {
    let received = session.receive(Receive {
        queue: wanted.queue.clone(),
        messages_max: 1,
        bytes_max: context.config.response_bytes_max as u64,
        wait: wanted.wait,
        fill: Fill::Full,
        visibility: Some(wanted.visibility),
        // The clients of transactions wait for the answer, or end the stream.
        answer_within: None,
    });
    let received = match received.await {
        Ok(received) => received,
        Err(error) => {
            return Got {
                origin,
                result: Err(error.into()),
            };
        }
    };
    let until = Instant::now() + wanted.visibility;
    let held = received.messages.first().map(|message| Held {
        queue: wanted.queue.clone(),
        lease: received.lease,
        sequence: message.sequence,
        until,
    });
    let count_max = context.config.limits.receive_count_max;
    let mut messages = queue_out(&wanted.queue, received.messages, count_max).await;
    Got {
        origin,
        result: Ok(held.zip(messages.pop())),
    }
}

/// Does something with the message.
pub async fn act(
    context: Arc<Context>,
    session: Arc<Session>,
    origin: Origin,
    held: Held,
    act: Act,
) -> Acted {
    let hand = Hand {
        context,
        session,
        held,
    };
    let result = match act {
        Act::Ack => {
            hand.settle(Settlement::Ack, Some(RequestError::AckFailed))
                .await
        }
        Act::Reject => hand.settle(Settlement::Return, None).await,
        Act::Resend(to) => {
            let how = Settlement::Move { to };
            hand.settle(how, Some(RequestError::SendFailed)).await
        }
        Act::Replace(message) => hand.replace(*message).await,
        Act::Extend(visibility) => hand
            .extend(visibility, None)
            .await
            .map(|()| Outcome::Extended(Instant::now() + visibility)),
        Act::Expire => {
            // The shard's own timer does it as well, sooner or later: the client is not to hear of it before
            // it is so.
            let _ = hand.settle(Settlement::Return, None).await;
            Ok(Outcome::Expired)
        }
    };
    Acted {
        origin,
        held: hand.held,
        result,
    }
}

/// A message in a client's hand.
struct Hand {
    context: Arc<Context>,
    session: Arc<Session>,
    held: Held,
}

impl Hand {
    /// Ends the hold on it.
    async fn settle(
        &self,
        how: Settlement,
        text: Option<RequestError>,
    ) -> Result<Outcome, RequestError> {
        let Held { queue, lease, .. } = &self.held;
        match self
            .session
            .settle(queue, *lease, Selection::All, how)
            .await
        {
            Ok(_) => Ok(Outcome::Settled),
            Err(error) => Err(self.failure(error, text)),
        }
    }

    async fn extend(
        &self,
        visibility: Duration,
        text: Option<RequestError>,
    ) -> Result<(), RequestError> {
        let Held { queue, lease, .. } = &self.held;
        let extended = self.session.extend(queue, *lease, visibility).await;
        extended.map_err(|error| self.failure(error, text))
    }

    /// Sends another message, then removes this one. Only a crash between the two leaves both.
    async fn replace(&self, message: QueueMessage) -> Result<Outcome, RequestError> {
        let left = self.held.until.saturating_duration_since(Instant::now());
        // It must not be somebody else's already, nor become that before it is removed.
        let visibility = left.max(REPLACING_MIN);
        self.extend(visibility, Some(RequestError::SendFailed))
            .await?;
        let mut sent = send_all(&self.context, vec![message]).await;
        let refused = sent.first().is_some_and(|one| one.is_refused);
        match sent.pop().and_then(|one| one.failure) {
            None => {}
            Some(RequestError::ShuttingDown) => return Err(RequestError::ShuttingDown),
            Some(failure) if refused => return Err(failure),
            Some(failure) => {
                let queue = &self.held.queue;
                warn!(%queue, %failure, "a modified message could not be sent");
                return Err(RequestError::SendFailed);
            }
        }
        self.settle(Settlement::Ack, Some(RequestError::AckFailed))
            .await
    }

    /// What the client hears. A text of the protocol has no room for the reason, which is logged.
    fn failure(&self, error: BrokerError, text: Option<RequestError>) -> RequestError {
        let Held { queue, lease, .. } = &self.held;
        if text.is_some() && !matches!(error, BrokerError::StaleLease) {
            warn!(%queue, %lease, %error, "a transaction of one message failed");
        }
        told(error, text)
    }
}

/// The protocol's text for a failure, unless the message is not there any more or nothing is served.
fn told(error: BrokerError, text: Option<RequestError>) -> RequestError {
    match error {
        BrokerError::StaleLease => RequestError::VisibilityOver,
        BrokerError::ShuttingDown | BrokerError::NotFound { .. } => error.into(),
        other => text.unwrap_or_else(|| other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_text_of_what_was_asked_or_its_reason() {
        let failed = || BrokerError::Unavailable {
            reason: "no leader".to_owned(),
        };
        for (error, text, expected) in [
            (
                failed(),
                Some(RequestError::AckFailed),
                "Error 123: cannot ack the current message",
            ),
            (
                failed(),
                Some(RequestError::SendFailed),
                "Error 130: error during send message to queue",
            ),
            (failed(), None, "unavailable: no leader"),
            (
                BrokerError::StaleLease,
                Some(RequestError::AckFailed),
                "Error 129: current visibility timer expired",
            ),
            (
                BrokerError::ShuttingDown,
                Some(RequestError::SendFailed),
                "Error 409: server is in shutdown mode",
            ),
        ] {
            assert_eq!(told(error, text).to_string(), expected);
        }
    }
}
