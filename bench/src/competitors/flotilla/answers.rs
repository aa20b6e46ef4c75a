//! What a server answers on a stream.
//!
//! A server may withhold the head of its answer until there is a first answer, so the call is made beside
//! the sending, and nobody waits for it before something was sent.

use crate::BenchError;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use tonic::{Response, Status, Streaming};

pub struct Answers<T> {
    what: &'static str,
    state: State<T>,
}

enum State<T> {
    Opening(JoinHandle<Result<Response<Streaming<T>>, Status>>),
    Open(Box<Streaming<T>>),
}

impl<T: Send + 'static> Answers<T> {
    /// Makes a call. `what` is what is done on the stream, for errors.
    pub fn of(
        what: &'static str,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    ) -> Self {
        Self {
            what,
            state: State::Opening(tokio::spawn(call)),
        }
    }

    /// Waits for the head of the answer.
    pub async fn opened(&mut self) -> Result<&mut Streaming<T>, BenchError> {
        if let State::Opening(call) = &mut self.state {
            let answer = call.await.map_err(BenchError::client(self.what))?;
            let answer = answer.map_err(BenchError::client(self.what))?;
            self.state = State::Open(Box::new(answer.into_inner()));
        }
        match &mut self.state {
            State::Open(stream) => Ok(stream),
            State::Opening(_) => Err(ended(self.what)),
        }
    }

    /// Waits for the next answer; the end of the stream is an error. Nothing is lost if it is dropped and
    /// called again.
    pub async fn next(&mut self) -> Result<T, BenchError> {
        let what = self.what;
        match self.opened().await?.next().await {
            Some(answer) => answer.map_err(BenchError::client(what)),
            None => Err(ended(what)),
        }
    }

    /// The next answer if it is there already.
    pub fn ready(&mut self) -> Result<Option<T>, BenchError> {
        self.next().now_or_never().transpose()
    }
}

/// For a stream that takes or gives no more frames; why, its last answer tells.
pub fn ended(what: &'static str) -> BenchError {
    BenchError::Refused {
        doing: what.to_owned(),
        text: "the stream has ended".to_owned(),
    }
}
