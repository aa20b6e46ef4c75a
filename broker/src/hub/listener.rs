//! One who listens to signals, and a signal on its way to one.

use std::sync::Arc;

use crate::api::error::BrokerError;
use crate::api::signal::SignalDelivery;
use crate::hub::actor::HubBell;
use crate::hub::buffer::{Bounds, Buffer, Weighed};
use crate::hub::interest::Key;
use crate::hub::table::Member;

/// A signal on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub delivery: SignalDelivery,
    /// Of the message alone, encoded.
    pub bytes: u64,
    /// Of one that goes to another node.
    pub away: Option<Arc<Away>>,
}

impl Weighed for Sent {
    fn bytes(&self) -> u64 {
        let groups = self.away.as_ref().map_or(0, |away| away.bytes());
        self.bytes + self.delivery.name.text().len() as u64 + groups
    }
}

/// Who of another node gets a message.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    /// All who listen alone.
    pub to_all: bool,
    /// One member of each.
    pub groups: Vec<Arc<Key>>,
}

impl Away {
    /// What its texts weigh.
    pub fn bytes(&self) -> u64 {
        self.groups.iter().map(|key| key.bytes() as u64).sum()
    }
}

/// One listener and what waits for it.
pub(crate) struct Listener {
    id: u64,
    pub buffer: Arc<Buffer<Sent>>,
    bell: Arc<HubBell>,
}

impl Listener {
    pub fn new(id: u64, bounds: Bounds, bell: Arc<HubBell>) -> Self {
        Self {
            id,
            buffer: Arc::new(Buffer::new(bounds)),
            bell,
        }
    }

    /// The listener's side: what is ready, as soon as there is something.
    pub async fn take(&self) -> Result<Vec<SignalDelivery>, BrokerError> {
        let taken = self.buffer.take().await?;
        Ok(taken.into_iter().map(|sent| sent.delivery).collect())
    }

    /// The listener's side: it is gone.
    pub fn close(&self) {
        self.buffer.close();
        self.bell.gone(self.id);
    }
}

impl Member for Listener {
    fn id(&self) -> u64 {
        self.id
    }

    fn has_room(&self) -> bool {
        self.buffer.has_room()
    }
}
