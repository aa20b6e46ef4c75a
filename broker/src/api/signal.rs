//! Messages to whoever listens now; nothing is stored.

use std::sync::Arc;

use flotilla_model::message::Message;
use flotilla_model::name::Name;

/// One message to all who listen to a name.
#[derive(Clone, Debug)]
pub struct Signal {
    /// Of kind signal.
    pub name: Name,
    /// Shared by all receivers.
    pub message: Arc<Message>,
}

/// One message as a listener gets it.
#[derive(Clone, Debug)]
pub struct SignalDelivery {
    /// What was published to, not the pattern.
    pub name: Arc<Name>,
    /// Shared by all receivers.
    pub message: Arc<Message>,
}

/// What a listener wants.
#[derive(Clone, Debug)]
pub struct SubscribeSignals {
    /// Of the names.
    pub namespace: String,
    /// Tokens divided by `.`; `*` stands for one token, a last `>` for one or more.
    pub pattern: String,
    /// Listeners with the same pattern and group share the messages.
    pub group: Option<String>,
}
