//! What the client of a socket is told: paced by what it takes, with pings, and with a reason at the end.

use std::time::Duration;

use futures::stream::SplitSink;
use futures::{FutureExt, SinkExt, Stream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tonic::{Code, Status};
use tracing::debug;

use super::frames::{Frames, Heard, Reader, Socket};
use crate::kubemq::config::KubemqConfig;
use crate::kubemq::rest::json;

/// So many messages are written before the client is listened to again.
const RUN_MAX: usize = 64;
/// How long the client may take to say that it knows of the end.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest reason that a close frame holds.
const REASON_BYTES_MAX: usize = 123;
/// What the reason of every close begins with that the client did not ask for.
const CLOSED: &str = "Error 205: connection was closed by server";

type Writer = SplitSink<Socket, Message>;

/// The server's side of a socket.
pub struct Pump {
    writer: Writer,
    heard: Heard,
    pings: Interval,
    silence_max: Duration,
}

/// Why nothing more is told.
enum End {
    /// By itself, or with this status.
    Told(Option<Status>),
    /// The client cannot be told anything.
    Lost(&'static str),
}

impl Pump {
    /// Of a socket that was just opened.
    pub fn new(writer: Writer, heard: Heard, config: &KubemqConfig) -> Self {
        let interval = config.keepalive_interval;
        let mut pings = interval_at(Instant::now() + interval, interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            writer,
            heard,
            pings,
            silence_max: interval + config.keepalive_wait_max,
        }
    }

    /// Tells the client all of `told`, until that or the client ends; then closes the socket.
    ///
    /// `frames` is what the client says if nobody else listens; `unread` gets its side at the end.
    pub async fn run<T, S>(
        mut self,
        mut told: S,
        mut frames: Option<Frames>,
        unread: oneshot::Receiver<Reader>,
    ) where
        T: json::Value,
        S: Stream<Item = Result<T, Status>> + Unpin,
    {
        let end = self.tell(&mut told, &mut frames).await;
        drop((told, frames));
        match end {
            End::Told(status) => self.close(status, unread).await,
            End::Lost(why) => debug!(why, "a socket was lost"),
        }
    }

    async fn tell<T, S>(&mut self, told: &mut S, frames: &mut Option<Frames>) -> End
    where
        T: json::Value,
        S: Stream<Item = Result<T, Status>> + Unpin,
    {
        let mut run = 0;
        loop {
            // What is there goes out together.
            let ready = match run {
                RUN_MAX.. => None,
                _ => told.next().now_or_never(),
            };
            let next = match ready {
                Some(next) => next,
                None => {
                    run = 0;
                    // Streams take being asked for more as a sign that all before was written.
                    if self.writer.flush().await.is_err() {
                        return End::Lost("it could not be written to");
                    }
                    tokio::select! {
                        next = told.next() => next,
                        status = heard_to_end(frames) => return End::Told(Some(status)),
                        _ = self.pings.tick() => {
                            if self.heard.is_silent(self.silence_max) {
                                return End::Lost("its client is silent");
                            }
                            let ping = Message::Ping(Vec::new().into());
                            if self.writer.send(ping).await.is_err() {
                                return End::Lost("it could not be written to");
                            }
                            continue;
                        }
                    }
                }
            };
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(status)) => return End::Told(Some(status)),
                None => return End::Told(None),
            };
            let text = match json::text(&message) {
                Ok(text) => text,
                Err(error) => return End::Told(Some(Status::internal(error.to_string()))),
            };
            if self.writer.feed(Message::text(text)).await.is_err() {
                return End::Lost("it could not be written to");
            }
            run += 1;
        }
    }

    /// Says why, and waits a moment for the client to have read it: a connection that is closed with
    /// something unread in it takes what was just sent along.
    async fn close(mut self, status: Option<Status>, unread: oneshot::Receiver<Reader>) {
        let frame = Message::Close(Some(close_frame(status.as_ref())));
        let closing = async {
            // A client that has closed already needs no answer but that, which has been given.
            let _ = self.writer.send(frame).await;
            if let Ok(mut reader) = unread.await {
                while let Some(Ok(_)) = reader.next().await {}
            }
        };
        // Who does not answer has had the time.
        let _ = timeout(CLOSE_WAIT_MAX, closing).await;
    }
}

/// What the client says does not matter, but for its end.
async fn heard_to_end(frames: &mut Option<Frames>) -> Status {
    let Some(frames) = frames else {
        return std::future::pending().await;
    };
    loop {
        match frames.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => return status,
            None => return Status::cancelled("the client closed the socket"),
        }
    }
}

fn close_frame(status: Option<&Status>) -> CloseFrame {
    let code = match status.map(Status::code) {
        None | Some(Code::Ok | Code::Cancelled) => CloseCode::Normal,
        Some(Code::Unavailable) => CloseCode::Away,
        Some(Code::InvalidArgument) => CloseCode::Invalid,
        Some(Code::OutOfRange) => CloseCode::Size,
        Some(Code::Unimplemented) => CloseCode::Unsupported,
        Some(Code::Unauthenticated | Code::PermissionDenied) => CloseCode::Policy,
        Some(_) => CloseCode::Error,
    };
    let reason = match status {
        Some(status) if code != CloseCode::Normal => reason(status.message()),
        _ => String::new(),
    };
    CloseFrame {
        code,
        reason: reason.into(),
    }
}

/// As much of it as fits.
fn reason(text: &str) -> String {
    let mut reason = format!("{CLOSED}, {text}");
    let mut end = REASON_BYTES_MAX.min(reason.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubemq::error::RequestError;

    fn frame(status: Status) -> (u16, String) {
        let frame = close_frame(Some(&status));
        (frame.code.into(), frame.reason.to_string())
    }

    #[test]
    fn a_close_says_why() {
        assert_eq!(
            frame(RequestError::ShuttingDown.status()),
            (
                1001,
                "Error 205: connection was closed by server, Error 409: server is in shutdown mode"
                    .to_owned()
            )
        );
        assert_eq!(frame(Status::invalid_argument("x")).0, 1007);
        assert_eq!(frame(Status::out_of_range("x")).0, 1009);
        assert_eq!(frame(Status::unimplemented("x")).0, 1003);
        assert_eq!(frame(Status::internal("x")).0, 1011);
        let normal = (1000, String::new());
        assert_eq!(frame(Status::cancelled("x")), normal);
        assert_eq!(u16::from(close_frame(None).code), 1000);
    }

    #[test]
    fn a_long_reason_is_cut_where_a_character_ends() {
        let (_, text) = frame(Status::internal("ä".repeat(200)));
        assert!(text.len() <= REASON_BYTES_MAX && text.len() > REASON_BYTES_MAX - 2);
    }
}
