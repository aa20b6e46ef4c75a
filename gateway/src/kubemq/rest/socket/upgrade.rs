//! The opening of a socket.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tonic::Status;
use tracing::debug;

use super::frames::{Frames, Heard};
use super::metered::{Meter, Metered};
use super::pump;
use crate::kubemq::context::Context;
use crate::kubemq::rest::body::BodyRoom;
use crate::kubemq::rest::error::RestError;
use crate::kubemq::rest::json;
use crate::kubemq::rest::wire::AnswerBody;

/// The only version that there is.
const VERSION: &str = "13";
/// What is read at once; it is kept for every socket.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// So much is gathered before it is written.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// What the client of a socket may say at once.
pub struct Utterance {
    pub bytes_max: usize,
    /// Of which the long ones take.
    pub room: BodyRoom,
}

/// A request that can become a socket.
pub struct Upgrade {
    upgraded: OnUpgrade,
    accept: HeaderValue,
}

impl Upgrade {
    /// Refuses a request that cannot.
    pub fn of(request: Request<Incoming>) -> Result<Self, RestError> {
        let headers = request.headers();
        if !has_word(headers, CONNECTION, "upgrade") || !has_word(headers, UPGRADE, "websocket") {
            return Err(RestError::Upgrade {
                what: "the request has no headers \"Connection: Upgrade\" and \"Upgrade: websocket\"",
            });
        }
        if !has_word(headers, SEC_WEBSOCKET_VERSION, VERSION) {
            return Err(RestError::Upgrade {
                what: "the header Sec-WebSocket-Version is not 13",
            });
        }
        let accept = headers
            .get(SEC_WEBSOCKET_KEY)
            .and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok())
            .ok_or(RestError::Upgrade {
                what: "the request has no header Sec-WebSocket-Key",
            })?;
        Ok(Self {
            upgraded: hyper::upgrade::on(request),
            accept,
        })
    }

    /// Opens the socket: `begin` makes the stream of what the client is told from what it says, or gives the
    /// latter back if nobody listens to it.
    pub fn accept<T, S>(
        self,
        context: Arc<Context>,
        utterance: Utterance,
        begin: impl FnOnce(Frames) -> (S, Option<Frames>) + Send + 'static,
    ) -> Response<AnswerBody>
    where
        T: json::Value + Send,
        S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    {
        let lifecycle = Arc::clone(&context.lifecycle);
        let upgraded = self.upgraded;
        lifecycle.spawn(async move {
            let Utterance { bytes_max, room } = utterance;
            let connection = match upgraded.await {
                Ok(connection) => TokioIo::new(connection),
                Err(error) => return debug!(%error, "a socket was not opened"),
            };
            let meter = Meter::new(room);
            let connection = Metered::new(connection, meter.clone());
            let settings = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .write_buffer_size(WRITE_BUFFER_BYTES)
                .max_message_size(Some(bytes_max))
                .max_frame_size(Some(bytes_max));
            let socket =
                WebSocketStream::from_raw_socket(connection, Role::Server, Some(settings)).await;
            let (writer, reader) = socket.split();
            let heard = Heard::now();
            let (frames, unread) = Frames::new(reader, heard.clone(), meter);
            let (told, frames) = begin(frames);
            pump::Pump::new(writer, heard, &context.config)
                .run(told, frames, unread)
                .await;
        });
        let mut response = Response::new(AnswerBody::new(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        response
    }
}

/// Whether a header that is a list has a word.
fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_lists_are_found_in_any_case_and_place() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("keep-alive, UpGrade"));
        headers.append(UPGRADE, HeaderValue::from_static("h2c"));
        headers.append(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(has_word(&headers, CONNECTION, "upgrade"));
        assert!(has_word(&headers, UPGRADE, "websocket"));
        assert!(!has_word(&headers, UPGRADE, "web"));
        assert!(!has_word(&headers, SEC_WEBSOCKET_VERSION, VERSION));
    }
}
