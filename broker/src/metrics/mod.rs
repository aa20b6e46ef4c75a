//! What the broker counts, and how it is shown to Prometheus.
//!
//! Sums by kind are always there. Series of single names are capped: the first names that are used
//! get them, until one of those is deleted.

mod access;
mod below;
mod cluster;
pub(crate) mod figures;
mod names;
mod requests;
pub(crate) mod sample;
mod scrape;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_model::name::{Kind, Name};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::api::error::BrokerError;
use crate::metrics::access::AccessCounters;
use crate::metrics::names::NamedSeries;
use crate::metrics::requests::RequestCounters;

pub use access::AccessRefusal;
pub(crate) use scrape::text as scrape_text;

/// Counters of one kind: topic, queue, signal, request or command.
struct KindCounters {
    messages_in: IntCounter,
    bytes_in: IntCounter,
    messages_out: IntCounter,
    bytes_out: IntCounter,
    /// The sum over all reasons.
    refused: AtomicU64,
}

struct Inner {
    registry: Registry,
    topic: KindCounters,
    queue: KindCounters,
    signal: KindCounters,
    request: KindCounters,
    command: KindCounters,
    requests: RequestCounters,
    access: AccessCounters,
    signals_dropped: IntCounter,
    signal_listeners: IntGauge,
    damaged_messages: IntCounter,
    sessions: IntGauge,
    clients: IntGaugeVec,
    clients_total: IntCounterVec,
    refused: IntCounterVec,
    named: NamedSeries,
    /// Counts everything that may change what a sample says.
    activity: AtomicU64,
}

/// The broker's counters; clones are the same counters.
#[derive(Clone)]
pub(crate) struct Metrics(Arc<Inner>);

impl Metrics {
    pub fn new(names_max: usize) -> Result<Self, BrokerError> {
        Self::build(names_max).map_err(|error| BrokerError::Unavailable {
            reason: format!("metrics cannot be registered: {error}"),
        })
    }

    fn build(names_max: usize) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let kinds = Families::new(&registry)?;
        let signals_dropped = IntCounter::new(
            "flotilla_signals_dropped_total",
            "Signals dropped for listeners that did not keep up.",
        )?;
        let signal_listeners =
            IntGauge::new("flotilla_signal_listeners", "Live listeners to signals.")?;
        let damaged_messages = IntCounter::new(
            "flotilla_damaged_messages_total",
            "Messages that could not be delivered because their stored bytes are damaged.",
        )?;
        let sessions = IntGauge::new("flotilla_sessions", "Open sessions of queue consumers.")?;
        let clients = IntGaugeVec::new(
            Opts::new("flotilla_clients", "Connected clients by protocol."),
            &["protocol"],
        )?;
        let clients_total = IntCounterVec::new(
            Opts::new(
                "flotilla_clients_total",
                "Clients that connected, by protocol.",
            ),
            &["protocol"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "flotilla_refused_total",
                "Messages that were not accepted, by kind and reason.",
            ),
            &["kind", "reason"],
        )?;
        register(&registry, &signals_dropped)?;
        register(&registry, &signal_listeners)?;
        register(&registry, &damaged_messages)?;
        register(&registry, &sessions)?;
        register(&registry, &clients)?;
        register(&registry, &clients_total)?;
        register(&registry, &refused)?;
        Ok(Self(Arc::new(Inner {
            topic: kinds.of(Kind::Topic)?,
            queue: kinds.of(Kind::Queue)?,
            signal: kinds.of(Kind::Signal)?,
            request: kinds.of(Kind::Request)?,
            command: kinds.of(Kind::Command)?,
            requests: RequestCounters::new(&registry)?,
            access: AccessCounters::new(&registry)?,
            registry,
            signals_dropped,
            signal_listeners,
            damaged_messages,
            sessions,
            clients,
            clients_total,
            refused,
            named: NamedSeries::new(names_max),
            activity: AtomicU64::new(1),
        })))
    }

    fn kind(&self, kind: Kind) -> &KindCounters {
        match kind {
            Kind::Topic => &self.0.topic,
            Kind::Queue => &self.0.queue,
            Kind::Signal => &self.0.signal,
            Kind::Request => &self.0.request,
            Kind::Command => &self.0.command,
        }
    }

    /// Messages of one name were accepted; `bytes` are of their bodies.
    pub fn accepted(&self, kind: Kind, name: &Name, messages: u64, bytes: u64) {
        let counters = self.kind(kind);
        counters.messages_in.inc_by(messages);
        counters.bytes_in.inc_by(bytes);
        self.0.named.count(name, |series| {
            series.messages_in.fetch_add(messages, Ordering::Relaxed);
            series.bytes_in.fetch_add(bytes, Ordering::Relaxed);
            series.last_in_ms.store(now_ms(), Ordering::Relaxed);
        });
        self.changed();
    }

    /// Messages of one name were handed to a consumer; `bytes` are of their bodies.
    pub fn delivered(&self, kind: Kind, name: &Name, messages: u64, bytes: u64) {
        if messages == 0 {
            return;
        }
        let counters = self.kind(kind);
        counters.messages_out.inc_by(messages);
        counters.bytes_out.inc_by(bytes);
        self.0.named.count(name, |series| {
            series.messages_out.fetch_add(messages, Ordering::Relaxed);
            series.bytes_out.fetch_add(bytes, Ordering::Relaxed);
            series.last_out_ms.store(now_ms(), Ordering::Relaxed);
        });
        self.changed();
    }

    /// A name that this node leads is in use, if only by clients of other nodes.
    pub fn used(&self, name: &Name) {
        self.0.named.count(name, |_| {});
    }

    /// A message was not accepted.
    pub fn refused(&self, kind: Kind, error: &BrokerError) {
        let labels = [kind_label(kind), reason_label(error)];
        self.0.refused.with_label_values(&labels).inc();
        self.kind(kind).refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn signals_sent(&self, messages: u64, bytes: u64, dropped: u64) {
        self.0.signal.messages_out.inc_by(messages);
        self.0.signal.bytes_out.inc_by(bytes);
        self.signals_dropped(dropped);
    }

    pub fn signals_dropped(&self, dropped: u64) {
        self.0.signals_dropped.inc_by(dropped);
    }

    pub fn set_signal_listeners(&self, count: usize) {
        self.0.signal_listeners.set(count as i64);
    }

    pub fn damaged_message(&self) {
        self.0.damaged_messages.inc();
    }

    pub fn session_opened(&self) {
        self.0.sessions.inc();
    }

    pub fn session_closed(&self) {
        self.0.sessions.dec();
    }

    pub fn client_connected(&self, protocol: &str) {
        self.0.clients.with_label_values(&[protocol]).inc();
        self.0.clients_total.with_label_values(&[protocol]).inc();
    }

    pub fn client_disconnected(&self, protocol: &str) {
        self.0.clients.with_label_values(&[protocol]).dec();
    }

    pub fn clients(&self, protocol: &str) -> u64 {
        let clients = self.0.clients.with_label_values(&[protocol]).get();
        u64::try_from(clients).unwrap_or(0)
    }

    /// A deleted name gives its series to another.
    pub fn forget(&self, name: &Name) {
        self.0.named.forget(name);
        self.changed();
    }

    /// State changed: a sample taken before is out of date.
    pub fn changed(&self) {
        self.0.activity.fetch_add(1, Ordering::Relaxed);
    }

    pub fn activity(&self) -> u64 {
        self.0.activity.load(Ordering::Relaxed)
    }

    /// The names that have series of their own.
    pub fn named(&self) -> Vec<Name> {
        self.0.named.names()
    }
}

