//! What a consumer is told, and how much of it is one frame.

use std::collections::VecDeque;

use flotilla_broker::{QueueDelivery, Received, Settled as SettledBy};
use flotilla_model::ids::LeaseId;
use flotilla_model::name::Name;
use prost::Message;

use crate::consumer::fetching::Fetching;
use crate::native::convert::{record_out, unix_ms};
use crate::native::error::RequestError;
use crate::native::frame::FRAME_BYTES_MAX;
use crate::native::protocol::consume_response::{Extended, Failed, Leased, Settled};
use crate::native::protocol::{ConsumeResponse, QueueMessage};

/// What surrounds an answer in a frame, at most.
const ANSWER_BYTES: usize = 16;

/// What became of one thing that was asked for.
pub struct Done {
    answer: Answer,
    /// What it takes in a frame.
    bytes: usize,
    /// The lease that is settled once its messages are written.
    settles_itself: Option<(Name, LeaseId)>,
}

enum Answer {
    Leased(Leased),
    Settled(Settled),
    Extended(Extended),
    Failed(Failed),
}

impl Done {
    pub fn leased(request: u64, queue: Name, received: Received, auto_ack: bool) -> Self {
        let settles_itself = auto_ack && !received.messages.is_empty();
        let leased = Leased {
            request,
            lease: if settles_itself { 0 } else { received.lease.0 },
            messages: received.messages.iter().map(message_out).collect(),
        };
        Self {
            bytes: leased.encoded_len() + ANSWER_BYTES,
            answer: Answer::Leased(leased),
            settles_itself: settles_itself.then_some((queue, received.lease)),
        }
    }

    pub fn settled(request: u64, settled: SettledBy) -> Self {
        let settled = Settled {
            request,
            count: settled.count,
            not_held: settled.not_held.into_iter().map(|one| one.0).collect(),
            remaining: settled.remaining,
        };
        Self::plain(settled.encoded_len(), Answer::Settled(settled))
    }

    pub fn extended(request: u64) -> Self {
        let extended = Extended { request };
        Self::plain(extended.encoded_len(), Answer::Extended(extended))
    }

    pub fn failed(request: u64, error: &RequestError) -> Self {
        let failed = Failed {
            request,
            error: Some(error.wire()),
        };
        Self::plain(failed.encoded_len(), Answer::Failed(failed))
    }

    fn plain(bytes: usize, answer: Answer) -> Self {
        Self {
            answer,
            bytes: bytes + ANSWER_BYTES,
            settles_itself: None,
        }
    }

    /// What it takes in a frame.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The next frame, and the lease in it that settles itself: there is at most one, so that it is known
/// which messages were written with it. What is larger than frames should be is a frame of its own: a
/// client that can read the answer can read the frame.
pub fn next_frame(
    outbox: &mut VecDeque<Done>,
    fetching: &Fetching,
) -> (ConsumeResponse, Option<(Name, LeaseId)>) {
    let mut frame = ConsumeResponse::default();
    let mut bytes = 0;
    while let Some(done) =
        outbox.pop_front_if(|next| bytes == 0 || bytes + next.bytes <= FRAME_BYTES_MAX)
    {
        fetching.take(done.bytes);
        bytes += done.bytes;
        match done.answer {
            Answer::Leased(leased) => frame.leased.push(leased),
            Answer::Settled(settled) => frame.settled.push(settled),
            Answer::Extended(extended) => frame.extended.push(extended),
            Answer::Failed(failed) => frame.failed.push(failed),
        }
        if done.settles_itself.is_some() {
            return (frame, done.settles_itself);
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

#[cfg(test)]
mod tests {
    use flotilla_model::ids::Sequence;

    use super::*;

    fn settled(not_held: u64) -> Done {
        let not_held = (1 << 60..(1 << 60) + not_held).map(Sequence).collect();
        let settled = SettledBy {
            count: 1,
            not_held,
            remaining: 1,
        };
        Done::settled(1, settled)
    }

    #[test]
    fn a_frame_holds_what_fits_and_what_is_larger_is_alone() {
        let fetching = Fetching::new(u64::MAX);
        // About 37 KB each, and one that is more than a frame should be.
        let counts = [4_096, 4_096, 40_000, 4_096];
        let mut outbox: VecDeque<Done> = counts.into_iter().map(settled).collect();
        for done in &outbox {
            fetching.wait(done.bytes());
        }
        for expected in [2, 1, 1, 0] {
            let (frame, _) = next_frame(&mut outbox, &fetching);
            assert_eq!(frame.settled.len(), expected);
            assert!(expected == 1 || frame.encoded_len() <= FRAME_BYTES_MAX);
        }
        outbox.extend((0..100).map(|_| settled(4_096)));
        let (frame, _) = next_frame(&mut outbox, &fetching);
        assert!(frame.settled.len() > 1 && frame.encoded_len() <= FRAME_BYTES_MAX);
    }
}
