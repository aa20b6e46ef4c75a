//! A listener's handle to its subscription.

use std::sync::Arc;

use crate::api::error::BrokerError;
use crate::api::signal::SignalDelivery;
use crate::hub::listener::Listener;

/// A live subscription to signals. Dropping it ends it.
pub struct SignalSubscription {
    listener: Arc<Listener>,
}

impl SignalSubscription {
    pub(crate) fn new(listener: Arc<Listener>) -> Self {
        Self { listener }
    }

    /// The signals that are ready, at least one; waits for it. May be dropped without losing any.
    pub async fn next(&mut self) -> Result<Vec<SignalDelivery>, BrokerError> {
        self.listener.take().await
    }
}

impl Drop for SignalSubscription {
    fn drop(&mut self) {
        self.listener.close();
    }
}
