//! Reading bodies: each within a bound, and all together.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::config::RestConfig;
use super::error::RestError;
use super::json;

/// A body must be there within this time.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(60);
/// Room for a body must be there within this time.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
/// Room is given away in pieces of this.
const PIECE_BYTES: usize = 1024;

/// Room for the bodies of all requests together; clones are the same.
#[derive(Clone)]
pub struct BodyRoom {
    pieces: Arc<Semaphore>,
    body_bytes_max: usize,
}

/// What a body takes of it, while it is read and worked on. Whoever waits for others gives it back before.
pub struct Taken {
    pieces: OwnedSemaphorePermit,
}

impl Taken {
    /// Gives back all but what so many bytes need.
    pub fn keep(&mut self, bytes: usize) {
        let surplus = self.pieces.num_permits().saturating_sub(pieces(bytes));
        drop(self.pieces.split(surplus));
    }
}

impl BodyRoom {
    /// With these bounds.
    pub fn new(config: &RestConfig) -> Self {
        // The largest body always finds room once it is the only one.
        let bytes = config.bodies_bytes_max.max(config.body_bytes_max);
        let pieces = pieces(bytes).min(Semaphore::MAX_PERMITS);
        Self {
            pieces: Arc::new(Semaphore::new(pieces)),
            body_bytes_max: config.body_bytes_max,
        }
    }

    /// Reads a message; what it takes is given back when [`Taken`] is dropped.
    pub async fn read<M: json::Value>(&self, body: Incoming) -> Result<(M, Taken), RestError> {
        let (bytes, taken) = self.read_bytes(body).await?;
        let message = json::read(&bytes).map_err(RestError::Body)?;
        Ok((message, taken))
    }

    /// Reads all of a body.
    pub async fn read_bytes(&self, body: Incoming) -> Result<(Bytes, Taken), RestError> {
        let allowed = self.body_bytes_max;
        let hint = body.size_hint();
        let expected = usize::try_from(hint.upper().unwrap_or(allowed as u64));
        let expected = expected.unwrap_or(usize::MAX);
        if expected > allowed {
            return Err(RestError::BodyTooLarge { allowed });
        }
        let mut taken = self.take(expected).await?;
        let reading = timeout(BODY_WAIT_MAX, collect(body, allowed));
        let bytes = reading.await.map_err(|_| RestError::BodyLate {
            wait_max: BODY_WAIT_MAX,
        })??;
        // Of those that come without a length the most is expected, and few are so large.
        taken.keep(bytes.len());
        Ok((bytes, taken))
    }

    /// Room for the largest body.
    pub async fn take_largest(self) -> Result<Taken, RestError> {
        self.take(self.body_bytes_max).await
    }

    async fn take(&self, bytes: usize) -> Result<Taken, RestError> {
        let count = u32::try_from(pieces(bytes)).map_err(|_| RestError::NoRoom)?;
        let waiting = Arc::clone(&self.pieces).acquire_many_owned(count);
        match timeout(ROOM_WAIT_MAX, waiting).await {
            Ok(Ok(pieces)) => Ok(Taken { pieces }),
            _ => Err(RestError::NoRoom),
        }
    }
}

fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE_BYTES)
}

async fn collect(mut body: Incoming, allowed: usize) -> Result<Bytes, RestError> {
    let mut only = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(RestError::BodyLost)?.into_data() else {
            continue;
        };
        if all.len() + only.len() + data.len() > allowed {
            return Err(RestError::BodyTooLarge { allowed });
        }
        if only.is_empty() && all.is_empty() {
            // Most come in one piece.
            only = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut only));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { only } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_take_room_until_they_are_dropped_and_the_largest_always_finds_it() {
        let room = BodyRoom::new(&RestConfig {
            body_bytes_max: 10 * PIECE_BYTES,
            bodies_bytes_max: PIECE_BYTES,
            connections_max: 1,
        });
        let mut small = room.take(5 * PIECE_BYTES).await.unwrap();
        assert_eq!(room.pieces.available_permits(), 5);
        small.keep(6 * PIECE_BYTES);
        assert_eq!(room.pieces.available_permits(), 5);
        small.keep(PIECE_BYTES + 1);
        assert_eq!(room.pieces.available_permits(), 8);
        drop(small);
        let large = room.take(10 * PIECE_BYTES).await.unwrap();
        assert_eq!(room.pieces.available_permits(), 0);
        let next = room.take(1);
        tokio::pin!(next);
        assert!(futures::poll!(next.as_mut()).is_pending());
        drop(large);
        assert!(next.await.is_ok());
    }
}
