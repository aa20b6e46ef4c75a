//! Deliveries of queue messages, with the time that each was held.
//!
//! ```text
//!   delivery c        |=========== held ===========|  settled, or its stream lost
//!   delivery c + 1                                    |======= ...
//!                     never in here ---------------^
//! ```
//!
//! The count that comes with a delivery gives the order of deliveries. A settlement that took effect
//! proves that its consumer was the holder until then. Without such a proof a consumer knows later
//! than the broker that its hold is over, and only what is certainly before that counts as held.

use super::event::{Fault, HoldId, Moment, QueueHistory, Receipt, Settlement};
use crate::checker::Name;
use std::collections::BTreeMap;
use std::time::Duration;

/// How much later than it happened a consumer may note that its stream has ended: it may be working,
/// or waiting for a processor.
pub const NOTICED_AFTER: Duration = Duration::from_millis(500);
/// What a consumer got before a fault is not given to others for at least this long after its
/// beginning.
const KEPT_IN_FAULT: Duration = Duration::from_secs(2);

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Settled {
        settlement: Settlement,
        invoked: Moment,
        /// When it had certainly taken effect.
        confirmed: Option<Moment>,
    },
    /// The stream ended first.
    Lost(Moment),
    /// Nothing is known of it.
    Open,
}

/// One delivery of a message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub receipt: &'a Receipt,
    pub end: End,
}

impl Delivery<'_> {
    /// Until when it was certainly held.
    pub fn held_until(&self, faults: &[Fault]) -> Moment {
        let at = self.receipt.at;
        let unproven = match self.end {
            End::Settled {
                invoked,
                confirmed: Some(_),
                ..
            } => return invoked,
            End::Settled { invoked, .. } => invoked,
            End::Lost(noticed) => noticed,
            End::Open => return at,
        };
        let during = |fault: &&Fault| fault.from < unproven && fault.until > at;
        let until = faults
            .iter()
            .filter(during)
            .map(|fault| fault.from.max(at).plus(KEPT_IN_FAULT))
            .fold(unproven.minus(NOTICED_AFTER), Moment::min);
        until.max(at)
    }

    /// Whether it removed the message, and that was confirmed.
    pub fn is_removed(&self) -> bool {
        let End::Settled {
            settlement,
            confirmed,
            ..
        } = self.end
        else {
            return false;
        };
        settlement == Settlement::Acknowledge && confirmed.is_some()
    }

    /// Whether it may have removed the message.
    pub fn may_be_removed(&self) -> bool {
        matches!(
            self.end,
            End::Settled {
                settlement: Settlement::Acknowledge,
                ..
            }
        )
    }
}

/// All deliveries of a queue by message, in the order of their counts.
pub fn by_message(queue: &QueueHistory) -> BTreeMap<Name, Vec<Delivery<'_>>> {
    let mut ends: BTreeMap<HoldId, End> = queue
        .lost
        .iter()
        .map(|(hold, at)| (*hold, End::Lost(*at)))
        .collect();
    ends.extend(queue.settles.iter().map(|settle| {
        let end = End::Settled {
            settlement: settle.settlement,
            invoked: settle.invoked,
            confirmed: settle.confirmed,
        };
        (settle.hold, end)
    }));
    let consumed = queue.receipts.iter().map(|receipt| Delivery {
        receipt,
        end: ends.get(&receipt.hold).copied().unwrap_or(End::Open),
    });
    // These are acknowledged by being received.
    let drained = queue.drained.iter().map(|receipt| Delivery {
        receipt,
        end: End::Settled {
            settlement: Settlement::Acknowledge,
            invoked: receipt.at,
            confirmed: Some(receipt.at),
        },
    });
    let mut deliveries: BTreeMap<Name, Vec<Delivery<'_>>> = BTreeMap::new();
    for delivery in consumed.chain(drained) {
        let of_message = deliveries.entry(delivery.receipt.name).or_default();
        of_message.push(delivery);
    }
    for of_message in deliveries.values_mut() {
        of_message.sort_by_key(|delivery| (delivery.receipt.receive_count, delivery.receipt.at));
    }
    deliveries
}

impl Moment {
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }

    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}
