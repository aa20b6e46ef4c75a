//! Flotilla's own gRPC protocol: every call is a stream that carries batches both ways.
//!
//! ```text
//!   service      one method per call of the protocol
//!     |- publish, send, signal -> pipeline -> answer    batches, answered in order
//!     |- subscribe, listen, serve -> feed               what comes, frame by frame
//!     |- request                                        replies, as they come
//!     |- consume                                        leases, held by the stream
//!   shapes, convert, error: what requests may be, become, and are told
//! ```
//!
//! `proto/flotilla/v1/flotilla.proto` says what each call promises.

mod answer;
mod consume;
mod context;
mod convert;
mod error;
mod feed;
mod frame;
mod listen;
mod pipeline;
mod publish;
mod request;
mod send;
mod serve;
mod service;
mod shapes;
mod signal;
mod subscribe;

use std::sync::Arc;

use flotilla_broker::Broker;

use self::context::{Bounds, Context};
use self::error::RequestError;
use self::protocol::broker_server::BrokerServer;
use self::service::Service;
use crate::access::{Access, Caller};
use crate::kubemq::KubemqConfig;
use crate::transport::gate::{Entry, Gate};
use crate::transport::lifecycle::Lifecycle;

/// The protocol's messages, and a client for tests and tools.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod protocol {
    tonic::include_proto!("flotilla.v1");
}

/// The protocol's service, for a listener with these settings.
pub(crate) fn service(
    broker: &Broker,
    config: &KubemqConfig,
    lifecycle: &Arc<Lifecycle>,
    access: Access,
) -> Gate<BrokerServer<Service>> {
    let bounds = Bounds::new(broker, config);
    let request_bytes_max = bounds.request_bytes_max;
    let context = Arc::new(Context {
        broker: broker.clone(),
        bounds,
        lifecycle: Arc::clone(lifecycle),
        caller: Caller::default(),
    });
    let entry = Entry {
        lifecycle: Arc::clone(lifecycle),
        access,
        broker: broker.clone(),
        open_call: None,
    };
    let service = BrokerServer::new(Service::new(context))
        .max_decoding_message_size(request_bytes_max)
        // What was stored was within a bound, and frames are: nothing here is too large to be told.
        .max_encoding_message_size(usize::MAX);
    Gate::new(service, entry, |refused| {
        RequestError::from(refused).status()
    })
}
