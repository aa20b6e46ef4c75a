//! From a path to its call, and the envelope around every answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_TYPE, HeaderValue,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::error::RestError;
use super::wire::{AnswerBody, WhenWritten};
use super::{Rest, call, socket};
use crate::transport::gate::Written;

/// Whoever asks for this is not asked who it is.
pub const PING: &str = "/ping";
/// How long browsers need not ask again whether other sites' pages may call.
const PREFLIGHT_SECONDS: &str = "600";

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Call(Call),
    Socket(Socket),
}

/// A call with one request and one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Ping,
    SendEvent,
    SendRequest,
    SendResponse,
    QueueSend,
    QueueSendBatch,
    QueueReceive,
    QueueAckAll,
    QueueInfo,
}

/// A WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    SubscribeEvents,
    SubscribeRequests,
    SendStream,
    QueueStream,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            PING => Self::Call(Call::Ping),
            "/send/event" => Self::Call(Call::SendEvent),
            "/send/request" => Self::Call(Call::SendRequest),
            "/send/response" => Self::Call(Call::SendResponse),
            "/queue/send" => Self::Call(Call::QueueSend),
            "/queue/send_batch" => Self::Call(Call::QueueSendBatch),
            "/queue/receive" => Self::Call(Call::QueueReceive),
            "/queue/ack_all" => Self::Call(Call::QueueAckAll),
            "/queue/info" => Self::Call(Call::QueueInfo),
            "/subscribe/events" => Self::Socket(Socket::SubscribeEvents),
            "/subscribe/requests" => Self::Socket(Socket::SubscribeRequests),
            "/send/stream" => Self::Socket(Socket::SendStream),
            "/queue/stream" => Self::Socket(Socket::QueueStream),
            _ => return None,
        })
    }

    /// The only method that is possible.
    fn method(self) -> &'static str {
        match self {
            Self::Call(Call::Ping | Call::QueueInfo) | Self::Socket(_) => "GET",
            Self::Call(_) => "POST",
        }
    }
}

/// What a call says when it went well.
pub enum Said {
    /// One answer, in its envelope; and work for when it was written.
    Told(Vec<u8>, Option<Written>),
    /// The connection becomes a WebSocket.
    Upgraded(Response<AnswerBody>),
}

/// Answers a request, whatever it is.
pub async fn answer(
    rest: Arc<Rest>,
    when_written: &WhenWritten,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    if request.method() == Method::OPTIONS {
        return preflight();
    }
    let mut response = match serve(rest, request).await {
        Ok(Said::Upgraded(response)) => response,
        Ok(Said::Told(text, written)) => {
            let body = AnswerBody::new(text).when_written(written, when_written);
            enveloped(StatusCode::OK, body)
        }
        Err(error) => refused(&error),
    };
    allow_all(&mut response);
    response
}

async fn serve(rest: Arc<Rest>, mut request: Request<Incoming>) -> Result<Said, RestError> {
    let path = request.uri().path();
    let route = Route::of(path).ok_or_else(|| RestError::NoRoute {
        path: path.to_owned(),
    })?;
    let allowed = route.method();
    if request.method().as_str() != allowed {
        return Err(RestError::Method {
            method: request.method().to_string(),
            allowed,
        });
    }
    rest.context.lifecycle.admit()?;
    rest.entry.identify(&mut request)?;
    let context = rest.context.of_caller(request.extensions().get());
    match route {
        Route::Call(wanted) => call::answer(&context, &rest.room, wanted, request).await,
        Route::Socket(wanted) => {
            let upgraded = socket::open(&context, &rest.room, wanted, request).await?;
            Ok(Said::Upgraded(upgraded))
        }
    }
}

/// What surrounds every answer.
#[derive(Serialize)]
struct Envelope<'a, D> {
    is_error: bool,
    message: &'a str,
    data: Option<D>,
}

/// An answer that went well, with its data or without.
pub fn envelope<D: Serialize>(data: Option<D>) -> Result<Vec<u8>, RestError> {
    serde_json::to_vec(&Envelope {
        is_error: false,
        message: "OK",
        data,
    })
    .map_err(RestError::Answer)
}

fn refused(error: &RestError) -> Response<AnswerBody> {
    let message = error.to_string();
    let text = serde_json::to_vec(&Envelope::<()> {
        is_error: true,
        message: &message,
        data: None,
    });
    // Texts can always be written as JSON; the status says the most of it.
    let body = AnswerBody::new(text.unwrap_or_default());
    let mut response = enveloped(error.status(), body);
    if let RestError::Method { allowed, .. } = error {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

fn enveloped(status: StatusCode, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a browser is told that asks for the page of another site.
fn preflight() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::new(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    allow_all(&mut response);
    response
}

fn allow_all(response: &mut Response<AnswerBody>) {
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_its_three_keys() {
        let text = |text: Vec<u8>| String::from_utf8(text).unwrap();
        assert_eq!(
            text(envelope(Some(7)).unwrap()),
            r#"{"is_error":false,"message":"OK","data":7}"#
        );
        assert_eq!(
            text(envelope::<()>(None).unwrap()),
            r#"{"is_error":false,"message":"OK","data":null}"#
        );
    }

    #[test]
    fn paths_are_what_they_are_and_nothing_near_them() {
        let sending = Some(Route::Call(Call::QueueSend));
        assert_eq!(Route::of("/queue/send"), sending);
        for path in ["/", "", "/queue/send/", "/Queue/send", "/queue"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
