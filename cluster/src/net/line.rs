//! The line to a peer: one stream for the small questions of all groups' Rafts.
//!
//! Heartbeats are many: with a stream of its own each would cost several times what is in it. Questions
//! do not wait for each other's answers, and what is asked at the same time leaves in one piece.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

use super::connection::Connection;
use super::peers::PeerError;
use super::wire::proto::{Caller, RaftAnswer, RaftQuestion, RaftRequest};

/// Questions on their way out; each has an asker who waits.
const QUEUE_QUESTIONS: usize = 1_024;

type Answer = Result<Bytes, PeerError>;

/// An open line. It is closed when its connection breaks; then another one is opened.
pub(super) struct Line {
    questions: mpsc::Sender<RaftRequest>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
}

/// Who waits for which answer; `None` once the line is closed.
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>);

impl Waiting {
    fn answer(&self, number: u64, answer: Answer) {
        let asker = self
            .0
            .lock()
            .as_mut()
            .and_then(|waiting| waiting.remove(&number));
        if let Some(asker) = asker {
            // Gone when the answer came too late for it.
            let _ = asker.send(answer);
        }
    }

    fn close(&self, error: &PeerError) {
        for asker in self.0.lock().take().into_iter().flatten() {
            let _ = asker.1.send(Err(error.clone()));
        }
    }
}

/// Forgets an asker that stopped waiting.
struct Place<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.0.lock().as_mut() {
            waiting.remove(&self.number);
        }
    }
}

impl Line {
    /// Opens a line over a connection. The first question tells who asks.
    pub fn open(runtime: &Handle, connection: &Connection, caller: Caller) -> Arc<Self> {
        let (questions, mut queue) = mpsc::channel::<RaftRequest>(QUEUE_QUESTIONS);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let mut caller = Some(caller);
        let outgoing = futures::stream::poll_fn(move |context| {
            queue.poll_recv(context).map(|question| {
                question.map(|question| RaftRequest {
                    caller: caller.take(),
                    ..question
                })
            })
        });
        let mut client = connection.client();
        let answered = waiting.clone();
        runtime.spawn(async move {
            let error = match client.raft(outgoing).await {
                Ok(answers) => hand_out(answers.into_inner(), &answered).await,
                Err(status) => status.into(),
            };
            answered.close(&error);
        });
        Arc::new(Self {
            questions,
            waiting,
            next: AtomicU64::new(0),
        })
    }

    pub fn is_closed(&self) -> bool {
        self.waiting.0.lock().is_none()
    }

    pub async fn ask(&self, group: u32, question: RaftQuestion, body: Bytes) -> Answer {
        let closed = || PeerError::unreachable("the line to the node was closed");
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (asker, answer) = oneshot::channel();
        match self.waiting.0.lock().as_mut() {
            Some(waiting) => waiting.insert(number, asker),
            None => return Err(closed()),
        };
        let _place = Place {
            waiting: &self.waiting,
            number,
        };
        let request = RaftRequest {
            caller: None,
            number,
            group,
            question: question.into(),
            body,
        };
        self.questions.send(request).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Gives answers to who asked, until the stream ends; tells why it did.
async fn hand_out(mut answers: Streaming<RaftAnswer>, waiting: &Waiting) -> PeerError {
    while let Some(answer) = answers.next().await {
        let RaftAnswer {
            number,
            body,
            failure,
        } = match answer {
            Ok(answer) => answer,
            Err(status) => return status.into(),
        };
        let answer = match failure {
            Some(reason) => Err(PeerError::Unreachable { reason }),
            None => Ok(body),
        };
        waiting.answer(number, answer);
    }
    PeerError::unreachable("the node has closed the line")
}
