//! What comes in before anything of it is read: only members may send much.
//!
//! ```text
//!   names this cluster in its first line --> everything, up to the largest entry
//!   does not                             --> calls, a few at a time, short and soon over
//! ```
//!
//! Messages are put together in memory before anyone sees whom they are from, and entries are large: what
//! strays to this port must not take that much. This is no proof of who asks, and what a caller may do is
//! decided later, by what its first message says of it.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError, http};

use super::identity::LocalIdentity;
use super::links::Links;
use super::server::LinkService;
use super::wire::MESSAGE_BYTES_MAX;
use super::wire::proto::link_server::LinkServer;
use crate::identity::ClusterId;

/// The line in which a caller names its cluster.
const CLUSTER_HEADER: http::HeaderName = http::HeaderName::from_static("flotilla-cluster");
const CALL_PATH: &str = "/flotilla.cluster.v1.Link/Call";
/// Of a message of a stranger: more than a thousand nodes that look for a cluster have to say.
const STRANGER_BYTES_MAX: usize = 1 << 20;
/// Strangers that are answered at a time.
pub(super) const STRANGERS_MAX: usize = 64;
/// A stranger that has not said all by then must not keep others out. Joining takes a few seconds.
const STRANGER_WAIT_MAX: Duration = Duration::from_secs(20);

/// Names the caller's cluster, if it is in one.
pub(super) fn name_cluster(headers: &mut http::HeaderMap, cluster: Option<ClusterId>) {
    let value = cluster.map(|cluster| http::HeaderValue::from_str(&cluster.to_string()));
    // An id is letters and digits, which every header takes.
    if let Some(Ok(value)) = value {
        headers.insert(CLUSTER_HEADER, value);
    }
}

fn names_cluster(headers: &http::HeaderMap, cluster: ClusterId) -> bool {
    let named = headers.get(CLUSTER_HEADER);
    named.is_some_and(|named| named.as_bytes() == cluster.to_string().as_bytes())
}

/// The entrance of one connection.
#[derive(Clone)]
pub(super) struct Doorway {
    links: Links,
    members: LinkServer<LinkService>,
    strangers: LinkServer<LinkService>,
}

impl Doorway {
    pub fn new(links: Links, service: LinkService) -> Self {
        let members = LinkServer::new(service.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self {
            links,
            members,
            strangers: LinkServer::new(service).max_decoding_message_size(STRANGER_BYTES_MAX),
        }
    }
}

/// Why a stranger is not let in.
fn refusal(me: &LocalIdentity) -> Status {
    match me.cluster {
        Some(own) => Status::failed_precondition(format!(
            "this node is of cluster {own}, which the caller does not name"
        )),
        None => Status::unavailable("this node is in no cluster yet"),
    }
}

type Answer = http::Response<Body>;

impl<B> Service<http::Request<B>> for Doorway
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let me = self.links.inner.me.borrow().clone();
        if me
            .cluster
            .is_some_and(|own| names_cluster(request.headers(), own))
        {
            return self.members.call(request);
        }
        if request.uri().path() != CALL_PATH {
            return Box::pin(std::future::ready(Ok(refusal(&me).into_http())));
        }
        let place = self.links.inner.strangers.clone().try_acquire_owned();
        let Ok(place) = place else {
            let full = Status::unavailable("too many ask at this moment");
            return Box::pin(std::future::ready(Ok(full.into_http())));
        };
        let answer = self.strangers.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout(STRANGER_WAIT_MAX, answer).await;
            drop(place);
            let late = |_| Ok(Status::deadline_exceeded("it took too long to ask").into_http());
            answer.unwrap_or_else(late)
        })
    }
}
