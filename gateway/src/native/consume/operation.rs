//! What a consumer asks for: checked, and carried out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{Fill, Receive, Session};
use flotilla_model::command::{Selection, Settlement};
use flotilla_model::ids::{LeaseId, Sequence};
use flotilla_model::name::Kind;

use super::frame::Done;
use crate::native::convert::name;
use crate::native::error::RequestError;
use crate::native::protocol::ConsumeRequest;
use crate::native::protocol::consume_request::settle::Kind as How;
use crate::native::protocol::consume_request::{Extend, Lease, Settle};

/// The broker's own bound on messages of one lease.
const LEASE_MESSAGES_MAX: u32 = 4_096;
const LEASE_BYTES_DEFAULT: u64 = 8 << 20;
/// Whatever else waits, a lease may fetch this much.
const LEASE_BYTES_MIN: u64 = 64 << 10;
/// An hour.
const WAIT_MS_MAX: u64 = 3_600_000;

/// One thing that a frame asks for.
pub enum Operation {
    Lease(Lease),
    Settle(Settle),
    Extend(Extend),
}

/// All that a frame asks for. What is settled comes first: it may be what is leased again.
pub fn operations(request: ConsumeRequest) -> impl Iterator<Item = Operation> {
    let settles = request.settles.into_iter().map(Operation::Settle);
    let extends = request.extends.into_iter().map(Operation::Extend);
    let leases = request.leases.into_iter().map(Operation::Lease);
    settles.chain(extends).chain(leases)
}

/// Waits for messages, of which it may fetch `share` bytes.
pub fn lease(
    session: Arc<Session>,
    request: Lease,
    share: u64,
) -> Result<impl Future<Output = Done> + Send + 'static, RequestError> {
    let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
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
    let bytes_max = match request.bytes_max {
        0 => LEASE_BYTES_DEFAULT,
        bytes => bytes,
    };
    let receive = Receive {
        queue: queue.clone(),
        messages_max: request.messages_max,
        bytes_max: bytes_max.min(share.max(LEASE_BYTES_MIN)),
        wait: Duration::from_millis(request.wait_ms),
        fill: Fill::Linger(Duration::from_millis(request.linger_ms)),
        visibility: (request.visibility_ms > 0)
            .then(|| Duration::from_millis(request.visibility_ms)),
    };
    Ok(async move {
        match session.receive(receive).await {
            Ok(received) => Done::leased(request.request, queue, received, request.auto_ack),
            Err(error) => Done::failed(request.request, &error.into()),
        }
    })
}

/// Ends the hold on messages.
pub fn settle(
    session: Arc<Session>,
    mut request: Settle,
) -> Result<impl Future<Output = Done> + Send + 'static, RequestError> {
    let queue = name(&request.namespace, Kind::Queue, &request.queue)?;
    let how = match How::try_from(request.kind) {
        Ok(How::Ack) => Settlement::Ack,
        Ok(How::Reject) => Settlement::Release,
        Ok(How::Move) => Settlement::Move {
            to: name(&request.namespace, Kind::Queue, &request.move_to)?,
        },
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
        Selection::Sequences(request.sequences.into_iter().map(Sequence).collect())
    };
    let lease = LeaseId(request.lease);
    Ok(async move {
        match session.settle(&queue, lease, which, how).await {
            Ok(settled) => Done::settled(request.request, settled),
            Err(error) => Done::failed(request.request, &error.into()),
        }
    })
}

/// Starts a visibility timer anew.
pub fn extend(
    session: Arc<Session>,
    request: Extend,
) -> Result<impl Future<Output = Done> + Send + 'static, RequestError> {
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
    Ok(async move {
        match session.extend(&queue, lease, visibility).await {
            Ok(()) => Done::extended(request.request),
            Err(error) => Done::failed(request.request, &error.into()),
        }
    })
}
