//! What comes from the client of a socket, and whether it is still there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use futures::stream::SplitStream;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tonic::Status;

use super::metered::{Meter, Metered};
use crate::kubemq::rest::error::RestError;

/// A client's connection, after the upgrade.
pub type Socket = WebSocketStream<Metered<TokioIo<Upgraded>>>;
/// A client's side of it.
pub type Reader = SplitStream<Socket>;
/// What a frame holds.
pub type Text = Utf8Bytes;

/// When the client was heard last.
#[derive(Clone)]
pub struct Heard(Arc<Mutex<LastHeard>>);

struct LastHeard {
    at: Instant,
    /// Whether anybody waits for a frame: only then is silence the client's.
    is_awaited: bool,
}

impl Heard {
    /// Just now.
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(LastHeard {
            at: Instant::now(),
            is_awaited: false,
        })))
    }

    /// Whether the client has been silent for so long.
    pub fn is_silent(&self, for_at_least: Duration) -> bool {
        let last = self.0.lock();
        last.is_awaited && last.at.elapsed() >= for_at_least
    }

    fn is_heard(&self) {
        let mut last = self.0.lock();
        last.at = Instant::now();
        last.is_awaited = false;
    }

    fn is_awaited(&self) {
        let mut last = self.0.lock();
        if !last.is_awaited {
            // While nobody read, the client could not be heard.
            last.at = Instant::now();
            last.is_awaited = true;
        }
    }
}

/// The texts that a client sends. How its side ends is the last item: a failure, always, for whoever closes a
/// socket takes no more answers.
pub struct Frames {
    /// Gone only while this is dropped.
    reader: Option<Reader>,
    heard: Heard,
    meter: Meter,
    /// Who closes the socket reads the rest.
    rest: Option<oneshot::Sender<Reader>>,
    has_ended: bool,
}

impl Frames {
    /// Of a socket that was just opened; the receiver gets the client's side when nobody reads frames any more.
    pub fn new(reader: Reader, heard: Heard, meter: Meter) -> (Self, oneshot::Receiver<Reader>) {
        let (rest, unread) = oneshot::channel();
        let frames = Self {
            reader: Some(reader),
            heard,
            meter,
            rest: Some(rest),
            has_ended: false,
        };
        (frames, unread)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let (Some(reader), Some(rest)) = (self.reader.take(), self.rest.take()) {
            // Who does not wait for it has given the socket up.
            let _ = rest.send(reader);
        }
    }
}

impl Stream for Frames {
    type Item = Result<Text, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        this.meter.next_is_wanted();
        loop {
            let Some(reader) = &mut this.reader else {
                return Poll::Ready(None);
            };
            let Poll::Ready(frame) = Pin::new(reader).poll_next(context) else {
                this.heard.is_awaited();
                return Poll::Pending;
            };
            this.heard.is_heard();
            let item = match frame {
                Some(Ok(Message::Text(text))) => {
                    this.meter.message_came();
                    return Poll::Ready(Some(Ok(text)));
                }
                Some(Ok(Message::Ping(content) | Message::Pong(content))) => {
                    this.meter.control_came(content.len());
                    continue;
                }
                Some(Ok(Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(_))) => Status::unimplemented("only text frames are read"),
                Some(Ok(Message::Close(_))) | None => {
                    Status::cancelled("the client closed the socket")
                }
                Some(Err(error)) => failure(&error),
            };
            this.has_ended = true;
            return Poll::Ready(Some(Err(item)));
        }
    }
}

fn failure(error: &Error) -> Status {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => Status::out_of_range(
            format!("the message has more than the {max_size} bytes that are allowed"),
        ),
        Error::Protocol(_) | Error::Utf8(_) => Status::invalid_argument(error.to_string()),
        Error::Io(error)
            if error
                .get_ref()
                .is_some_and(|source| source.is::<RestError>()) =>
        {
            // The message is not lost with the connection: there was no room for it, or no end of it.
            Status::unavailable(error.to_string())
        }
        lost => Status::cancelled(lost.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_somebody_listens() {
        let heard = Heard::now();
        let none = Duration::ZERO;
        assert!(!heard.is_silent(none), "nobody has read yet");
        heard.is_awaited();
        assert!(heard.is_silent(none));
        assert!(!heard.is_silent(Duration::from_secs(60)));
        heard.is_heard();
        assert!(!heard.is_silent(none), "what came is being worked on");
    }
}
