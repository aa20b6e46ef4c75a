//! Putting messages into queues, and taking them out under leases.

use std::time::Duration;

use bincode::{Decode, Encode};
use flotilla_model::command::QueuePolicy;
use flotilla_model::ids::{DedupId, LeaseId, Sequence, WallTime};
use flotilla_model::message::Message;
use flotilla_model::name::Name;

/// One message for a queue.
#[derive(Clone, Debug)]
pub struct Enqueue {
    /// Where to; created on first use.
    pub queue: Name,
    /// What.
    pub message: Message,
    /// Delay, expiry and dead letters.
    pub policy: QueuePolicy,
    /// A repeat of this id within the queue's window is stored once.
    pub dedup: Option<DedupId>,
}

/// What became of an [`Enqueue`]: it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// When, as stored with it.
    pub at: WallTime,
    /// It was there already under its dedup id.
    pub duplicate: bool,
}

/// What a receiver wants.
#[derive(Clone, Debug)]
pub struct Receive {
    /// From where.
    pub queue: Name,
    /// 1 to 4,096.
    pub messages_max: u32,
    /// At most this many message bytes, but always one message.
    pub bytes_max: u64,
    /// Answer after this long at the latest, with what there is.
    pub wait: Duration,
    /// When to answer earlier.
    pub fill: Fill,
    /// Messages go back by themselves after this long; `None`: held until settled or the session ends.
    pub visibility: Option<Duration>,
    /// Nobody listens any more after this long: messages that would come later go back as if they had not
    /// been leased, and the answer has none. `None`: an answer is of use as long as a leader is looked for.
    pub answer_within: Option<Duration>,
}

impl Receive {
    /// What is left of it when so much of its time has passed.
    pub fn after(self, passed: Duration) -> Self {
        let left = |time: Duration| time.saturating_sub(passed);
        Self {
            wait: left(self.wait),
            answer_within: self.answer_within.map(left),
            ..self
        }
    }
}

/// When a receive is answered before its wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Fill {
    /// When `messages_max` are there.
    Full,
    /// When `messages_max` are there, or this long after the first message.
    Linger(Duration),
}

/// The answer to a [`Receive`]: its session holds the messages.
#[derive(Clone, Debug)]
pub struct Received {
    /// Names the lease in settlements; 0 if there are no messages.
    pub lease: LeaseId,
    /// In order of delivery; empty if none came in time.
    pub messages: Vec<QueueDelivery>,
    /// Expired messages that were passed over and removed.
    pub expired: u64,
}

/// One message of a queue, as leased or peeked.
#[derive(Clone, Debug)]
pub struct QueueDelivery {
    /// The lease that holds it; 0 of a peek.
    pub lease: LeaseId,
    /// Its place in the queue.
    pub sequence: Sequence,
    /// When it was put there.
    pub published: WallTime,
    /// Deliveries so far, this one included.
    pub receive_count: u32,
    /// When it expires, if it does.
    pub expires: Option<WallTime>,
    /// As stored.
    pub policy: QueuePolicy,
    /// The queue it was moved from.
    pub moved_from: Option<Name>,
    /// What.
    pub message: Message,
}

/// What a settlement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How many messages were settled.
    pub count: u32,
    /// Sequences asked for that the lease does not hold.
    pub not_held: Vec<Sequence>,
    /// How many the lease still holds; 0: it is over.
    pub remaining: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_that_begins_late_waits_for_less_and_never_longer_than_somebody_listens() {
        let seconds = Duration::from_secs;
        let receive = Receive {
            queue: Name::queue("q").expect("a name"),
            messages_max: 1,
            bytes_max: 1,
            wait: seconds(3),
            fill: Fill::Full,
            visibility: None,
            answer_within: Some(seconds(4)),
        };
        let left = |passed| {
            let left = receive.clone().after(seconds(passed));
            (left.wait, left.answer_within)
        };
        assert_eq!(left(1), (seconds(2), Some(seconds(3))));
        assert_eq!(left(3), (seconds(0), Some(seconds(1))));
        assert_eq!(left(9), (seconds(0), Some(seconds(0))), "nobody listens");
    }
}
