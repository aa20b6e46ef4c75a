//! What the handlers share: the broker once it runs, and what the node is doing until and after.

use std::sync::{Arc, OnceLock};

use flotilla_broker::Broker;
use flotilla_model::settings::{QueueSettings, TopicSettings};
use tokio::sync::watch;

use crate::error::AdminError;
use crate::metrics::AdminMetrics;

/// Limits and facts that the daemon gives.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// The program's version, for `/metrics`.
    pub version: String,
    /// What people call the node.
    pub node_name: String,
    /// Longest request body.
    pub body_bytes_max: usize,
    /// Most connections at a time; more wait to be accepted.
    pub connections_max: usize,
    /// What a topic gets that is created without saying more.
    pub topic_defaults: TopicSettings,
    /// What a queue gets that is created without saying more.
    pub queue_defaults: QueueSettings,
}

/// Handle to the admin interface; clones are the same.
#[derive(Clone)]
pub struct Admin {
    shared: Arc<Shared>,
}

struct Shared {
    config: AdminConfig,
    broker: OnceLock<Broker>,
    /// Why the node does not serve, whatever the broker says; `None`: ask the broker.
    held_back: watch::Sender<Option<String>>,
    metrics: AdminMetrics,
}

impl Admin {
    /// The interface of a node that is starting.
    pub fn new(config: AdminConfig) -> Self {
        let metrics = AdminMetrics::new(&config.version);
        Self {
            shared: Arc::new(Shared {
                config,
                broker: OnceLock::new(),
                held_back: watch::Sender::new(Some("the node is starting".to_owned())),
                metrics,
            }),
        }
    }

    /// From now on requests go to this broker. Only the first call counts: a node has one broker.
    pub fn serve_broker(&self, broker: Broker) {
        if self.shared.broker.set(broker).is_ok() {
            self.shared.held_back.send_replace(None);
        }
    }

    /// From now on the node is not ready, for this reason, until it gets its broker or ends.
    pub fn hold_back(&self, reason: &str) {
        self.shared.held_back.send_replace(Some(reason.to_owned()));
    }

    /// Why the node itself does not serve, if so.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.shared.held_back.borrow().clone()
    }

    /// The broker, if it was started.
    pub(crate) fn broker_started(&self) -> Option<&Broker> {
        self.shared.broker.get()
    }

    /// The broker, for requests that need it.
    pub(crate) fn broker(&self) -> Result<&Broker, AdminError> {
        if let Some(reason) = self.held_back() {
            return Err(AdminError::NotServing { reason });
        }
        self.broker_started().ok_or_else(|| AdminError::NotServing {
            reason: "the node is starting".to_owned(),
        })
    }

    pub(crate) fn config(&self) -> &AdminConfig {
        &self.shared.config
    }

    pub(crate) fn metrics(&self) -> &AdminMetrics {
        &self.shared.metrics
    }
}
