//! Nodes in one process with real sockets between them.

mod idle;
mod raft_nodes;
mod replicating;
mod snapshots;
mod talking;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use flotilla_model::ids::NodeId;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{Links, LocalIdentity, TcpNetwork};
use crate::identity::ClusterId;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
/// For what should take no time at all.
pub const SOON: Duration = Duration::from_secs(10);

/// One end of the links.
pub struct Node {
    pub links: Links,
    pub address: SocketAddr,
    pub identity: watch::Sender<LocalIdentity>,
    stop: Option<oneshot::Sender<()>>,
}

impl Node {
    pub fn start(cluster: Option<ClusterId>, number: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(listener, cluster, number)
    }

    pub fn start_on(listener: TcpListener, cluster: Option<ClusterId>, number: u64) -> Self {
        let identity = LocalIdentity {
            cluster,
            node: NodeId(number),
            incarnation: 1,
            ..LocalIdentity::default()
        };
        Self::start_as(listener, identity)
    }

    pub fn start_as(listener: TcpListener, identity: LocalIdentity) -> Self {
        let (identity, me) = watch::channel(identity);
        let links = Links::new(Handle::current(), Arc::new(TcpNetwork), me);
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = links.clone();
        tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serving.serve(&listener, stop).await.unwrap();
        });
        Self {
            links,
            address,
            identity,
            stop: Some(stop),
        }
    }

    /// Stops as a process that ends does: its connections break.
    pub fn stop(&mut self) {
        self.stop.take();
        self.links.close();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells each node where the others are.
pub fn introduce(nodes: &[&Node]) {
    let addresses: BTreeMap<NodeId, String> = nodes
        .iter()
        .map(|node| (node.identity.borrow().node, node.address.to_string()))
        .collect();
    for node in nodes {
        node.links.set_addresses(addresses.clone());
    }
}

/// Waits for something that should happen soon.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A service that answers with what it was asked, and refuses what is empty.
pub struct Echo;

impl super::PeerService for Echo {
    fn call(
        &self,
        from: super::PeerIdentity,
        request: bytes::Bytes,
    ) -> futures::future::BoxFuture<'static, Result<bytes::Bytes, String>> {
        Box::pin(async move {
            if request.is_empty() {
                return Err(format!("nothing to say to node {}", from.node));
            }
            Ok(request)
        })
    }

    fn talk(
        &self,
        _from: super::PeerIdentity,
        mut talk: super::Talk,
    ) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Some(Ok(frame)) = talk.receiver.recv().await {
                if talk.sender.send(frame).await.is_err() {
                    return;
                }
            }
        })
    }
}

pub fn echo() -> Arc<Echo> {
    Arc::new(Echo)
}
