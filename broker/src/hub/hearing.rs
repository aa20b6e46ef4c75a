//! What another node tells of those who listen or serve there, as long as it tells it.

use std::marker::PhantomData;
use std::sync::Arc;

use flotilla_model::ids::NodeId;

use crate::core::Core;
use crate::hub::interest::Key;
use crate::hub::links::Cargo;
use crate::hub::table::Told;
use crate::peers::conversation::{Broken, Outgoing};
use crate::peers::wire::HubKnows;

/// One conversation that another node began. What it told is let go of when this is dropped, however the
/// conversation ends.
pub(super) struct Hearing<'a, C: Cargo> {
    core: &'a Arc<Core>,
    node: NodeId,
    conversation: u64,
    outgoing: Outgoing,
    cargo: PhantomData<C>,
}

impl<'a, C: Cargo> Hearing<'a, C> {
    pub fn begin(core: &'a Arc<Core>, node: NodeId, outgoing: Outgoing) -> Self {
        Self {
            core,
            node,
            conversation: core.next_conversation(),
            outgoing,
            cargo: PhantomData,
        }
    }

    /// Takes in changes of interest; says so once all up to a version are known.
    pub async fn interest(
        &self,
        anew: bool,
        entries: Vec<(Key, u32)>,
        version: Option<u64>,
    ) -> Result<(), Broken> {
        let told = Told {
            node: self.node,
            conversation: self.conversation,
            anew,
            entries,
        };
        C::told(self.core, told).await?;
        if let Some(version) = version {
            C::links(self.core).know(self.node, self.conversation);
            self.outgoing.send(&HubKnows { version }).await?;
        }
        Ok(())
    }
}

impl<C: Cargo> Drop for Hearing<'_, C> {
    fn drop(&mut self) {
        C::links(self.core).forget(self.node, self.conversation);
        C::gone(self.core, self.node, self.conversation);
    }
}
