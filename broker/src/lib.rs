//! What is alive now: subscribers, waiting receivers, credit, timers and sessions.
//!
//! The [`Broker`] facade is all that gateways and the administration API may call. Behind it stand
//! actix actors fed with batches, and behind those the shards of the cluster, which alone decide
//! what is stored.
//!
//! ```text
//!   publish, enqueue, settle            subscribe_topic        receive           signal
//!            |                                |                   |                |
//!        ShardActor  <-- advances, leases - TopicActor        QueueActor        HubActor
//!   one per shard: group commit            on demand           on demand       one per node
//!            |                                |                   |
//!      Shard::propose                   Shard::read, Shard::read_slots
//! ```
//!
//! Requests and their replies pass no actor: a batch takes the lock of the `RequestHub`.

mod api;
mod config;
mod convert;
mod core;
mod directory;
mod facade;
mod fault;
mod hub;
mod ingress;
mod leader;
mod metrics;
mod name_limits;
mod nodes;
mod objects;
mod observer;
mod payload;
mod peers;
mod queue;
mod shard_actor;
mod threads;
mod topic;
mod wake;

pub use api::admin::{
    DamagedRange, GroupDetail, Health, ObjectSummary, Page, QueueDetail, QueueSpan, ShardHealth,
    TopicDetail,
};
pub use api::cluster::{ClusterDetail, NodeDetail, ShardDetail};
pub use api::error::BrokerError;
pub use api::figures::{Figures, KindFigures, NameFigures, QueueFigures};
pub use api::queue::{Enqueue, Enqueued, Fill, QueueDelivery, Receive, Received, Settled};
pub use api::request::{
    Answer, CallId, NotAToken, REQUEST_EXTRA_BYTES_MAX, REQUEST_TIMEOUT_MAX, Reply, ReplyToken,
    Request, RequestDelivery, SubscribeRequests, WhenNobody,
};
pub use api::signal::{Signal, SignalDelivery, SubscribeSignals};
pub use api::topic::{CursorMode, Publish, Published, Start, SubscribeTopic, TopicDelivery};
pub use config::BrokerConfig;
pub use facade::Broker;
pub use facade::submitted::Submitted;
pub use flotilla_cluster::{
    Finding, GroupVerification, ReplicaFinding, ReplicaVerification, Verification,
};
pub use hub::request::asker::Requester;
pub use hub::request::responder::RequestSubscription;
pub use hub::subscription::SignalSubscription;
pub use metrics::AccessRefusal;
pub use queue::session::Session;
pub use topic::subscription::TopicSubscription;
