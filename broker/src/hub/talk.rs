//! The conversation that a hub keeps with one other node: interest first, then what waits for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use flotilla_model::ids::NodeId;

use crate::core::Core;
use crate::hub::buffer::{Buffer, Weighed};
use crate::hub::interest::{Changes, Key};
use crate::hub::links::{Cargo, HubLinks};
use crate::peers::conversation::{Broken, Incoming, Outgoing};
use crate::peers::wire::HubKnows;

/// Between attempts to reach a node.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of one frame, about.
const FRAME_BYTES: usize = 256 * 1024;
/// What the head of a frame says of one item, about, beside its texts.
const ITEM_BYTES: usize = 64;

/// Keeps a conversation with a node, as long as there is the broker.
pub(super) async fn run<C: Cargo>(core: Weak<Core>, node: NodeId, outlet: Arc<Buffer<C>>) {
    loop {
        let Some(core) = core.upgrade().filter(|core| !core.is_closing()) else {
            return;
        };
        let talking = async {
            let (outgoing, incoming) = core.converse(node, &C::opening()).await?;
            converse(C::links(&core), node, &outlet, outgoing, incoming).await
        };
        let ended = tokio::select! {
            ended = talking => ended,
            () = core.until_closing() => return,
        };
        C::links(&core).told(node, None);
        C::broken(&core, node);
        if let Err(broken) = ended {
            tracing::debug!(%node, %broken, what = C::WHAT, "a node is not reached");
        }
        drop(core);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn converse<C: Cargo>(
    links: &HubLinks<C>,
    node: NodeId,
    outlet: &Buffer<C>,
    outgoing: Outgoing,
    mut incoming: Incoming,
) -> Result<(), Broken> {
    let hearing = async {
        loop {
            let (HubKnows { version }, _) = incoming.next::<HubKnows>().await?;
            links.told(node, Some(version));
        }
    };
    tokio::select! {
        ended = hearing => ended,
        ended = say(links, outlet, &outgoing) => ended,
    }
}

async fn say<C: Cargo>(
    links: &HubLinks<C>,
    outlet: &Buffer<C>,
    outgoing: &Outgoing,
) -> Result<(), Broken> {
    let mut versions = links.version.subscribe();
    let mut told = None;
    loop {
        versions.borrow_and_update();
        let changes = links.interest.lock().changes_since(told);
        if told != Some(changes.version) {
            told = Some(changes.version);
            tell::<C>(changes, outgoing).await?;
        }
        // Changes first: whoever is told that nobody is here must not believe the opposite any more.
        tokio::select! {
            biased;
            changed = versions.changed() => changed.map_err(|_| Broken::Ended)?,
            batch = outlet.take() => {
                C::send(batch.map_err(|_| Broken::Ended)?, outgoing).await?;
            }
        }
    }
}

/// Tells changes of interest, in frames of bounded size.
async fn tell<C: Cargo>(changes: Changes, outgoing: &Outgoing) -> Result<(), Broken> {
    let mut anew = changes.anew;
    let mut entries = changes.entries.into_iter().peekable();
    loop {
        let mut bytes = 0;
        let mut part: Vec<(Key, u32)> = Vec::new();
        while bytes < FRAME_BYTES
            && let Some((key, count)) = entries.next()
        {
            bytes += key.bytes();
            part.push((key, count));
        }
        let is_last = entries.peek().is_none();
        let version = is_last.then_some(changes.version);
        let head = C::interest(std::mem::take(&mut anew), part, version);
        outgoing.send(&head).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// Splits a batch into parts of the size of a frame; what is larger is a part of its own.
pub(super) fn parts<C: Weighed>(batch: &[C]) -> impl Iterator<Item = &[C]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|item| {
            bytes += ITEM_BYTES + item.bytes() as usize;
            bytes <= FRAME_BYTES
        });
        let (part, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!part.is_empty()).then_some(part)
    })
}
