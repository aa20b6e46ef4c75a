//! What a consumer asks for: checked, and carried out.

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{Fill, Receive, Session};
use flotilla_model::LEASE_MESSAGES_MAX;
use flotilla_model::command::{Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Kind;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::frame::Done;
use crate::access::Action;
use crate::consumer::fetching::{Fetching, Grant};
use crate::native::context::Context;
use crate::native::convert::name;
use crate::native::error::RequestError;
use crate::native::protocol::ConsumeRequest;
use crate::native::protocol::consume_request::settle::Kind as How;
use crate::native::protocol::consume_request::{Extend, Lease, Settle};

/// With what surrounds the messages it is less than the 4 MiB that gRPC clients accept by default.
const LEASE_BYTES_DEFAULT: u64 = 3 << 20;
/// An hour.
const WAIT_MS_MAX: u64 = 3_600_000;

/// One thing that a frame asks for.
pub enum Operation {
    Lease(Lease),
    Settle(Settle),
    Extend(Extend),
}

/// What a lease brought.
pub struct Fetched {
    /// Counts what was brought until the answer does.
    pub grant: Grant,
    pub done: Done,
}

/// All that a frame asks for. Leases come last: they may be held, and wait.
pub fn operations(request: ConsumeRequest) -> impl Iterator<Item = Operation> {
    let settles = request.settles.into_iter().map(Operation::Settle);
    let extends = request.extends.into_iter().map(Operation::Extend);
    let leases = request.leases.into_iter().map(Operation::Lease);
    settles.chain(extends).chain(leases)
}

/// Waits for messages.
pub fn lease(
    context: &Context,
    session: Arc<Session>,
    request: Lease,
    fetching: &Fetching,
) -> Result<BoxFuture<'static, Fetched>, RequestError> {
    let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
    let queue = context.allowed(Action::Read, queue)?;
    if !(1..=LEASE_MESSAGES_MAX).contains(&request.messages_max) {
        return Err(RequestError::Value {
            field: "messages_max",
            given: request.messages_max.into(),
            allowed: "1 to 4096 are allowed",
        });
    }
    if request.wait_ms > WAIT_MS_MAX {
        return Err(RequestError::Value {
            field: "wait_ms",
            given: request.wait_ms,
            allowed: "at most 3600000 are allowed",
        });
    }
    let mut grant = fetching.begin(match request.bytes_max {
        0 => LEASE_BYTES_DEFAULT,
        bytes => bytes,
    });
    let receive = Receive {
        queue: queue.clone(),
        messages_max: request.messages_max,
        bytes_max: grant.bytes(),
        wait: Duration::from_millis(request.wait_ms),
        fill: Fill::Linger(Duration::from_millis(request.linger_ms)),
        visibility: (request.visibility_ms > 0)
            .then(|| Duration::from_millis(request.visibility_ms)),
        // Whoever gives up says so by ending the stream.
        answer_within: None,
    };
    let fetched = async move {
        let done = match grant.receive(&session, receive).await {
            Ok(received) => Done::leased(request.request, queue, received, request.auto_ack),
            Err(error) => Done::failed(request.request, &error.into()),
        };
        Fetched { grant, done }
    };
    Ok(fetched.boxed())
}

/// Ends the hold on messages. Who moves them must be allowed to send where they go.
pub fn settle(
    context: &Context,
    session: Arc<Session>,
    mut request: Settle,
) -> Result<BoxFuture<'static, Done>, RequestError> {
    let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
    let how = match How::try_from(request.kind) {
        Ok(How::Ack) => Settlement::Ack,
        Ok(How::Reject) => Settlement::Release,
        Ok(How::Move) => {
            let to = name(&request.namespace, Kind::Queue, &request.move_to)?;
            Settlement::Move {
                to: context.allowed(Action::Write, to)?,
            }
        }
        Err(_) => {
            return Err(RequestError::Value {
                field: "kind",
                given: request.kind.unsigned_abs().into(),
                allowed: "ACK (0), REJECT (1) and MOVE (2) are allowed",
            });
        }
    };
    let which = if request.sequences.is_empty() {
        Selection::All
    } else {
        request.sequences.sort_unstable();
        request.sequences.dedup();
        let given = request.sequences.len() as u64;
        if given > LEASE_MESSAGES_MAX.into() {
            return Err(RequestError::Value {
                field: "the number of sequences",
                given,
                allowed: "at most 4096 are allowed",
            });
        }
        Selection::Sequences(request.sequences.into_iter().map(Sequence).collect())
    };
    let lease = LeaseId(request.lease);
    let done = async move {
        match session.settle(&queue, lease, which, how).await {
            Ok(settled) => Done::settled(request.request, settled),
            Err(error) => Done::failed(request.request, &error.into()),
        }
    };
    Ok(done.boxed())
}

/// Starts a visibility timer anew.
pub fn extend(
    session: Arc<Session>,
    request: Extend,
) -> Result<BoxFuture<'static, Done>, RequestError> {
    let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
    if request.visibility_ms == 0 {
        return Err(RequestError::Value {
            field: "visibility_ms",
            given: 0,
            allowed: "at least 1 is allowed",
        });
    }
    let lease = LeaseId(request.lease);
    let visibility = Duration::from_millis(request.visibility_ms);
    let done = async move {
        match session.extend(&queue, lease, visibility).await {
            Ok(()) => Done::extended(request.request),
            Err(error) => Done::failed(request.request, &error.into()),
        }
    };
    Ok(done.boxed())
}
