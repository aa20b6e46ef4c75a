//! Where other nodes come in: accepts connections and hands their requests to who answers them.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flotilla_model::ids::NodeId;
use futures::future::{Either, select};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::AbortHandle;
use tonic::{Request, Response, Status, Streaming};

use super::doorway::Doorway;
use super::lane::{
    FRAME_BYTES, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES, SERVER_CONNECTION_WINDOW,
    STREAM_WINDOW, STREAMS_MAX,
};
use super::links::Links;
use super::network::{Listen, Socket};
use super::peers::{PeerIdentity, PeerService, ServiceId};
use super::talk::Talk;
use super::traffic::Counted;
use super::wire::CALL_BYTES_MAX;
use super::wire::proto::link_server::Link;
use super::wire::proto::{
    AppendAnswer, AppendRequest, CallAnswer, CallRequest, Caller, RaftAnswer, RaftRequest,
    SnapshotAnswer, SnapshotPart, TalkFrame,
};

/// Three lanes from each of 1,024 nodes, and as much again for those on their way out.
const CONNECTIONS_MAX: usize = 6 * 1_024;
/// Without file descriptors there is nothing to do but wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that other nodes have opened.
#[derive(Default)]
pub(super) struct Incoming {
    next: u64,
    open: HashMap<u64, Accepted>,
}

struct Accepted {
    /// Known after its first request.
    from: Arc<OnceLock<NodeId>>,
    task: AbortHandle,
}

impl Incoming {
    pub fn cut(&mut self, node: NodeId) {
        for accepted in self.open.values() {
            if accepted.from.get() == Some(&node) {
                accepted.task.abort();
            }
        }
    }

    pub fn cut_all(&mut self) {
        for accepted in self.open.values() {
            accepted.task.abort();
        }
    }
}

/// Takes a connection off the list, however its task ends.
struct Entry {
    links: Links,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.links.inner.incoming.lock().open.remove(&self.number);
    }
}

