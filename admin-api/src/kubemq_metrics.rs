//! Metrics under the names and labels that tools of KubeMQ know.
//!
//! What they count that Flotilla does not is left out: who sent a message or took it is not counted by client,
//! and what listeners to plain events got is counted for all channels together.

use flotilla_broker::{Figures, KindFigures, NameFigures};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

const LABELS: [&str; 5] = ["node", "client_id", "type", "side", "channel"];
const SEND: &str = "send";
const RECEIVE: &str = "receive";
const RESPONSES: &str = "responses";
/// What the name of a client's own cursor begins with.
const CLIENT: &str = "client:";

/// The families, filled for one scrape.
struct Families<'a> {
    node: &'a str,
    registry: Registry,
    messages: IntCounterVec,
    volume: IntCounterVec,
    errors: IntCounterVec,
    expired: IntCounterVec,
    clients: IntGaugeVec,
    pending: IntGaugeVec,
    delayed: IntGaugeVec,
    last_seen: IntGaugeVec,
}

/// The metrics as Prometheus text. `clients` are those that are connected.
pub fn text(node: &str, figures: &Figures, clients: u64) -> Result<String, prometheus::Error> {
    let families = Families::new(node)?;
    families
        .clients
        .with_label_values(&families.labels("", "", "", ""))
        .set(whole(clients));
    for kind in &figures.kinds {
        families.kind(kind);
    }
    let replies = families.labels("", RESPONSES, SEND, "");
    families
        .messages
        .with_label_values(&replies)
        .inc_by(figures.replies);
    for name in &figures.names {
        if name.name.namespace() == DEFAULT_NAMESPACE {
            families.name(name);
        }
    }
    TextEncoder::new().encode_to_string(&families.registry.gather())
}

impl<'a> Families<'a> {
    fn new(node: &'a str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let gauge = |name: &str, help: &str| {
            let family = IntGaugeVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            node,
            messages: counter("kubemq_messages_count", "Messages, by channel.")?,
            volume: counter(
                "kubemq_messages_volume",
                "Body bytes of messages, by channel.",
            )?,
            errors: counter("kubemq_errors_count", "Messages that were not accepted.")?,
            expired: counter("kubemq_messages_expired", "Queue messages that expired.")?,
            clients: gauge("kubemq_clients_count", "Connected clients.")?,
            pending: gauge(
                "kubemq_messages_pending",
                "Messages that wait: in a queue, or for a reader of stored events.",
            )?,
            delayed: gauge(
                "kubemq_messages_delayed",
                "Queue messages that are not due.",
            )?,
            last_seen: gauge(
                "kubemq_messages_last_seen",
                "When the last message came or went, in ms since the Unix epoch.",
            )?,
            registry,
        })
    }

    /// In the order of [`LABELS`].
    fn labels<'l>(
        &self,
        client_id: &'l str,
        kind: &'l str,
        side: &'l str,
        channel: &'l str,
    ) -> [&'l str; 5]
    where
        'a: 'l,
    {
        [self.node, client_id, kind, side, channel]
    }

    fn kind(&self, figures: &KindFigures) {
        let kind = type_of(figures.kind);
        let sent = self.labels("", kind, SEND, "");
        self.errors.with_label_values(&sent).inc_by(figures.refused);
        if figures.kind == Kind::Signal {
            let received = self.labels("", kind, RECEIVE, "");
            self.messages
                .with_label_values(&received)
                .inc_by(figures.messages_out);
            self.volume
                .with_label_values(&received)
                .inc_by(figures.bytes_out);
        }
    }

    fn name(&self, figures: &NameFigures) {
        let kind = type_of(figures.name.kind());
        let channel = figures.name.text();
        let sent = self.labels("", kind, SEND, channel);
        let received = self.labels("", kind, RECEIVE, channel);
        self.messages
            .with_label_values(&sent)
            .inc_by(figures.messages_in);
        self.volume
            .with_label_values(&sent)
            .inc_by(figures.bytes_in);
        self.seen(&sent, figures.last_in_ms);
        if figures.name.kind() != Kind::Signal {
            self.messages
                .with_label_values(&received)
                .inc_by(figures.messages_out);
            self.volume
                .with_label_values(&received)
                .inc_by(figures.bytes_out);
            self.seen(&received, figures.last_out_ms);
        }
        if let Some(queue) = figures.queue {
            self.expired
                .with_label_values(&received)
                .inc_by(queue.expired_total);
            self.pending
                .with_label_values(&received)
                .set(whole(queue.available));
            self.delayed
                .with_label_values(&received)
                .set(whole(queue.delayed));
        }
        for (reader, lag) in &figures.readers {
            let client_id = reader.strip_prefix(CLIENT).unwrap_or(reader);
            let labels = self.labels(client_id, kind, RECEIVE, channel);
            self.pending.with_label_values(&labels).set(whole(*lag));
        }
    }

    fn seen(&self, labels: &[&str; 5], at_ms: u64) {
        if at_ms > 0 {
            self.last_seen.with_label_values(labels).set(whole(at_ms));
        }
    }
}

