//! Which stream of this node holds a transaction, and what other streams have it do.
//!
//! ```text
//!   asking stream -- find: this transaction, this client --> Holder == mailbox ==> holding stream
//!         ^                                                                             |
//!         +---------- what it would have told, had it been asked on that stream --------+
//! ```
//!
//! Some clients get messages on one stream and settle them as a whole on another, which they open for that. The
//! lease is the first one's, and only there it is known what is still held: so that stream carries out what
//! the other was asked.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use flotilla_model::name::NAME_BYTES_MAX;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::reply::Outgoing;
use crate::access::Caller;
use crate::kubemq::protocol::{QueuesDownstreamRequest, QueuesDownstreamResponse};

/// Requests that wait at a stream for it to begin them; further ones wait with those who ask.
const WAITING_MAX: usize = 16;
/// Settlements that a stream has under way for others. Its own are counted apart: two streams that have each
/// other settle much must not wait for each other.
const UNDER_WAY_MAX: usize = 64;

/// The open transactions of all streams of a node. Each is listed for as long as its [`Listed`] lives, so
/// there are no more than the streams may have open.
#[derive(Default)]
pub struct Holders {
    /// Held for a look or a change, never for work.
    listed: Mutex<HashMap<Arc<str>, Entry>>,
}

struct Entry {
    client_id: String,
    holder: Arc<Holder>,
}

/// A stream, as others see it.
pub struct Holder {
    caller: Caller,
    mailbox: mpsc::Sender<Asked>,
}

/// A request that another stream read.
pub struct Asked {
    pub request: Box<QueuesDownstreamRequest>,
    pub asker: Asker,
}

/// Where it is answered. Whoever does not get an answer takes it that the holder is gone.
pub struct Asker {
    answer: oneshot::Sender<Replies>,
    replies: Replies,
}

/// Mostly none: success is silent.
pub type Replies = Vec<QueuesDownstreamResponse>;

/// One stream's part in this.
pub struct Desk {
    holders: Arc<Holders>,
    own: Arc<Holder>,
    asked: mpsc::Receiver<Asked>,
    /// Out of the mailbox, and not begun.
    next: Option<Asked>,
    under_way: usize,
}

/// Keeps a transaction listed.
pub struct Listed {
    holders: Arc<Holders>,
    id: Arc<str>,
}

impl Holders {
    /// How many transactions are open.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.listed.lock().len()
    }
}

impl Holder {
    /// Has the stream carry out a request: what it says to that, or `None` if it has ended, and with it
    /// its transactions.
    pub async fn ask(
        self: Arc<Self>,
        request: QueuesDownstreamRequest,
        transaction_messages_max: usize,
    ) -> Option<Replies> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            request: Box::new(needed(request, transaction_messages_max)),
            asker: Asker {
                answer,
                replies: Replies::new(),
            },
        };
        self.mailbox.send(asked).await.ok()?;
        // What is sent in the very moment in which the stream empties its mailbox for the last time is dropped
        // with the mailbox, which lives for as long as anybody may send to it: whoever waits must not.
        drop(self);
        answered.await.ok()
    }
}

impl Asker {
    /// Keeps something to tell, if there is anything.
    pub fn tell(&mut self, reply: Option<Outgoing>) {
        self.replies.extend(reply.map(|reply| reply.response));
    }

    /// That was all.
    pub fn done(self) {
        // Who does not wait any more has ended; what it asked for is done all the same.
        let _ = self.answer.send(self.replies);
    }
}

impl Desk {
    /// For the stream of one who calls.
    pub fn new(holders: Arc<Holders>, caller: Caller) -> Self {
        let (mailbox, asked) = mpsc::channel(WAITING_MAX);
        Self {
            holders,
            own: Arc::new(Holder { caller, mailbox }),
            asked,
            next: None,
            under_way: 0,
        }
    }

    /// Lists a transaction that this stream opens for a client.
    pub fn list(&self, id: &str, client_id: String) -> Listed {
        let id: Arc<str> = Arc::from(id);
        let entry = Entry {
            client_id,
            holder: Arc::clone(&self.own),
        };
        self.holders.listed.lock().insert(Arc::clone(&id), entry);
        Listed {
            holders: Arc::clone(&self.holders),
            id,
        }
    }

    /// The stream that holds a transaction, if it is for this client that it does: one that calls itself the
    /// same, and of whom a token says the same.
    pub fn find(&self, id: &str, client_id: &str) -> Option<Arc<Holder>> {
        let listed = self.holders.listed.lock();
        let Entry {
            client_id: of_holder,
            holder,
        } = listed.get(id)?;
        let is_same = of_holder == client_id && holder.caller.is_same(&self.own.caller);
        is_same.then(|| Arc::clone(holder))
    }

    /// Waits for what another stream asks, as long as there is room for it. Nothing is lost if it is dropped
    /// while it waits.
    pub async fn hear(&mut self) {
        if self.next.is_none()
            && self.under_way < UNDER_WAY_MAX
            && let Some(asked) = self.asked.recv().await
        {
            self.next = Some(asked);
            return;
        }
        pending().await
    }

    /// What was heard, to be begun now.
    pub fn next(&mut self) -> Option<Asked> {
        self.next.take()
    }

    /// All that was asked before the stream ended; nothing more comes.
    pub fn rest(&mut self) -> Vec<Asked> {
        self.asked.close();
        let mut rest = Vec::from_iter(self.next.take());
        while let Ok(asked) = self.asked.try_recv() {
            rest.push(asked);
        }
        rest
    }

    /// A settlement for another stream begins.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// It is over.
    pub fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Settlements under way for other streams.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
}

/// What is needed of a request: whatever else a client sent with it must not wait for the holder.
fn needed(
    request: QueuesDownstreamRequest,
    transaction_messages_max: usize,
) -> QueuesDownstreamRequest {
    // One more than there can be is either not held or named before: that one is told, and none behind it matters.
    let wanted = request
        .sequence_range
        .len()
        .min(transaction_messages_max.saturating_add(1));
    // Where it is to be a queue's name, it is one; where it is not, nobody looks at it.
    let re_queue_channel = Some(request.re_queue_channel)
        .filter(|name| name.len() <= NAME_BYTES_MAX)
        .unwrap_or_default();
    QueuesDownstreamRequest {
        request_id: request.request_id,
        request_type_data: request.request_type_data,
        ref_transaction_id: request.ref_transaction_id,
        re_queue_channel,
        sequence_range: request.sequence_range[..wanted].to_vec(),
        ..QueuesDownstreamRequest::default()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // The entry is dropped after the lock is.
        let entry = self.holders.listed.lock().remove(&self.id);
        drop(entry);
    }
}

#[cfg(test)]
#[path = "holders_test.rs"]
mod tests;
