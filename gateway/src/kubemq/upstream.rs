//! QueuesUpstream: a stream of sends, each request answered once and in order.
//!
//! All requests that one read of the socket brought are handed to the broker together, so that they share
//! one write to disk; their results are told apart again by how many messages each had.

use super::context::Context;
use super::error::RequestError;
use super::exchange::{Exchange, Worked};
use super::protocol::{QueueMessage, QueuesUpstreamRequest, QueuesUpstreamResponse};
use super::queue_send::{Sent, batch_length, send_all};
use super::validate;

/// A stream of sends.
pub struct UpstreamExchange;

impl Exchange for UpstreamExchange {
    type Request = QueuesUpstreamRequest;
    type Answer = QueuesUpstreamResponse;

    async fn work_on(
        context: &Context,
        requests: Vec<QueuesUpstreamRequest>,
    ) -> Worked<QueuesUpstreamResponse> {
        let (messages, pending) = join(requests, |messages| batch_length(context, messages));
        let sent = if messages.is_empty() {
            Vec::new()
        } else {
            send_all(context, messages).await
        };
        let ending = sent
            .iter()
            .any(|one| one.failure == Some(RequestError::ShuttingDown));
        Worked {
            answers: part(pending, sent).collect(),
            ending,
        }
    }
}

/// A request whose messages are under way together with others'.
struct Pending {
    request_id: String,
    /// How many messages, or why there are none.
    messages: Result<usize, RequestError>,
}

/// The messages of all requests, in order, and what is needed to tell their results apart.
fn join(
    requests: Vec<QueuesUpstreamRequest>,
    check_length: impl Fn(usize) -> Result<(), RequestError>,
) -> (Vec<QueueMessage>, Vec<Pending>) {
    let mut messages = Vec::new();
    let mut pending = Vec::with_capacity(requests.len());
    for mut request in requests {
        let count = request.messages.len();
        let checked = validate::id("request id", &request.request_id).and_then(|()| {
            if count == 0 {
                return Err(RequestError::UpstreamEmpty);
            }
            check_length(count)
        });
        if checked.is_ok() {
            messages.append(&mut request.messages);
        }
        pending.push(Pending {
            request_id: validate::echoed(&request.request_id).to_owned(),
            messages: checked.map(|()| count),
        });
    }
    (messages, pending)
}

/// One response per request, each with its own messages' results.
fn part(pending: Vec<Pending>, sent: Vec<Sent>) -> impl Iterator<Item = QueuesUpstreamResponse> {
    let mut results = sent.into_iter().map(|one| one.result);
    pending
        .into_iter()
        .map(move |request| match request.messages {
            Ok(count) => QueuesUpstreamResponse {
                ref_request_id: request.request_id,
                results: results.by_ref().take(count).collect(),
                is_error: false,
                error: String::new(),
            },
            Err(refused) => QueuesUpstreamResponse {
                ref_request_id: request.request_id,
                results: Vec::new(),
                is_error: true,
                error: refused.to_string(),
            },
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kubemq::protocol::SendQueueMessageResult;

    proptest! {
        /// However requests are batched, each gets the results of its own messages, in order.
        #[test]
        fn every_request_gets_its_own_results(counts in proptest::collection::vec(0usize..5, 0..20)) {
            let requests: Vec<QueuesUpstreamRequest> = counts
                .iter()
                .enumerate()
                .map(|(request, count)| QueuesUpstreamRequest {
                    request_id: request.to_string(),
                    messages: (0..*count)
                        .map(|message| QueueMessage {
                            message_id: format!("{request}/{message}"),
                            ..QueueMessage::default()
                        })
                        .collect(),
                })
                .collect();
            let too_long = |count| if count > 3 {
                Err(RequestError::BatchTooLong { messages: count, allowed: 3 })
            } else {
                Ok(())
            };
            let (messages, pending) = join(requests, too_long);
            let sent = messages
                .into_iter()
                .map(|message| Sent {
                    result: SendQueueMessageResult {
                        message_id: message.message_id,
                        ..SendQueueMessageResult::default()
                    },
                    is_refused: false,
                    failure: None,
                })
                .collect();
            let responses: Vec<QueuesUpstreamResponse> = part(pending, sent).collect();
            prop_assert_eq!(responses.len(), counts.len());
            for (request, (response, count)) in responses.iter().zip(counts).enumerate() {
                prop_assert_eq!(&response.ref_request_id, &request.to_string());
                prop_assert_eq!(response.is_error, count == 0 || count > 3);
                let ids: Vec<&str> = response.results.iter().map(|one| one.message_id.as_str()).collect();
                let expected: Vec<String> = if response.is_error {
                    Vec::new()
                } else {
                    (0..count).map(|message| format!("{request}/{message}")).collect()
                };
                prop_assert_eq!(ids, expected);
            }
        }
    }

    #[test]
    fn a_request_without_messages_is_answered_with_the_protocols_text() {
        let (_, pending) = join(vec![QueuesUpstreamRequest::default()], |_| Ok(()));
        let response = part(pending, Vec::new()).next().unwrap();
        assert!(response.is_error);
        assert_eq!(response.error, "no messages to send");
    }
}
