//! What this node answers to the brokers of other nodes.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use flotilla_cluster::{PeerIdentity, PeerService, Talk};
use flotilla_model::name::Name;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::core::Core;
use crate::hub::inbound;
use crate::hub::request::inbound as request_inbound;
use crate::peers::conversation::{Broken, Incoming, Outgoing, halves};
use crate::peers::wire::Opening;
use crate::peers::{ask, receive, subscribe};

/// The broker as other nodes see it.
pub(crate) struct BrokerService {
    core: Weak<Core>,
}

impl BrokerService {
    pub fn new(core: Weak<Core>) -> Self {
        Self { core }
    }

    /// Unless the broker is being stopped: its clients go on at another node.
    fn open_core(&self) -> Option<Arc<Core>> {
        self.core.upgrade().filter(|core| !core.is_closing())
    }
}

impl PeerService for BrokerService {
    fn call(&self, _: PeerIdentity, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let core = self.open_core();
        async move {
            let core = core.ok_or("the broker is not running")?;
            ask::answer(&core, request).await
        }
        .boxed()
    }

    fn talk(&self, from: PeerIdentity, talk: Talk) -> BoxFuture<'static, ()> {
        let core = self.open_core();
        async move {
            let Some(core) = core else {
                return;
            };
            let (outgoing, incoming) = halves(talk);
            let conversing = converse(&core, from, outgoing, incoming);
            let ended = tokio::select! {
                ended = conversing => ended,
                () = core.until_closing() => return,
            };
            if let Err(broken) = ended {
                tracing::debug!(node = %from.node, %broken, "a conversation was broken off");
            }
        }
        .boxed()
    }
}

async fn converse(
    core: &Arc<Core>,
    from: PeerIdentity,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let (opening, _) = incoming.next::<Opening>().await?;
    match opening {
        Opening::Subscribe { request, resume } => {
            check(&request.topic)?;
            subscribe::serve(core, outgoing, incoming, request, resume).await
        }
        Opening::Receive(request) => {
            check(&request.queue)?;
            receive::serve_receive(core, outgoing, incoming, request).await
        }
        Opening::Peek {
            queue,
            messages_max,
            bytes_max,
            wait,
        } => {
            check(&queue)?;
            let request = (queue, messages_max, bytes_max, wait);
            receive::serve_peek(core, outgoing, incoming, request).await
        }
        Opening::Hub => inbound::serve(core, from.node, outgoing, incoming).await,
        Opening::Requests => request_inbound::serve(core, from, outgoing, incoming).await,
    }
}

/// A name from elsewhere has not been checked.
fn check(name: &Name) -> Result<(), Broken> {
    name.check().map_err(|_| Broken::Ended)
}
