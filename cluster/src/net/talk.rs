//! A conversation with another node: frames in order, both ways, in bounded queues.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use super::peers::PeerError;
use super::wire::MESSAGE_BYTES_MAX;
use super::wire::proto::TalkFrame;

/// What waits on its way out, beside what the transport holds: little, since whoever sends should feel
/// that the other side is slow.
const QUEUE_FRAMES: usize = 64;
const QUEUE_BYTES: usize = 1 << 20;

/// What comes from the other side.
pub(super) type Frames = BoxStream<'static, Result<Bytes, PeerError>>;

/// Both ends of a conversation. It ends when either side drops its part; what was sent before arrives,
/// unless the link breaks.
pub struct Talk {
    /// Towards the other side.
    pub sender: TalkSender,
    /// From the other side.
    pub receiver: TalkReceiver,
}

impl Talk {
    /// The two ends of a conversation inside this node.
    pub(crate) fn pair() -> (Self, Self) {
        let (towards_first, frames) = oneshot::channel();
        let (first, from_first) = Self::over(late_frames(frames));
        let (second, from_second) = Self::over(from_first.map(|frame| Ok(frame.body)).boxed());
        // The receiver is in `first`.
        let _ = towards_first.send(from_second.map(|frame| Ok(frame.body)).boxed());
        (first, second)
    }

    /// A conversation over `incoming`, and the frames to be sent for it.
    pub(super) fn over(
        incoming: BoxStream<'static, Result<Bytes, PeerError>>,
    ) -> (Self, impl Stream<Item = TalkFrame> + Send + 'static) {
        let (frames, mut queue) = mpsc::channel::<Outgoing>(QUEUE_FRAMES);
        let outgoing = futures::stream::poll_fn(move |context| {
            queue.poll_recv(context).map(|frame| {
                frame.map(|frame| TalkFrame {
                    body: frame.body,
                    ..TalkFrame::default()
                })
            })
        });
        let talk = Self {
            sender: TalkSender {
                frames,
                room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            },
            receiver: TalkReceiver { incoming },
        };
        (talk, outgoing)
    }
}

/// Frames of a stream that is not there yet.
pub(super) fn late_frames(stream: oneshot::Receiver<Frames>) -> Frames {
    futures::stream::once(async move {
        match stream.await {
            Ok(frames) => frames,
            Err(_) => futures::stream::empty().boxed(),
        }
    })
    .flatten()
    .boxed()
}

struct Outgoing {
    body: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Sends frames. Its clones share the queue; the other side sees the end when all are gone.
#[derive(Clone)]
pub struct TalkSender {
    frames: mpsc::Sender<Outgoing>,
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
}

/// Why a frame was not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError {
    /// The other side does not keep up. The frame is given back.
    #[error("the queue of the conversation is full")]
    Full(Bytes),
    /// The conversation is over, or the frame is too large.
    #[error(transparent)]
    Ended(PeerError),
}

impl TalkSender {
    /// Queues a frame; waits while the other side does not keep up. That a frame was queued does not
    /// mean that it arrives.
    pub async fn send(&self, body: Bytes) -> Result<(), PeerError> {
        let wanted = room_for(&body)?;
        let room = tokio::select! {
            biased;
            room = self.room.clone().acquire_many_owned(wanted) => room.map_err(|_| ended())?,
            // A frame that was queued in the very moment of the end keeps its room for as long as there are senders.
            () = self.frames.closed() => return Err(ended()),
        };
        let frame = Outgoing { body, _room: room };
        self.frames.send(frame).await.map_err(|_| ended())
    }

    /// Queues a frame if there is room for it now.
    pub fn try_send(&self, body: Bytes) -> Result<(), TrySendError> {
        let wanted = room_for(&body).map_err(TrySendError::Ended)?;
        let room = match self.room.clone().try_acquire_many_owned(wanted) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits) if !self.frames.is_closed() => {
                return Err(TrySendError::Full(body));
            }
            Err(_) => return Err(TrySendError::Ended(ended())),
        };
        self.frames
            .try_send(Outgoing { body, _room: room })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(frame) => TrySendError::Full(frame.body),
                mpsc::error::TrySendError::Closed(_) => TrySendError::Ended(ended()),
            })
    }

    /// Whether frames can still be sent.
    pub fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }

    /// Waits until no more frames can be sent.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

fn room_for(body: &Bytes) -> Result<u32, PeerError> {
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(PeerError::Refused {
            reason: format!(
                "a frame of {} bytes is above the limit of {MESSAGE_BYTES_MAX}",
                body.len()
            ),
        });
    }
    // A frame above the limit of the queue takes all of it.
    Ok(body.len().min(QUEUE_BYTES) as u32)
}

fn ended() -> PeerError {
    PeerError::unreachable("the conversation has ended")
}

/// Receives frames.
pub struct TalkReceiver {
    incoming: BoxStream<'static, Result<Bytes, PeerError>>,
}

impl TalkReceiver {
    /// The next frame; `None` when the other side has ended the conversation, an error when the link
    /// broke. Nothing follows either. Cancel-safe: a frame is not lost when the wait is given up.
    pub async fn recv(&mut self) -> Option<Result<Bytes, PeerError>> {
        self.incoming.next().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_room_hears_of_the_end() {
        let (talk, outgoing) = Talk::over(futures::stream::pending().boxed());
        let sender = talk.sender;
        // As a frame does that was queued in the very moment of the end.
        let all = sender.room.clone();
        let _kept = all.try_acquire_many_owned(QUEUE_BYTES as u32).unwrap();
        let waiting = sender.clone();
        let sending = tokio::spawn(async move { waiting.send(Bytes::from_static(b"more")).await });
        tokio::task::yield_now().await;
        drop(outgoing);
        let sent = tokio::time::timeout(Duration::from_secs(20), sending).await;
        assert_eq!(sent.expect("an answer").unwrap(), Err(ended()));
    }
}
