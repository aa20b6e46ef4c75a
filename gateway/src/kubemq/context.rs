//! What every call needs: the broker, the settings, who calls, and whether requests are taken at all.

use std::future::Future;
use std::sync::Arc;

use flotilla_broker::{AccessRefusal, Broker, Fill};
use flotilla_model::name::{Kind, Name};
use tokio::sync::Semaphore;

use super::config::KubemqConfig;
use super::dispatch::Targets;
use super::downstream::Holders;
use super::error::RequestError;
use super::ping::Started;
use super::requests::cache::QueryCache;
use super::routing;
use crate::access::{Access, Action, Caller, Pattern};
use crate::transport::gate::Entry;
use crate::transport::inbound::BatchBounds;
use crate::transport::lifecycle::Lifecycle;

/// Shared by all calls of one listener, but for who calls.
#[derive(Clone)]
pub struct Context {
    pub broker: Broker,
    pub config: Arc<KubemqConfig>,
    pub query_cache: Arc<QueryCache>,
    /// Who may go through all channels now.
    pub channel_lists: Arc<Semaphore>,
    /// Which downstream holds a transaction.
    pub holders: Arc<Holders>,
    pub lifecycle: Arc<Lifecycle>,
    pub started: Started,
    pub caller: Caller,
}

/// What the fields of a queue message besides its content take in a response, its names apart.
const QUEUE_MESSAGE_OVERHEAD_BYTES: usize = 192;

impl Context {
    /// Who is let in to a listener, where everybody may make the call of this path.
    pub fn entry(&self, access: Access, open_call: &'static str) -> Entry {
        Entry {
            lifecycle: Arc::clone(&self.lifecycle),
            access,
            broker: self.broker.clone(),
            open_call: Some(open_call),
        }
    }

    /// The same for one who calls; `None`: nobody is asked.
    pub fn of_caller(self: &Arc<Self>, caller: Option<&Caller>) -> Arc<Self> {
        match caller {
            Some(caller) => Arc::new(Self {
                caller: caller.clone(),
                ..Self::clone(self)
            }),
            None => Arc::clone(self),
        }
    }

    /// The client that a request names is the one that its caller is bound to, if it is bound to one.
    pub fn bind_client(&self, client_id: &mut String) {
        if let Some(client) = self.caller.bound_client() {
            client.clone_into(client_id);
        }
    }

    /// A name, if whoever calls may do this to it as this client.
    pub fn allowed(&self, client: &str, action: Action, name: Name) -> Result<Name, RequestError> {
        let is_allowed = self.caller.may(client, action, &name);
        self.refuse_unless(is_allowed).map(|()| name)
    }

    /// Where a message goes, if whoever calls may send there as this client: to all of it.
    pub fn allowed_targets(&self, client: &str, targets: Targets) -> Result<Targets, RequestError> {
        let is_allowed = targets
            .names()
            .iter()
            .all(|name| self.caller.may(client, Action::Write, name));
        self.refuse_unless(is_allowed).map(|()| targets)
    }

    /// Whether whoever calls may subscribe to a channel, or a pattern of them.
    pub fn allowed_to_subscribe(
        &self,
        client: &str,
        kind: Kind,
        channel: &str,
    ) -> Result<(), RequestError> {
        let pattern = Pattern::of(kind);
        self.refuse_unless(
            self.caller
                .may_channel(client, Action::Read, pattern, channel),
        )
    }

    /// Refuses what is not allowed, and counts that.
    fn refuse_unless(&self, is_allowed: bool) -> Result<(), RequestError> {
        if is_allowed {
            return Ok(());
        }
        self.broker.access_refused(AccessRefusal::Denied);
        Err(RequestError::AccessDenied)
    }

    /// Runs a call's work, but no longer than until the end of the server begins.
    pub async fn until_ending<T>(&self, work: impl Future<Output = T>) -> Result<T, RequestError> {
        Ok(self.lifecycle.until_ending(work).await?)
    }

    /// How much of a client's stream is worked on together.
    pub fn batch_bounds(&self) -> BatchBounds {
        BatchBounds {
            count_max: self.config.requests_in_flight_max,
            bytes_max: self.config.request_batch_bytes_max,
        }
    }

    /// When a receive is answered before its wait time is over.
    pub fn fill(&self) -> Fill {
        self.config.receive_linger.map_or(Fill::Full, Fill::Linger)
    }

    /// The targets of a send whose channel is a list of them, for a sender of this kind.
    pub fn targets(&self, list: &str, own: Kind) -> Result<Vec<Name>, RequestError> {
        let config = &self.config;
        routing::targets(list, own, &config.routes, config.route_targets_max)
    }

    /// How many messages and content bytes of a queue fit a response: (messages, bytes).
    ///
    /// A seventh of the response is kept for what surrounds the contents.
    pub fn response_bounds(&self, queue: &str, messages_wanted: u32) -> (u32, u64) {
        let overhead_bytes = self.config.response_bytes_max / 7;
        let messages = overhead_bytes / (queue.len() + QUEUE_MESSAGE_OVERHEAD_BYTES);
        let messages_max = u32::try_from(messages).unwrap_or(u32::MAX).max(1);
        let bytes_max = self.config.response_bytes_max - overhead_bytes;
        (messages_wanted.min(messages_max), bytes_max as u64)
    }
}
