//! Raft, compiled once.
//!
//! openraft is generic over the log, the state machine and the network that it works with: whoever starts a
//! Raft with types of its own compiles most of openraft again, and with it the parts of tokio that it uses. It
//! is more than half of what `cluster` would consist of, and would be compiled for its tests once more.
//!
//! Here Raft is started with types that only say what they do (`any`), behind which any log, state
//! machine and network fit. So that all of it is compiled in this crate, which seldom changes and is
//! optimised a little in every build: tests of clusters spend much of their time in it.

mod any;
mod runtime;
pub mod types;

use std::sync::Arc;

use futures::future::BoxFuture;
use openraft::errors::Fatal;
use openraft::network::{RaftNetworkFactory, RaftNetworkV2};
use openraft::storage::{RaftLogStorage, RaftStateMachine};

pub use any::AnySnapshot;
use any::{AnyLog, AnyMachine, AnyNetwork};
use types::Groups;

/// The Raft of one group.
pub type Raft = openraft::Raft<Groups, AnyMachine>;

/// Reads what a group's log and state machine have, and makes its Raft; it does nothing before its `run` is called.
///
/// Snapshots are of the state machine's kind, in an [`AnySnapshot`] wherever Raft holds or is given them.
pub fn build<N, L, M>(
    node: u64,
    config: Arc<openraft::Config>,
    network: N,
    log: L,
    machine: M,
) -> BoxFuture<'static, Result<Raft, Fatal<Groups>>>
where
    N: RaftNetworkFactory<Groups>,
    N::Network: RaftNetworkV2<Groups, SnapshotData = M::SnapshotData>,
    L: RaftLogStorage<Groups>,
    M: RaftStateMachine<Groups>,
{
    let network = AnyNetwork::new(network);
    build_any(
        node,
        config,
        network,
        AnyLog::new(log),
        AnyMachine::new(machine),
    )
}

/// Not generic, and boxed: it is compiled here with all that it runs.
fn build_any(
    node: u64,
    config: Arc<openraft::Config>,
    network: AnyNetwork,
    log: AnyLog,
    machine: AnyMachine,
) -> BoxFuture<'static, Result<Raft, Fatal<Groups>>> {
    Box::pin(Raft::build(node, config, network, log, machine))
}
