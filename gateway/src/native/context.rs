//! What every stream needs: the broker, its bounds, who calls, and whether requests are taken at all.

use std::sync::Arc;

use flotilla_broker::{AccessRefusal, Broker};
use flotilla_model::message::Message;
use flotilla_model::name::{Kind, Name};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::convert::message_in;
use super::error::RequestError;
use super::protocol::Record;
use crate::access::{Action, Caller};
use crate::kubemq::{self, KubemqConfig};
use crate::transport::inbound::BatchBounds;
use crate::transport::lifecycle::{Lifecycle, NotServing};

/// Records of one batch at most.
const BATCH_RECORDS_MAX: usize = 4_096;
/// Record bytes of one stream between being handed to the broker and being answered: enough for the
/// entries that a shard has in flight, and only a part of what a shard has room for.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// These requests do not say which client sends them: it is whom the token of the stream names.
const NO_CLIENT: &str = "";

/// Shared by all streams of one listener, but for who calls.
#[derive(Clone)]
pub struct Context {
    pub broker: Broker,
    pub bounds: Bounds,
    pub lifecycle: Arc<Lifecycle>,
    pub caller: Caller,
}

/// How much a stream may ask for. What means the same as for the listener's other protocol is the same.
#[derive(Clone)]
pub struct Bounds {
    /// Largest frame that is read, in bytes.
    pub request_bytes_max: usize,
    /// Frames of one stream that are read together, at least one.
    pub together: BatchBounds,
    /// Frames, or parts of frames that are answered by themselves, that are read and not answered.
    pub in_flight_max: usize,
    /// Record bytes of one stream that are not answered; at least one batch always is under way.
    pub in_flight_bytes_max: usize,
    /// Records of one batch.
    pub batch_records_max: usize,
    /// Items that the broker takes together.
    pub items_max: usize,
    /// Leases of one stream that wait for messages.
    pub leases_max: usize,
    /// Message bytes that they may fetch together.
    pub lease_bytes_max: u64,
}

impl Bounds {
    /// By the settings of the listener and the broker.
    pub fn new(broker: &Broker, config: &KubemqConfig) -> Self {
        let items_max = broker.batch_items_max();
        Self {
            request_bytes_max: config.request_bytes_max,
            together: BatchBounds {
                count_max: config.requests_in_flight_max,
                bytes_max: config.request_batch_bytes_max,
            },
            in_flight_max: config.requests_in_flight_max,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            batch_records_max: BATCH_RECORDS_MAX.min(items_max),
            items_max,
            leases_max: config.transactions_per_stream_max,
            lease_bytes_max: config.downstream_bytes_max as u64,
        }
    }
}

/// What of a pattern its follower may see. Rules are for names: one that allows the pattern may not allow every
/// name which the pattern brings.
pub struct Sight {
    /// `None`: all of it.
    caller: Option<Caller>,
}

impl Sight {
    /// Whether there may be anything that it has not.
    pub fn is_limited(&self) -> bool {
        self.caller.is_some()
    }

    pub fn has(&self, name: &Name) -> bool {
        let caller = self.caller.as_ref();
        caller.is_none_or(|caller| caller.may(NO_CLIENT, Action::Read, name))
    }
}

/// The end of the server, for a stream that goes on until then.
pub type ServerEnd = BoxFuture<'static, RequestError>;

impl Context {
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

    /// What a record says. Whoever is bound to a client is the source of what it sends.
    pub fn message(&self, mut record: Record) -> Message {
        if let Some(client) = self.caller.bound_client() {
            client.clone_into(&mut record.source);
        }
        message_in(record)
    }

    /// A name, if whoever calls may do this to it.
    pub fn allowed(&self, action: Action, name: Name) -> Result<Name, RequestError> {
        if self.caller.may(NO_CLIENT, action, &name) {
            return Ok(name);
        }
        Err(self.denied(name.kind(), name.text()))
    }

    /// Whether whoever calls may follow a pattern of names.
    pub fn allowed_to_follow(
        &self,
        kind: Kind,
        namespace: &str,
        pattern: &str,
    ) -> Result<Sight, RequestError> {
        // Before the rules are asked: they look through all of it.
        Name::new(namespace, kind, pattern)?;
        if !self
            .caller
            .may_in(NO_CLIENT, Action::Read, kind, namespace, pattern)
        {
            return Err(self.denied(kind, pattern));
        }
        let is_limited = !self.caller.is_unrestricted() && pattern.contains(['*', '>']);
        Ok(Sight {
            caller: is_limited.then(|| self.caller.clone()),
        })
    }

    /// Whether whoever calls may keep its position under this name: whoever is bound to a client may not take that
    /// of another one.
    pub fn allowed_cursor(&self, cursor: &str) -> Result<(), RequestError> {
        match self.caller.bound_client() {
            Some(client) if kubemq::is_cursor_of_other(cursor, client) => {
                Err(self.denied_what(format!("cursor {}", kubemq::shown(cursor))))
            }
            _ => Ok(()),
        }
    }

    fn denied(&self, kind: Kind, text: &str) -> RequestError {
        self.denied_what(format!("{kind} {text}"))
    }

    fn denied_what(&self, what: String) -> RequestError {
        self.broker.access_refused(AccessRefusal::Denied);
        RequestError::AccessDenied { what }
    }

    /// Resolves with what streams end with when the end of the server has begun.
    pub fn server_end(&self) -> ServerEnd {
        let lifecycle = Arc::clone(&self.lifecycle);
        async move {
            lifecycle.ending().await;
            RequestError::from(NotServing::ShuttingDown)
        }
        .boxed()
    }
}
