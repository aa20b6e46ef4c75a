//! A conversation with another broker, in values instead of bytes.

use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_cluster::{Lane, PeerError, ServiceId, Talk, TalkReceiver, TalkSender};
use flotilla_model::ids::NodeId;
use flotilla_model::message::Message;

use crate::api::error::BrokerError;
use crate::core::Core;
use crate::fault::Fault;
use crate::peers::wire::{self, Opening, WireError};

/// How long a conversation may take to begin: a link holds only so many at a time.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// Why a conversation cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Link(#[from] PeerError),
    #[error(transparent)]
    Frame(#[from] WireError),
    #[error("the other side ended the conversation")]
    Ended,
}

impl From<BrokerError> for Broken {
    fn from(_: BrokerError) -> Self {
        // The part of this broker that would have gone on is gone, and with it the conversation.
        Self::Ended
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        // Whether the other node is gone or leads no more: the leader is to be found again.
        tracing::debug!(%broken, "a conversation with another node ended");
        Self::Moved
    }
}

/// Towards the other side.
#[derive(Clone)]
pub(crate) struct Outgoing(TalkSender);

impl Outgoing {
    /// Sends a head; waits while the other side does not keep up.
    pub async fn send(&self, head: &impl Encode) -> Result<(), Broken> {
        self.send_with(head, [], 0).await
    }

    /// The same with messages, which have about so many bytes.
    pub async fn send_with<'a>(
        &self,
        head: &impl Encode,
        messages: impl IntoIterator<Item = &'a Message>,
        message_bytes: usize,
    ) -> Result<(), Broken> {
        let frame = wire::frame(head, messages, message_bytes)?;
        Ok(self.0.send(frame).await?)
    }
}

/// From the other side.
pub(crate) struct Incoming(TalkReceiver);

impl Incoming {
    /// The next head, and the messages that follow it. May be dropped without losing any.
    pub async fn next<T: Decode<()>>(&mut self) -> Result<(T, Bytes), Broken> {
        let frame = self.0.recv().await.ok_or(Broken::Ended)??;
        Ok(wire::unframe(frame)?)
    }

    /// Waits until the other side has ended the conversation; what it still says is passed over.
    pub async fn end(&mut self) {
        while let Some(Ok(_)) = self.0.recv().await {}
    }
}

/// Both halves of a conversation that the other side began.
pub(crate) fn halves(talk: Talk) -> (Outgoing, Incoming) {
    (Outgoing(talk.sender), Incoming(talk.receiver))
}

impl Core {
    /// Begins a conversation with the broker of another node.
    pub async fn converse(
        &self,
        node: NodeId,
        opening: &Opening,
    ) -> Result<(Outgoing, Incoming), Broken> {
        let peers = self.cluster.peers();
        let beginning = peers.talk(node, Lane::Bulk, ServiceId::BROKER);
        let talk = tokio::time::timeout(BEGIN_MAX, beginning)
            .await
            .map_err(|_| PeerError::Timeout)??;
        let (outgoing, incoming) = halves(talk);
        outgoing.send(opening).await?;
        Ok((outgoing, incoming))
    }
}
