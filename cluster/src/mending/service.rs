//! Answers other nodes' questions about the replicas of this one.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_storage::GroupId;
use futures::future::BoxFuture;

use super::mender::{Cause, Mender};
use super::message::{Opening, Told, Words, broken, reason_of};
use super::{digest, fetch, read};
use crate::error::ClusterError;
use crate::group::Group;
use crate::net::{PeerIdentity, PeerService, Talk};

/// Clones are the same service.
#[derive(Clone)]
pub(crate) struct ReplicaService {
    pub groups: Vec<Arc<Group>>,
    pub mender: Arc<Mender>,
}

impl PeerService for ReplicaService {
    fn call(
        &self,
        _from: PeerIdentity,
        _request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("there are only conversations".to_owned()) })
    }

    fn talk(&self, _from: PeerIdentity, talk: Talk) -> BoxFuture<'static, ()> {
        Box::pin(self.clone().converse(talk))
    }
}

impl ReplicaService {
    /// Holds a conversation to its end.
    pub async fn converse(self, talk: Talk) {
        let mut words = Words::from(talk);
        if let Err(error) = self.answer(&mut words).await {
            let reason = reason_of(&error);
            tracing::debug!(reason, "a question about a replica was not answered");
            // Nobody may wait for it any more.
            let _ = words.say(&Told::Refused { reason }).await;
        }
    }

    async fn answer(&self, words: &mut Words) -> Result<(), ClusterError> {
        match words.hear().await? {
            Opening::Digest {
                group,
                bytes_per_second,
            } => digest::answer(self.group(group)?, bytes_per_second, words).await,
            Opening::Fetch { group, must_lead } => {
                fetch::answer(self.group(group)?, must_lead, words).await
            }
            Opening::Read {
                group,
                index,
                first,
                count,
            } => {
                let slots = first..first.saturating_add(count);
                read::answer(self.group(group)?, index, slots, words).await
            }
            Opening::Mend {
                group,
                from,
                if_damaged,
            } => {
                let cause = match if_damaged {
                    true => Cause::Damage,
                    false => Cause::Difference,
                };
                let mended = self.mender.mend(GroupId(group), Some(&from), cause);
                mended.await?;
                words.say(&Told::Mended).await
            }
            Opening::Lost { group } => {
                self.mender.mend(GroupId(group), None, Cause::Loss).await?;
                words.say(&Told::Mended).await
            }
        }
    }

    fn group(&self, number: u32) -> Result<&Group, ClusterError> {
        let group = self.groups.get(number as usize);
        group
            .map(Arc::as_ref)
            .ok_or_else(|| broken(format!("there is no group {number}")))
    }
}
