//! The node as operators see it: health, damage, metrics.

use flotilla_cluster::{GroupHealth, Role};
use flotilla_model::ids::ShardId;
use flotilla_storage::LogHealth;

use crate::api::admin::{DamagedRange, Health, ShardHealth};
use crate::api::figures::Figures;
use crate::facade::Broker;
use crate::metrics::{self, AccessRefusal};

impl Broker {
    /// Whether the node lives and serves.
    ///
    /// A full disk alone leaves it ready: reads and settlements go on, and make room. A log that
    /// failed leaves it alive: reads go on, and an operator decides when to restart. So it serves
    /// on while it is not ready: one shard out of service is no reason to refuse calls for others.
    pub fn health(&self) -> Health {
        let core = &self.inner.core;
        let health = core.cluster.health();
        let mut reasons = Vec::new();
        let mut ready = true;
        if core.is_closing() {
            ready = false;
            reasons.push("the broker is shutting down".to_owned());
        }
        match &health.log {
            LogHealth::Healthy => {}
            LogHealth::Failed { reason } => {
                ready = false;
                reasons.push(format!("the log failed: {reason}"));
            }
            LogHealth::FullWaiting { reason } => {
                reasons.push(format!("the disk is full: {reason}"));
            }
        }
        if core.cluster.was_removed() {
            ready = false;
            reasons.push("this node was removed from the cluster".to_owned());
        }
        for group in &health.groups {
            if let Some(reason) = out_of_service(group) {
                ready = false;
                reasons.push(reason);
            }
        }
        let lost = core.lost();
        if let Some(what) = &lost {
            ready = false;
            reasons.push(format!("{what} ended unexpectedly: restart the node"));
        }
        Health {
            alive: lost.is_none(),
            ready,
            serving: !core.is_closing() && lost.is_none(),
            reasons,
            shards: health.groups.into_iter().map(shard_health).collect(),
        }
    }

    /// Stored bytes that cannot be read.
    pub fn damage(&self) -> Vec<DamagedRange> {
        let health = self.inner.core.cluster.health();
        let mut damage = Vec::new();
        for range in health.damage {
            let whole = DamagedRange {
                segment: u64::from(range.segment.0),
                offset: range.offset,
                bytes: range.bytes,
                shard: None,
                indexes: None,
                reason: range.what,
            };
            if range.entries.is_empty() {
                damage.push(whole);
                continue;
            }
            // Bytes that belonged to several shards are told once for each.
            damage.extend(range.entries.iter().map(|(group, indexes)| DamagedRange {
                shard: Some(ShardId(group.0)),
                indexes: Some((*indexes.start(), *indexes.end())),
                ..whole.clone()
            }));
        }
        damage
    }

    /// All metrics in the Prometheus text format. Cheap: nothing is read from disk for it.
    pub fn metrics_text(&self) -> String {
        metrics::scrape_text(&self.inner.core)
    }

    /// What this node has counted, to be shown under other names. As cheap.
    pub fn figures(&self) -> Figures {
        metrics::figures::of(&self.inner.core)
    }

    /// How many clients of a protocol are connected.
    pub fn clients(&self, protocol: &str) -> u64 {
        self.inner.core.metrics.clients(protocol)
    }

    /// A client connected. `protocol` is a short label such as `kubemq`.
    pub fn client_connected(&self, protocol: &'static str) {
        self.inner.core.metrics.client_connected(protocol);
    }

    /// A client of that protocol went.
    pub fn client_disconnected(&self, protocol: &'static str) {
        self.inner.core.metrics.client_disconnected(protocol);
    }

    /// A call, or a request within one, was not allowed.
    pub fn access_refused(&self, refusal: AccessRefusal) {
        self.inner.core.metrics.access_refused(refusal);
    }

    /// Access rules had changed, and were put in force or not.
    pub fn access_rules_read(&self, is_applied: bool) {
        self.inner.core.metrics.access_rules_read(is_applied);
    }
}

fn out_of_service(group: &GroupHealth) -> Option<String> {
    let what = if group.group == 0 {
        "the metadata group".to_owned()
    } else {
        format!("shard {}", group.group)
    };
    match (&group.failed, group.role) {
        (Some(reason), _) => Some(format!("{what} is out of service: {reason}")),
        (None, Role::Failed) => Some(format!("{what} is out of service")),
        (None, Role::Follower) if group.leader.is_none() => Some(format!("{what} has no leader")),
        (None, Role::Leader | Role::Follower) => None,
    }
}

fn shard_health(group: GroupHealth) -> ShardHealth {
    ShardHealth {
        shard: ShardId(group.group),
        is_leader: group.role == Role::Leader,
        term: group.term,
        applied: group.last_applied.unwrap_or(0),
        failed: group.failed,
    }
}
