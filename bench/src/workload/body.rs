//! Bodies of messages: bytes that do not compress, with the time of sending in front where it matters.

use bytes::{Bytes, BytesMut};
use rand::RngCore;
use std::time::{Duration, Instant};

/// Bytes of the time of sending.
const STAMP_BYTES: usize = size_of::<u64>();

/// A body without meaning, to be shared by all messages of a run.
pub fn filler(bytes: usize) -> Bytes {
    let mut body = vec![0; bytes];
    rand::rng().fill_bytes(&mut body);
    body.into()
}

/// Writes and reads times of sending, as distances from a moment that only this process knows.
#[derive(Clone)]
pub struct Stamps {
    origin: Instant,
    filler: Bytes,
}

impl Stamps {
    /// Of bodies that are `bytes` long, or as long as a stamp if that is more.
    pub fn new(bytes: usize) -> Self {
        Self {
            origin: Instant::now(),
            filler: filler(bytes.saturating_sub(STAMP_BYTES)),
        }
    }

    /// As many bodies, in one piece of memory.
    pub fn bodies(&self, sent: Instant, count: usize) -> impl Iterator<Item = Bytes> {
        let body_bytes = STAMP_BYTES + self.filler.len();
        let nanoseconds = sent.saturating_duration_since(self.origin).as_nanos() as u64;
        let mut memory = BytesMut::with_capacity(body_bytes * count);
        for _ in 0..count {
            memory.extend_from_slice(&nanoseconds.to_le_bytes());
            memory.extend_from_slice(&self.filler);
        }
        let mut memory = memory.freeze();
        (0..count).map(move |_| memory.split_to(body_bytes))
    }

    /// When a body was sent; none if it is too short to tell.
    pub fn sent(&self, body: &[u8]) -> Option<Instant> {
        let stamp = body.first_chunk::<STAMP_BYTES>()?;
        Some(self.origin + Duration::from_nanos(u64::from_le_bytes(*stamp)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamps = Stamps::new(100);
        let sent = Instant::now();
        let bodies: Vec<Bytes> = stamps.bodies(sent, 3).collect();
        assert_eq!(bodies.len(), 3);
        for body in bodies {
            assert_eq!((body.len(), stamps.sent(&body)), (100, Some(sent)));
        }
        assert_eq!(stamps.sent(b"short"), None);
    }
}
