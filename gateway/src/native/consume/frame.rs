//! What a consumer is told, and how much of it is one frame.

use std::collections::VecDeque;

use flotilla_broker::{QueueDelivery, Received, Settled as SettledBy};
use flotilla_model::ids::LeaseId;
use flotilla_model::name::Name;

use crate::native::context::FRAME_BYTES_MAX;
use crate::native::convert::{record_out, unix_ms};
use crate::native::error::RequestError;
use crate::native::protocol::consume_response::{Extended, Failed, Leased, Settled};
use crate::native::protocol::{ConsumeResponse, QueueMessage};

/// What became of one thing that was asked for.
pub enum Done {
    Leased {
        leased: Leased,
        bytes: u64,
        /// The lease that is settled once its messages are written.
        settles_itself: Option<(Name, LeaseId)>,
    },
    Settled(Settled),
    Extended(Extended),
    Failed(Failed),
}

impl Done {
    pub fn leased(request: u64, queue: Name, received: Received, auto_ack: bool) -> Self {
        let settles_itself = auto_ack && !received.messages.is_empty();
        let bytes = received
            .messages
            .iter()
            .map(|delivery| delivery.message.encoded_len() as u64)
            .sum();
        Self::Leased {
            leased: Leased {
                request,
                lease: if settles_itself { 0 } else { received.lease.0 },
                messages: received.messages.iter().map(message_out).collect(),
            },
            bytes,
            settles_itself: settles_itself.then_some((queue, received.lease)),
        }
    }

    pub fn settled(request: u64, settled: SettledBy) -> Self {
        Self::Settled(Settled {
            request,
            count: settled.count,
            not_held: settled.not_held.into_iter().map(|one| one.0).collect(),
            remaining: settled.remaining,
        })
    }

    pub fn extended(request: u64) -> Self {
        Self::Extended(Extended { request })
    }

    pub fn failed(request: u64, error: &RequestError) -> Self {
        Self::Failed(Failed {
            request,
            error: Some(error.wire()),
        })
    }

    /// Message bytes in it.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Leased { bytes, .. } => *bytes,
            _ => 0,
        }
    }
}

/// The next frame, and the lease in it that settles itself: there is at most one, so that it is known
/// which messages were written with it.
pub fn next_frame(
    outbox: &mut VecDeque<Done>,
    outbox_bytes: &mut u64,
) -> (ConsumeResponse, Option<(Name, LeaseId)>) {
    let mut frame = ConsumeResponse::default();
    let mut frame_bytes = 0;
    while frame_bytes < FRAME_BYTES_MAX as u64
        && let Some(done) = outbox.pop_front()
    {
        match done {
            Done::Leased {
                leased,
                bytes,
                settles_itself,
            } => {
                *outbox_bytes = outbox_bytes.saturating_sub(bytes);
                frame_bytes += bytes;
                frame.leased.push(leased);
                if settles_itself.is_some() {
                    return (frame, settles_itself);
                }
            }
            Done::Settled(settled) => frame.settled.push(settled),
            Done::Extended(extended) => frame.extended.push(extended),
            Done::Failed(failed) => frame.failed.push(failed),
        }
    }
    (frame, None)
}

fn message_out(delivery: &QueueDelivery) -> QueueMessage {
    let moved_from = delivery.moved_from.as_ref();
    QueueMessage {
        sequence: delivery.sequence.0,
        time_unix_ms: unix_ms(delivery.published),
        receive_count: delivery.receive_count,
        expires_unix_ms: delivery.expires.map_or(0, unix_ms),
        moved_from: moved_from.map_or_else(String::new, |from| from.text().to_owned()),
        record: Some(record_out(&delivery.message)),
    }
}