/// The label values of a kind.
pub(crate) fn kind_label(kind: Kind) -> &'static str {
    match kind {
        Kind::Topic => "topic",
        Kind::Queue => "queue",
        Kind::Signal => "signal",
        Kind::Request => "request",
        Kind::Command => "command",
    }
}

pub(crate) fn reason_label(error: &BrokerError) -> &'static str {
    match error {
        BrokerError::InvalidName(_) | BrokerError::InvalidRequest { .. } => "invalid",
        BrokerError::NotFound { .. } => "not_found",
        BrokerError::TooLarge { .. } => "too_large",
        BrokerError::QueueFull { .. } => "queue_full",
        BrokerError::StorageFull { .. } => "storage_full",
        BrokerError::Busy { .. } => "busy",
        BrokerError::Conflict { .. } => "conflict",
        BrokerError::StaleLease => "stale_lease",
        BrokerError::Unavailable { .. } => "unavailable",
        BrokerError::OutcomeUnknown => "outcome_unknown",
        BrokerError::Damaged { .. } => "damaged",
        BrokerError::NoResponder { .. } => "no_responder",
        BrokerError::ResponderLost { .. } => "responder_lost",
        BrokerError::RequestTimeout { .. } => "request_timeout",
        BrokerError::ShuttingDown => "shutting_down",
    }
}

/// The counters that every kind has.
struct Families {
    messages_in: IntCounterVec,
    bytes_in: IntCounterVec,
    messages_out: IntCounterVec,
    bytes_out: IntCounterVec,
}

impl Families {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &["kind"])?;
            register(registry, &family)?;
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            messages_in: family("flotilla_messages_in_total", "Messages accepted.")?,
            bytes_in: family(
                "flotilla_bytes_in_total",
                "Body bytes of messages accepted.",
            )?,
            messages_out: family(
                "flotilla_messages_out_total",
                "Messages handed to consumers, repeats included.",
            )?,
            bytes_out: family(
                "flotilla_bytes_out_total",
                "Body bytes of messages handed to consumers, repeats included.",
            )?,
        })
    }

    fn of(&self, kind: Kind) -> Result<KindCounters, prometheus::Error> {
        let label = [kind_label(kind)];
        Ok(KindCounters {
            messages_in: self.messages_in.get_metric_with_label_values(&label)?,
            bytes_in: self.bytes_in.get_metric_with_label_values(&label)?,
            messages_out: self.messages_out.get_metric_with_label_values(&label)?,
            bytes_out: self.bytes_out.get_metric_with_label_values(&label)?,
            refused: AtomicU64::new(0),
        })
    }
}

/// The wall clock, for display.
fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: &C,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(collector.clone()))
}
