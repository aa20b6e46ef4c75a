//! The connection below HTTP: it knows when an answer was written, and does not wait for ever to write.
//!
//! Messages that were received leave their queue only once the answer with them was handed to the
//! connection. The body of such an answer arms the connection as it gives its bytes away; the server flushes
//! the connection when all it has was written, and that is the moment.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::transport::gate::{Hook, Written};

/// What is to be done when what was given to a connection is written.
#[derive(Clone, Default)]
pub struct WhenWritten(Arc<Mutex<Option<Hook>>>);

/// A connection.
pub struct Wire<IO> {
    connection: IO,
    when_written: WhenWritten,
    /// A peer that takes nothing for so long is taken for gone.
    write_wait_max: Duration,
    /// Until the connection takes more.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<IO> Wire<IO> {
    /// Over a connection of which nothing was read.
    pub fn new(connection: IO, when_written: WhenWritten, write_wait_max: Duration) -> Self {
        Self {
            connection,
            when_written,
            write_wait_max,
            blocked: None,
        }
    }

    fn in_time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let wait_max = self.write_wait_max;
        let blocked = self
            .blocked
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(wait_max)));
        match blocked.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(context, buffer);
        self.in_time(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(context, buffers);
        self.in_time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(context);
        let flushed = self.in_time(context, flushed);
        if let Poll::Ready(Ok(())) = flushed {
            let hook = self.when_written.0.lock().take();
            if let Some(hook) = hook {
                hook();
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// The body of an answer.
pub struct AnswerBody {
    text: Option<Bytes>,
    written: Option<(Written, WhenWritten)>,
}

impl AnswerBody {
    /// All of it.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self {
            text: (!text.is_empty()).then_some(text),
            written: None,
        }
    }

    /// With work for when it was written to its connection; dropped if it never is.
    pub fn when_written(mut self, written: Option<Written>, on: &WhenWritten) -> Self {
        self.written = written.map(|written| (written, on.clone()));
        self
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let text = self.text.take();
        if text.is_some()
            && let Some((written, on)) = self.written.take()
        {
            *on.0.lock() = written.take();
        }
        Poll::Ready(text.map(|text| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn noticed() -> (Written, Arc<AtomicBool>) {
        let is_written = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_written);
        let written = Written::then(move || flag.store(true, Ordering::SeqCst));
        (written, is_written)
    }

    fn give_away(body: &mut AnswerBody) -> Bytes {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap(),
            _ => panic!("there was no frame"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_written_when_its_connection_was_flushed_and_not_before() {
        let (mut peer, connection) = tokio::io::duplex(4);
        let when_written = WhenWritten::default();
        let wait_max = Duration::from_secs(10);
        let mut wire = Wire::new(connection, when_written.clone(), wait_max);
        let (written, is_written) = noticed();
        let mut body = AnswerBody::new("abcd").when_written(Some(written), &when_written);
        wire.flush().await.unwrap();
        assert_eq!(body.size_hint().exact(), Some(4));
        let text = give_away(&mut body);
        assert!(body.is_end_stream());
        wire.write_all(&text).await.unwrap();
        assert!(!is_written.load(Ordering::SeqCst));
        wire.flush().await.unwrap();
        assert!(is_written.load(Ordering::SeqCst));
        let mut got = [0; 4];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcd");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_took_is_never_written() {
        let when_written = WhenWritten::default();
        let (written, is_written) = noticed();
        let body = AnswerBody::new("abcd").when_written(Some(written), &when_written);
        drop(body);
        let (written, is_written_either) = noticed();
        let mut body = AnswerBody::new("abcd").when_written(Some(written), &when_written);
        give_away(&mut body);
        drop((body, when_written));
        assert!(!is_written.load(Ordering::SeqCst));
        assert!(!is_written_either.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        const READS: usize = 15;
        let (mut peer, connection) = tokio::io::duplex(1);
        let wait_max = Duration::from_secs(1);
        let mut wire = Wire::new(connection, WhenWritten::default(), wait_max);
        let writing = tokio::spawn(async move {
            wire.write_all(&[7; READS]).await.unwrap();
            // One more fits between the two.
            wire.write_all(&[7; 2]).await.unwrap_err().kind()
        });
        for _ in 0..READS {
            tokio::time::sleep(wait_max / 10).await;
            assert_eq!(peer.read_u8().await.unwrap(), 7);
        }
        assert_eq!(writing.await.unwrap(), io::ErrorKind::TimedOut);
    }
}
