//! Administration: settings, groups, and single objects.

use std::collections::HashMap;

use flotilla_model::command::Command;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;
use flotilla_model::query::{self, CursorInfo};
use flotilla_model::settings::{QueueSettings, TopicSettings};

use crate::api::admin::{GroupDetail, QueueDetail, TopicDetail};
use crate::api::error::BrokerError;
use crate::api::topic::Start;
use crate::convert::unexpected;
use crate::core::check_kind;
use crate::facade::Broker;
use crate::metrics::sample::lag;
use crate::topic::requests::{ForgetCursor, LiveCursor, LiveCursors, MoveCursor};

/// Groups of one topic that are listed.
const GROUPS_MAX: usize = 10_000;
/// Groups that are read at once.
const GROUPS_PER_READ: usize = 100;

impl Broker {
    /// Everything about a topic.
    pub async fn topic(&self, topic: &Name) -> Result<TopicDetail, BrokerError> {
        check_kind(topic, Kind::Topic)?;
        let core = &self.inner.core;
        let (shard, _) = core.shard_for(topic);
        let found = shard
            .read(|records| query::topic_info(records, topic))
            .await?;
        let info = found.ok_or_else(|| missing(topic))?;
        Ok(TopicDetail {
            name: topic.clone(),
            shard: shard.id(),
            settings: info.settings.as_ref().clone(),
            first: info.first,
            next: info.next,
            messages: info.messages(),
            bytes: info.bytes,
            published_total: info.next.0.saturating_sub(1),
            last_published: info.last_wall,
            subscriber_count: core.topics.subscribers(topic),
        })
    }

    /// Everything about a queue.
    pub async fn queue(&self, queue: &Name) -> Result<QueueDetail, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        let core = &self.inner.core;
        let (shard, _) = core.shard_for(queue);
        let found = shard
            .read(|records| query::queue_info(records, queue))
            .await?;
        let info = found.ok_or_else(|| missing(queue))?;
        Ok(QueueDetail {
            name: queue.clone(),
            shard: shard.id(),
            settings: info.settings.as_ref().clone(),
            next: info.next_sequence,
            messages: info.available + info.leased + info.delayed,
            bytes: info.bytes,
            available: info.available,
            leased: info.leased,
            delayed: info.delayed,
            enqueued_total: info.enqueued_total,
            delivered_total: info.delivered_total,
            expired_total: info.expired_total,
            dead_lettered_total: info.dead_lettered_total,
            subscriber_count: core.queues.subscribers(queue),
        })
    }

    /// Creates a topic, or replaces its settings.
    pub async fn configure_topic(
        &self,
        topic: Name,
        settings: TopicSettings,
    ) -> Result<(), BrokerError> {
        check_kind(&topic, Kind::Topic)?;
        let command = Command::ConfigureTopic {
            topic: topic.clone(),
            settings,
        };
        self.run_plain(&topic, command).await
    }

    /// Creates a queue, or replaces its settings.
    pub async fn configure_queue(
        &self,
        queue: Name,
        settings: QueueSettings,
    ) -> Result<(), BrokerError> {
        check_kind(&queue, Kind::Queue)?;
        let command = Command::ConfigureQueue {
            queue: queue.clone(),
            settings,
        };
        self.run_plain(&queue, command).await
    }

    /// Deletes a topic or queue with all it holds. Subscriptions go on with what comes after.
    pub async fn delete(&self, name: Name) -> Result<(), BrokerError> {
        if name.kind() == Kind::Signal {
            return Err(BrokerError::InvalidRequest {
                what: format!("{name} stores nothing that could be deleted"),
            });
        }
        let command = Command::Delete { name: name.clone() };
        self.run_plain(&name, command).await
    }

    /// The durable cursors of a topic, with those who read through them.
    pub async fn groups(&self, topic: &Name) -> Result<Vec<GroupDetail>, BrokerError> {
        check_kind(topic, Kind::Topic)?;
        let core = &self.inner.core;
        let live = match core.topics.get(topic) {
            // An actor that is going to sleep has no readers.
            Some(live) => live.address.send(LiveCursors).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let live: HashMap<String, LiveCursor> = live
            .into_iter()
            .map(|cursor| (cursor.name.clone(), cursor))
            .collect();
        let (shard, _) = core.shard_for(topic);
        let info = shard
            .read(|records| query::topic_info(records, topic))
            .await?
            .ok_or_else(|| missing(topic))?;
        let now = shard.now();
        let mut groups = Vec::new();
        let mut after = None;
        while groups.len() < GROUPS_MAX {
            let part: Vec<CursorInfo> = shard
                .read(|records| query::cursors(records, topic, after, GROUPS_PER_READ))
                .await?;
            let Some(last) = part.last() else {
                break;
            };
            after = Some(last.place);
            groups.extend(part.iter().map(|cursor| {
                let live = live.get::<str>(cursor.name.as_ref());
                GroupDetail {
                    name: cursor.name.to_string(),
                    low_water: cursor.low_water,
                    lag: lag(&info, cursor),
                    members: live.map_or(0, |live| live.members),
                    outstanding: live.map_or(0, |live| live.outstanding),
                    idle_ms: now.0.saturating_sub(cursor.moved_at.0),
                }
            }));
        }
        Ok(groups)
    }

    /// Moves a group to another place of its topic, with its live members.
    pub async fn reset_group(
        &self,
        topic: &Name,
        group: &str,
        to: Start,
    ) -> Result<(), BrokerError> {
        let core = &self.inner.core;
        core.check_open()?;
        check_kind(topic, Kind::Topic)?;
        let start = |wake| core.start_topic(topic, wake);
        let request = || MoveCursor {
            cursor: group.to_owned(),
            to,
        };
        core.topics.call(topic, start, request).await?
    }

    /// Forgets a group that has no live members.
    pub async fn delete_group(&self, topic: &Name, group: &str) -> Result<(), BrokerError> {
        let core = &self.inner.core;
        core.check_open()?;
        check_kind(topic, Kind::Topic)?;
        let start = |wake| core.start_topic(topic, wake);
        let request = || ForgetCursor(group.to_owned());
        core.topics.call(topic, start, request).await?
    }

    async fn run_plain(&self, name: &Name, command: Command) -> Result<(), BrokerError> {
        match self.run(name, command).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

fn missing(name: &Name) -> BrokerError {
    BrokerError::NotFound {
        what: name.to_string(),
    }
}