/// What tools of KubeMQ call a kind.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Topic => "events_store",
        Kind::Queue => "queues",
        Kind::Signal => "events",
        Kind::Request => "queries",
        Kind::Command => "commands",
    }
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use flotilla_broker::QueueFigures;
    use flotilla_model::name::Name;

    use super::*;

    fn named(name: Name) -> NameFigures {
        NameFigures {
            name,
            messages_in: 5,
            bytes_in: 50,
            messages_out: 4,
            bytes_out: 40,
            last_in_ms: 1_700_000_000_000,
            last_out_ms: 0,
            queue: None,
            readers: Vec::new(),
        }
    }

    #[test]
    fn figures_have_the_names_and_labels_of_kubemq() {
        let queue = NameFigures {
            queue: Some(QueueFigures {
                available: 3,
                delayed: 2,
                expired_total: 1,
            }),
            ..named(Name::queue("q\"1").unwrap())
        };
        let topic = NameFigures {
            readers: vec![("client:a".to_owned(), 7), ("group:g".to_owned(), 0)],
            ..named(Name::topic("t").unwrap())
        };
        let foreign = named(Name::new("other", Kind::Queue, "hidden").unwrap());
        let figures = Figures {
            names: vec![queue, topic, named(Name::signal("s").unwrap()), foreign],
            kinds: vec![KindFigures {
                kind: Kind::Signal,
                messages_out: 9,
                bytes_out: 90,
                refused: 6,
            }],
            replies: 8,
        };
        let text = text("n", &figures, 11).unwrap();
        let labels = |client_id: &str, kind: &str, side: &str, channel: &str| {
            // The writer sorts labels by their names.
            format!(
                r#"{{channel="{channel}",client_id="{client_id}",node="n",side="{side}",type="{kind}"}}"#
            )
        };
        for (family, labels, value) in [
            (
                "messages_count",
                labels("", "queues", "send", r#"q\"1"#),
                "5",
            ),
            (
                "messages_volume",
                labels("", "queues", "receive", r#"q\"1"#),
                "40",
            ),
            (
                "messages_expired",
                labels("", "queues", "receive", r#"q\"1"#),
                "1",
            ),
            (
                "messages_pending",
                labels("", "queues", "receive", r#"q\"1"#),
                "3",
            ),
            (
                "messages_delayed",
                labels("", "queues", "receive", r#"q\"1"#),
                "2",
            ),
            (
                "messages_pending",
                labels("a", "events_store", "receive", "t"),
                "7",
            ),
            (
                "messages_pending",
                labels("group:g", "events_store", "receive", "t"),
                "0",
            ),
            (
                "messages_last_seen",
                labels("", "events", "send", "s"),
                "1700000000000",
            ),
            ("messages_count", labels("", "events", "receive", ""), "9"),
            ("errors_count", labels("", "events", "send", ""), "6"),
            ("messages_count", labels("", "responses", "send", ""), "8"),
            ("clients_count", labels("", "", "", ""), "11"),
        ] {
            let line = format!("kubemq_{family}{labels} {value}\n");
            assert!(text.contains(&line), "{line} in\n{text}");
        }
        assert!(!text.contains("hidden"), "{text}");
        let what_is_not_counted = labels("", "events", "receive", "s");
        assert!(!text.contains(&what_is_not_counted), "{text}");
        assert!(
            text.contains("# TYPE kubemq_messages_count counter\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE kubemq_clients_count gauge\n"),
            "{text}"
        );
    }
}
