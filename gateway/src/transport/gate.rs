//! What stands around every call: admission before it, and word of when its answer was written.
//!
//! Whoever calls is asked here who it is, once for both protocols; handlers find the answer, a
//! [`Caller`](crate::access::Caller), among the extensions of the request.
//!
//! Messages leave their queue, and positions move on, only once the client has let the bytes in
//! that hold them. A handler cannot see that: it is over, or has handed its messages to an encoder.
//! So it marks its answer as [`Written`], and the gate watches the answer's body.
//!
//! The transport asks for a frame when it has given the one before to the connection, which takes a
//! frame as soon as the client's flow control window has room for its first byte. To make "asked
//! for more" mean "the client has room for all before", the watched body gives the last byte of
//! each frame on its own: it goes out only after all bytes before it had room.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flotilla_broker::{AccessRefusal, Broker};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::lifecycle::{Lifecycle, NotServing};
use crate::access::Access;

/// Longest message of the call that everybody may make: nobody's memory is for those who are not asked who they
/// are.
const OPEN_CALL_BYTES_MAX: usize = 1_024;
/// It must be there within this time.
const OPEN_CALL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Marks an answer whose writing matters, for the extensions of a response.
#[derive(Clone)]
pub struct Written(Arc<Mutex<Option<Hook>>>);

/// Work for the moment when an answer was written.
pub type Hook = Box<dyn FnOnce() + Send>;

impl Written {
    /// With work for the moment when all was written. If that never comes, it is dropped undone.
    pub fn then(hook: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(hook)))))
    }

    /// For a stream that takes being asked for more as a sign that all before was written.
    pub fn paced() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The work, for whoever sees the answer being written.
    pub fn take(&self) -> Option<Hook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Who is let through to a service, and when.
pub struct Entry {
    pub lifecycle: Arc<Lifecycle>,
    pub access: Access,
    /// Counts who is not.
    pub broker: Broker,
    /// The path of a call that everybody may make.
    pub open_call: Option<&'static str>,
}

impl Entry {
    /// Finds out who calls, and leaves it with the request.
    pub fn identify<B>(&self, request: &mut http::Request<B>) -> Result<(), Status> {
        if self.access.is_open() || self.is_open_call(request) {
            return Ok(());
        }
        let authorization = request.headers().get(http::header::AUTHORIZATION);
        let caller = self
            .access
            .authenticate(authorization.map(http::HeaderValue::as_bytes))
            .map_err(|error| {
                self.broker.access_refused(AccessRefusal::Unauthenticated);
                Status::unauthenticated(error.to_string())
            })?;
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn is_open_call<B>(&self, request: &http::Request<B>) -> bool {
        self.open_call == Some(request.uri().path())
    }
}

/// The message of a call that everybody may make, before anything else looks at it: whoever reads messages
/// makes room for what their heads announce.
async fn open_call_message(mut body: Body) -> Result<Body, Status> {
    let mut message = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if message.len() + data.len() > OPEN_CALL_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "the message of this call may have at most {OPEN_CALL_BYTES_MAX} bytes"
            )));
        }
        message.extend_from_slice(&data);
    }
    Ok(Body::new(OpenCallMessage(Some(message.freeze()))))
}

/// A body of one frame.
struct OpenCallMessage(Option<Bytes>);

impl HttpBody for OpenCallMessage {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|message| Ok(Frame::data(message))))
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    service: S,
    /// A gate is cloned for each call.
    entry: Arc<Entry>,
    refusal: fn(NotServing) -> Status,
}

impl<S> Gate<S> {
    /// Puts a gate before a service, with what its protocol says when nothing is served.
    pub fn new(service: S, entry: Entry, refusal: fn(NotServing) -> Status) -> Self {
        Self {
            service,
            entry: Arc::new(entry),
            refusal,
        }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let admitted = match self.entry.lifecycle.admit() {
            Ok(()) => self.entry.identify(&mut request),
            Err(not_serving) => Err((self.refusal)(not_serving)),
        };
        if let Err(refused) = admitted {
            let response = refused.into_http();
            return Box::pin(async move { Ok(response) });
        }
        if self.entry.is_open_call(&request) {
            // Always ready: what is generated from the protocol's file waits for nothing.
            let mut service = self.service.clone();
            return Box::pin(async move {
                let (head, body) = request.into_parts();
                let reading = timeout(OPEN_CALL_WAIT_MAX, open_call_message(body)).await;
                let message = reading.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!(
                        "the message of this call did not come within {}s",
                        OPEN_CALL_WAIT_MAX.as_secs()
                    )))
                });
                match message {
                    Ok(message) => service.call(http::Request::from_parts(head, message)).await,
                    Err(refused) => Ok(refused.into_http()),
                }
            });
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            Ok(match response.extensions_mut().remove::<Written>() {
                Some(written) => response.map(|body| {
                    Body::new(WatchedBody {
                        body,
                        last_byte: None,
                        hook: written.take(),
                    })
                }),
                None => response,
            })
        })
    }
}

/// A body that gives the last byte of each frame on its own, and calls its hook when it was taken
/// to its end and that end says success.
struct WatchedBody {
    body: Body,
    last_byte: Option<Bytes>,
    hook: Option<Hook>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(last_byte) = self.last_byte.take() {
            return Poll::Ready(Some(Ok(Frame::data(last_byte))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            return polled;
        };
        let is_success = frame
            .trailers_ref()
            .and_then(|trailers| trailers.get("grpc-status"))
            .is_some_and(|code| code == "0");
        if is_success && let Some(hook) = self.hook.take() {
            hook();
        }
        Poll::Ready(Some(Ok(frame.map_data(|mut data| {
            if data.len() > 1 {
                self.last_byte = Some(data.split_off(data.len() - 1));
            }
            data
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.last_byte.as_ref().map_or(0, Bytes::len) as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use super::*;

    struct Frames(VecDeque<Frame<Bytes>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn watched(code: &'static str) -> (WatchedBody, Arc<AtomicBool>) {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(code));
        let frames = VecDeque::from([
            Frame::data(Bytes::from_static(b"xyz")),
            Frame::trailers(trailers),
        ]);
        let is_written = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_written);
        let written = Written::then(move || flag.store(true, Ordering::SeqCst));
        let body = WatchedBody {
            body: Body::new(Frames(frames)),
            last_byte: None,
            hook: written.take(),
        };
        (body, is_written)
    }

    fn poll(body: &mut WatchedBody) -> Frame<Bytes> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            _ => panic!("there was no frame"),
        }
    }

    fn data(body: &mut WatchedBody) -> Bytes {
        poll(body).into_data().unwrap()
    }

    #[test]
    fn an_answer_is_written_when_its_end_was_taken_and_not_before() {
        let (mut body, is_written) = watched("0");
        assert_eq!(data(&mut body), "xy");
        assert!(!body.is_end_stream());
        assert_eq!(
            data(&mut body),
            "z",
            "the last byte waits for room of its own"
        );
        assert!(!is_written.load(Ordering::SeqCst));
        assert!(poll(&mut body).is_trailers());
        assert!(is_written.load(Ordering::SeqCst));
    }

    #[test]
    fn a_failed_or_abandoned_answer_is_never_written() {
        let (mut body, is_written) = watched("13");
        for _ in 0..3 {
            poll(&mut body);
        }
        drop(body);
        assert!(!is_written.load(Ordering::SeqCst));
        let (mut body, is_written) = watched("0");
        poll(&mut body);
        poll(&mut body);
        drop(body);
        assert!(!is_written.load(Ordering::SeqCst));
    }
}