impl Links {
    /// Answers other nodes until `stop`, then ends their connections.
    pub async fn serve(
        &self,
        listener: &dyn Listen,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut incoming = listener.incoming()?;
        let mut stop = pin!(stop);
        loop {
            let accepted = match select(incoming.next(), stop.as_mut()).await {
                Either::Left((Some(accepted), _)) => accepted,
                Either::Left((None, _)) | Either::Right(_) => break,
            };
            match accepted {
                Ok(socket) => self.accept(socket),
                Err(error) => {
                    tracing::warn!(%error, "a node could not be let in");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.inner.incoming.lock().cut_all();
        Ok(())
    }

    fn accept(&self, socket: Box<dyn Socket>) {
        let from = Arc::new(OnceLock::new());
        let service = LinkService {
            links: self.clone(),
            from: from.clone(),
        };
        let service = Doorway::new(self.clone(), service);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(SERVER_CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_frame_size(FRAME_BYTES)
            .auto_date_header(false)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let stream = TokioIo::new(Counted::new(socket, self.inner.traffic.clone()));
        let connection = builder.serve_connection(stream, TowerToHyperService::new(service));
        // Under the lock, so that the connection cannot end before it is on the list.
        let mut incoming = self.inner.incoming.lock();
        if incoming.open.len() >= CONNECTIONS_MAX {
            tracing::warn!("too many connections from other nodes: one was closed");
            return;
        }
        let number = incoming.next;
        incoming.next += 1;
        let entry = Entry {
            links: self.clone(),
            number,
        };
        let task = self.inner.runtime.spawn(async move {
            let _entry = entry;
            if let Err(error) = connection.await {
                let reason = crate::error::chain(&error);
                tracing::debug!(reason, "a node's connection broke");
            }
        });
        let task = task.abort_handle();
        incoming.open.insert(number, Accepted { from, task });
    }
}

/// Answers on one connection.
#[derive(Clone)]
pub(super) struct LinkService {
    links: Links,
    from: Arc<OnceLock<NodeId>>,
}

impl LinkService {
    fn admit(
        &self,
        caller: Option<Caller>,
        service: Option<ServiceId>,
    ) -> Result<PeerIdentity, Status> {
        let peer = self.links.admit(caller, service)?;
        if peer.node != NodeId(0) {
            self.from.get_or_init(|| peer.node);
        }
        Ok(peer)
    }

    /// Who answers, to a caller that may ask.
    fn service(
        &self,
        caller: Option<Caller>,
        number: u32,
    ) -> Result<(PeerIdentity, Arc<dyn PeerService>), Status> {
        let service = u8::try_from(number)
            .map(ServiceId)
            .map_err(|_| Status::invalid_argument(format!("{number} is no service")))?;
        let peer = self.admit(caller, Some(service))?;
        let answers = self.links.inner.services.read().get(&service).cloned();
        match answers {
            Some(answers) => Ok((peer, answers)),
            None => Err(Status::unavailable(format!(
                "service {number} is not offered here yet"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Link for LinkService {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallAnswer>, Status> {
        let request = request.into_inner();
        let (peer, answers) = self.service(request.caller, request.service)?;
        if request.body.len() > CALL_BYTES_MAX {
            return Err(Status::invalid_argument("the question is too long"));
        }
        // On a task of its own: a caller that gives up must not leave the work half done.
        let answer = self
            .links
            .inner
            .runtime
            .spawn(async move { answers.call(peer, request.body).await })
            .await
            .map_err(|error| Status::unavailable(format!("the service broke off: {error}")))?;
        let answer = match answer {
            Ok(body) if body.len() > CALL_BYTES_MAX => CallAnswer {
                refusal: Some("the answer is too long".to_owned()),
                ..CallAnswer::default()
            },
            Ok(body) => CallAnswer {
                body,
                refusal: None,
            },
            Err(reason) => CallAnswer {
                refusal: Some(reason),
                ..CallAnswer::default()
            },
        };
        Ok(Response::new(answer))
    }

    type TalkStream = BoxStream<'static, Result<TalkFrame, Status>>;

    async fn talk(
        &self,
        request: Request<Streaming<TalkFrame>>,
    ) -> Result<Response<Self::TalkStream>, Status> {
        let mut frames = request.into_inner();
        let opener = opening(frames.message().await?)?;
        let (peer, answers) = self.service(opener.caller, opener.service)?;
        let incoming = frames.map(|frame| Ok(frame?.body)).boxed();
        let (talk, outgoing) = Talk::over(incoming);
        self.links
            .inner
            .runtime
            .spawn(async move { answers.talk(peer, talk).await });
        Ok(Response::new(outgoing.map(Ok).boxed()))
    }

    type RaftStream = BoxStream<'static, Result<RaftAnswer, Status>>;

    async fn raft(
        &self,
        request: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<Self::RaftStream>, Status> {
        let mut requests = request.into_inner();
        let mut first = opening(requests.message().await?)?;
        self.admit(first.caller.take(), None)?;
        Ok(Response::new(self.links.answer_raft(first, requests)))
    }

    type AppendStream = BoxStream<'static, Result<AppendAnswer, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut requests = request.into_inner();
        let door = self.clone();
        // Answered at once: an idle group has no first request for a long time.
        let answers = stream::once(async move {
            let mut first = opening(requests.message().await?)?;
            door.admit(first.caller.take(), None)?;
            door.links.answer_append(first, requests)
        });
        Ok(Response::new(answers.try_flatten().boxed()))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotAnswer, Status>>;

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let mut parts = request.into_inner();
        let mut first = opening(parts.message().await?)?;
        self.admit(first.caller.take(), None)?;
        self.links.answer_snapshot(first, parts).map(Response::new)
    }
}

fn opening<T>(first: Option<T>) -> Result<T, Status> {
    first.ok_or_else(|| Status::invalid_argument("a stream without a beginning"))
}
