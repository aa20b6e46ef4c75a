//! What stands around every call: admission before it, and word of when its answer was written.
//!
//! Messages of an auto-acknowledged receive are removed from their queue only once the answer
//! that holds them was handed to the connection. A unary handler is over before that, so it leaves
//! a [`Written`] hook in its answer, and the gate calls it when the body was taken to its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use super::lifecycle::Lifecycle;

/// Work for the moment when an answer was written. If it never is, the work is dropped undone.
#[derive(Clone)]
pub struct Written(Arc<Mutex<Option<Hook>>>);

type Hook = Box<dyn FnOnce() + Send>;

impl Written {
    /// To be put into the extensions of a response.
    pub fn new(hook: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(hook)))))
    }

    fn take(&self) -> Option<Hook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gate<S> {
    service: S,
    lifecycle: Arc<Lifecycle>,
}

impl<S> Gate<S> {
    /// Puts a gate before a service.
    pub fn new(service: S, lifecycle: Arc<Lifecycle>) -> Self {
        Self { service, lifecycle }
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Gate<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if let Err(refused) = self.lifecycle.admit() {
            let response = refused.status().into_http();
            return Box::pin(async move { Ok(response) });
        }
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            Ok(match response.extensions_mut().remove::<Written>() {
                Some(written) => response.map(|body| {
                    Body::new(WatchedBody {
                        body,
                        hook: written.take(),
                    })
                }),
                None => response,
            })
        })
    }
}

/// A body that calls its hook when it was taken to its end, and that end says success.
///
/// The transport asks for the next frame only after it has sent the one before, so whoever is
/// given the trailers has written the messages.
struct WatchedBody {
    body: Body,
    hook: Option<Hook>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
            && trailers.get("grpc-status").is_some_and(|code| code == "0")
            && let Some(hook) = self.hook.take()
        {
            hook();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        type Error = tonic::Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn watched(code: &'static str) -> (WatchedBody, Arc<AtomicBool>) {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(code));
        let frames = VecDeque::from([
            Frame::data(Bytes::from_static(b"x")),
            Frame::trailers(trailers),
        ]);
        let is_written = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_written);
        let written = Written::new(move || flag.store(true, Ordering::SeqCst));
        let body = WatchedBody {
            body: Body::new(Frames(frames)),
            hook: written.take(),
        };
        (body, is_written)
    }

    fn poll(body: &mut WatchedBody) {
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(body).poll_frame(&mut context);
    }

    #[test]
    fn an_answer_is_written_when_its_end_was_taken_and_not_before() {
        let (mut body, is_written) = watched("0");
        poll(&mut body);
        assert!(!is_written.load(Ordering::SeqCst));
        poll(&mut body);
        assert!(is_written.load(Ordering::SeqCst));
    }

    #[test]
    fn a_failed_or_abandoned_answer_is_never_written() {
        let (mut body, is_written) = watched("13");
        poll(&mut body);
        poll(&mut body);
        drop(body);
        assert!(!is_written.load(Ordering::SeqCst));
        let (mut body, is_written) = watched("0");
        poll(&mut body);
        drop(body);
        assert!(!is_written.load(Ordering::SeqCst));
    }
}
