//! Administration: settings, groups, and single objects.

use std::future::Future;

use bincode::Decode;
use flotilla_model::command::Command;
use flotilla_model::name::{Kind, Name};
use flotilla_model::outcome::Outcome;
use flotilla_model::settings::{QueueSettings, TopicSettings};

use crate::api::admin::{GroupDetail, QueueDetail, QueueSpan, TopicDetail};
use crate::api::error::BrokerError;
use crate::api::topic::Start;
use crate::convert::unexpected;
use crate::core::check_kind;
use crate::facade::Broker;
use crate::fault::Fault;
use crate::objects;
use crate::peers::ask::Question;

impl Broker {
    /// Everything about a topic.
    pub async fn topic(&self, topic: &Name) -> Result<TopicDetail, BrokerError> {
        check_kind(topic, Kind::Topic)?;
        let here = || objects::topic(&self.inner.core, topic);
        self.at_leader(topic, here, Question::Topic(topic.clone()))
            .await
    }

    /// Everything about a queue.
    pub async fn queue(&self, queue: &Name) -> Result<QueueDetail, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        let here = || objects::queue(&self.inner.core, queue);
        self.at_leader(queue, here, Question::Queue(queue.clone()))
            .await
    }

    /// The same, with where what it holds begins.
    pub async fn queue_span(&self, queue: &Name) -> Result<QueueSpan, BrokerError> {
        check_kind(queue, Kind::Queue)?;
        let here = || objects::queue_span(&self.inner.core, queue);
        self.at_leader(queue, here, Question::QueueSpan(queue.clone()))
            .await
    }

    /// Creates a topic, or replaces its settings.
    pub async fn configure_topic(
        &self,
        topic: Name,
        settings: TopicSettings,
    ) -> Result<(), BrokerError> {
        check_kind(&topic, Kind::Topic)?;
        self.inner.core.admit(&topic).await?;
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
        self.inner.core.admit(&queue).await?;
        let command = Command::ConfigureQueue {
            queue: queue.clone(),
            settings,
        };
        self.run_plain(&queue, command).await
    }

    /// Deletes a topic or queue with all it holds. Subscriptions go on with what comes after.
    pub async fn delete(&self, name: Name) -> Result<(), BrokerError> {
        if !name.kind().is_stored() {
            return Err(BrokerError::InvalidRequest {
                what: format!("{name} stores nothing that could be deleted"),
            });
        }
        let command = Command::Delete { name: name.clone() };
        self.run_plain(&name, command).await?;
        self.inner.core.name_limits.forget(&name);
        Ok(())
    }

    /// The durable cursors of a topic, with those who read through them.
    pub async fn groups(&self, topic: &Name) -> Result<Vec<GroupDetail>, BrokerError> {
        check_kind(topic, Kind::Topic)?;
        let here = || objects::groups(&self.inner.core, topic);
        self.at_leader(topic, here, Question::Groups(topic.clone()))
            .await
    }

    /// Moves a group to another place of its topic, with its live members.
    pub async fn reset_group(
        &self,
        topic: &Name,
        group: &str,
        to: Start,
    ) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        check_kind(topic, Kind::Topic)?;
        let here = || objects::reset_group(&self.inner.core, topic, group, to);
        let question = Question::ResetGroup {
            topic: topic.clone(),
            group: group.to_owned(),
            to,
        };
        self.at_leader(topic, here, question).await
    }

    /// Forgets a group that has no live members.
    pub async fn delete_group(&self, topic: &Name, group: &str) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        check_kind(topic, Kind::Topic)?;
        let here = || objects::delete_group(&self.inner.core, topic, group);
        let question = Question::DeleteGroup {
            topic: topic.clone(),
            group: group.to_owned(),
        };
        self.at_leader(topic, here, question).await
    }

    /// Asks the leader of a name's shard, here or on another node.
    pub(super) async fn at_leader<T: Decode<()>, F: Future<Output = Result<T, Fault>>>(
        &self,
        name: &Name,
        here: impl Fn() -> F,
        question: Question,
    ) -> Result<T, BrokerError> {
        let core = &self.inner.core;
        let (shard, _) = core.shard_for(name);
        let there = |node| core.ask(node, &question);
        core.at_leader(shard, core.leader_patience(), here, there)
            .await
    }

    pub(super) async fn run_plain(&self, name: &Name, command: Command) -> Result<(), BrokerError> {
        match self.run(name, command).await? {
            Outcome::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}
