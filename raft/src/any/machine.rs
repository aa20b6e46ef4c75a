//! Any state machine, and its snapshots.

use std::any::Any;
use std::io;

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use crate::types::{Groups, LogId, Snapshot, SnapshotMeta, StoredMembership};

/// A snapshot of any state machine.
pub struct AnySnapshot(Box<dyn Any + Send>);

impl AnySnapshot {
    pub fn new(snapshot: impl Any + Send) -> Self {
        Self(Box::new(snapshot))
    }

    /// What it was made of.
    ///
    /// # Panics
    ///
    /// If it was made of something else. A group has snapshots of one kind only.
    pub(super) fn take<S: Any>(self) -> S {
        match self.0.downcast() {
            Ok(snapshot) => *snapshot,
            Err(_) => unreachable!("a group's state machine and network have the same snapshots"),
        }
    }

    fn within<S: Any + Send>(snapshot: Snapshot<S>) -> Snapshot<Self> {
        Snapshot {
            meta: snapshot.meta,
            snapshot: Self::new(snapshot.snapshot),
        }
    }
}

type Applied = (Option<LogId>, StoredMembership);
type Responder = io::Result<EntryResponder<Groups>>;

trait Builder: Send + Sync {
    fn build_snapshot(&mut self) -> BoxFuture<'_, io::Result<Snapshot<AnySnapshot>>>;
}

impl<B: RaftSnapshotBuilder<Groups>> Builder for B {
    fn build_snapshot(&mut self) -> BoxFuture<'_, io::Result<Snapshot<AnySnapshot>>> {
        Box::pin(async {
            let built = RaftSnapshotBuilder::build_snapshot(self).await;
            built.map(AnySnapshot::within)
        })
    }
}

/// Builds snapshots of any state machine.
pub struct AnyBuilder(Box<dyn Builder>);

impl RaftSnapshotBuilder<Groups> for AnyBuilder {
    type SnapshotData = AnySnapshot;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<AnySnapshot>> {
        self.0.build_snapshot().await
    }
}

trait Machine: Send + Sync {
    fn applied_state(&mut self) -> BoxFuture<'_, io::Result<Applied>>;
    fn apply<'a>(&'a mut self, entries: BoxStream<'a, Responder>) -> BoxFuture<'a, io::Result<()>>;
    fn try_create_snapshot_builder(&mut self, force: bool) -> BoxFuture<'_, Option<AnyBuilder>>;
    fn get_snapshot_builder(&mut self) -> BoxFuture<'_, AnyBuilder>;
    fn install_snapshot<'a>(
        &'a mut self,
        meta: &'a SnapshotMeta,
        snapshot: AnySnapshot,
    ) -> BoxFuture<'a, io::Result<()>>;
    fn get_current_snapshot(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<AnySnapshot>>>>;
}

impl<M: RaftStateMachine<Groups>> Machine for M {
    fn applied_state(&mut self) -> BoxFuture<'_, io::Result<Applied>> {
        Box::pin(RaftStateMachine::applied_state(self))
    }

    fn apply<'a>(&'a mut self, entries: BoxStream<'a, Responder>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(RaftStateMachine::apply(self, entries))
    }

    fn try_create_snapshot_builder(&mut self, force: bool) -> BoxFuture<'_, Option<AnyBuilder>> {
        Box::pin(async move {
            let builder = RaftStateMachine::try_create_snapshot_builder(self, force).await?;
            Some(AnyBuilder(Box::new(builder)))
        })
    }

    fn get_snapshot_builder(&mut self) -> BoxFuture<'_, AnyBuilder> {
        Box::pin(async { AnyBuilder(Box::new(RaftStateMachine::get_snapshot_builder(self).await)) })
    }

    fn install_snapshot<'a>(
        &'a mut self,
        meta: &'a SnapshotMeta,
        snapshot: AnySnapshot,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(RaftStateMachine::install_snapshot(
            self,
            meta,
            snapshot.take(),
        ))
    }

    fn get_current_snapshot(&mut self) -> BoxFuture<'_, io::Result<Option<Snapshot<AnySnapshot>>>> {
        Box::pin(async {
            let current = RaftStateMachine::get_current_snapshot(self).await?;
            Ok(current.map(AnySnapshot::within))
        })
    }
}

/// Any state machine.
pub struct AnyMachine(Box<dyn Machine>);

impl AnyMachine {
    pub fn new(machine: impl RaftStateMachine<Groups>) -> Self {
        Self(Box::new(machine))
    }
}

impl RaftStateMachine<Groups> for AnyMachine {
    type SnapshotData = AnySnapshot;
    type SnapshotBuilder = AnyBuilder;

    async fn applied_state(&mut self) -> io::Result<Applied> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = Responder> + Unpin + Send,
    {
        self.0.apply(Box::pin(entries)).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<AnyBuilder> {
        self.0.try_create_snapshot_builder(force).await
    }

    async fn get_snapshot_builder(&mut self) -> AnyBuilder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: AnySnapshot,
    ) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<AnySnapshot>>> {
        self.0.get_current_snapshot().await
    }
}
