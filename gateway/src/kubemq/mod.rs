//! The KubeMQ protocol, for unmodified KubeMQ clients: over gRPC, and over HTTP as REST and WebSocket.
//!
//! ```text
//!   service, rest      one method or path per call of the protocol
//!     |- ping, events_send, events_subscribe -> store_subscribe
//!     |- queue_send <- upstream
//!     |- dispatch: what events_send and queue_send hand to the broker, by what routing says
//!     |- queue_receive, downstream, transaction, queues_info
//!     |- requests: commands and queries -> channels, those that the server answers
//!   shapes, validate, convert, error: what requests may be, must be, become, and are told
//!   silence: streams of clients that believe the server is not there
//!   apart: what takes too long for the threads that serve connections
//! ```

mod apart;
mod channels;
mod config;
mod context;
mod convert;
mod dispatch;
mod downstream;
mod error;
mod events_send;
mod events_subscribe;
mod exchange;
mod ping;
mod queue_receive;
mod queue_send;
mod queues_info;
mod requests;
pub(crate) mod rest;
mod routing;
mod service;
mod shapes;
mod silence;
mod slices;
mod source;
mod store_subscribe;
mod transaction;
mod upstream;
mod validate;

use std::sync::Arc;

use flotilla_broker::Broker;
use tokio::sync::Semaphore;

pub use config::{KubemqConfig, KubemqLimits};
pub use rest::RestConfig;
pub use routing::Routes;

pub(crate) use self::context::Context;
use self::downstream::Holders;
use self::error::RequestError;
pub(crate) use self::error::shown;
use self::ping::Started;
use self::protocol::kubemq_server::KubemqServer;
use self::requests::cache::QueryCache;
use self::service::Service;
pub(crate) use self::store_subscribe::is_cursor_of_other;
use crate::access::{Access, Caller};
use crate::transport::gate::Gate;
use crate::transport::lifecycle::Lifecycle;

/// Whoever calls this is not asked who it is: it is how the state of a server is asked for.
const PING: &str = "/kubemq.kubemq/Ping";

/// A message may be delivered with more around it than it was sent with; its size was checked then.
const RESPONSE_HEADROOM_BYTES: usize = 1024 * 1024;

/// What the calls of all listeners with these settings share.
pub(crate) fn context(
    broker: Broker,
    config: KubemqConfig,
    lifecycle: Arc<Lifecycle>,
) -> Arc<Context> {
    let query_cache = QueryCache::new(config.query_cache_entries_max, config.query_cache_bytes_max);
    let channel_lists = Semaphore::new(config.channel_lists_max);
    Arc::new(Context {
        broker,
        config: Arc::new(config),
        query_cache: Arc::new(query_cache),
        channel_lists: Arc::new(channel_lists),
        holders: Arc::new(Holders::default()),
        lifecycle,
        started: Started::now(),
        caller: Caller::default(),
    })
}

/// The protocol's gRPC service.
pub(crate) fn service(context: Arc<Context>, access: Access) -> Gate<KubemqServer<Service>> {
    let entry = context.entry(access, PING);
    let request_bytes_max = context.config.request_bytes_max;
    let service = KubemqServer::new(Service::new(context))
        .max_decoding_message_size(request_bytes_max)
        .max_encoding_message_size(request_bytes_max.saturating_add(RESPONSE_HEADROOM_BYTES));
    Gate::new(service, entry, |refused| {
        RequestError::from(refused).status()
    })
}

/// The protocol's messages, and a client for tests and tools.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod protocol {
    tonic::include_proto!("kubemq");
}
