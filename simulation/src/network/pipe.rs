//! One direction of a connection: bytes on their way, in order.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::wires::Wires;

/// Bytes on their way and in the buffers of both ends; who writes more waits.
const PIPE_BYTES_MAX: usize = 256 << 10;

pub struct Pipe {
    wires: Wires,
    pub from: u32,
    pub to: u32,
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    /// With the moments of their arrival, which never go back.
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last: Option<Instant>,
    /// The writer has said all, which arrives then.
    end: Option<Instant>,
    is_reset: bool,
    /// One of the ends is without power.
    is_silent: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake_all(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Pipe {
    pub fn new(wires: Wires, from: u32, to: u32) -> Self {
        Self {
            wires,
            from,
            to,
            flow: Mutex::default(),
        }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both ends get an error.
    pub fn reset(&self) {
        let mut flow = self.flow();
        flow.is_reset = true;
        flow.wake_all();
    }

    /// Neither end gets anything any more.
    pub fn silence(&self) {
        self.flow().is_silent = true;
    }

    /// What is on its way arrives then at the earliest.
    pub fn delay_until(&self, moment: Instant) {
        let mut flow = self.flow();
        for (due, _) in &mut flow.pieces {
            *due = (*due).max(moment);
        }
        flow.end = flow.end.map(|due| due.max(moment));
        flow.last = flow.last.map(|due| due.max(moment));
        flow.wake_all();
    }

    /// The moment at which something sent now arrives.
    fn arrival(&self, flow: &Flow) -> Instant {
        let due = Instant::now() + self.wires.lock().latency();
        flow.last.map_or(due, |last| last.max(due))
    }

    fn write(&self, bytes: &[u8], context: &Context<'_>) -> Poll<io::Result<usize>> {
        let piece = self.wires.lock().piece(bytes.len());
        let mut flow = self.flow();
        if flow.is_reset && !flow.is_silent {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let room = PIPE_BYTES_MAX - flow.bytes;
        if room == 0 || flow.is_silent {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let piece = piece.min(room);
        let due = self.arrival(&flow);
        flow.last = Some(due);
        flow.bytes += piece;
        let copied = Bytes::copy_from_slice(&bytes[..piece]);
        flow.pieces.push_back((due, copied));
        if let Some(reader) = flow.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(piece))
    }

    /// Gives out what has arrived. `Err` with the moment to look again at, if one is known.
    fn read(
        &self,
        buffer: &mut ReadBuf<'_>,
        context: &Context<'_>,
    ) -> Result<io::Result<()>, Option<Instant>> {
        let is_cut = self.wires.lock().is_cut(self.from, self.to);
        let mut flow = self.flow();
        if flow.is_silent || is_cut {
            flow.reader = Some(context.waker().clone());
            return Err(None);
        }
        if flow.is_reset {
            return Ok(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let now = Instant::now();
        let mut has_read = false;
        while buffer.remaining() > 0
            && let Some((due, piece)) = flow.pieces.front_mut()
            && *due <= now
        {
            let count = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece[..count]);
            piece.advance(count);
            if piece.is_empty() {
                flow.pieces.pop_front();
            }
            flow.bytes -= count;
            has_read = true;
        }
        if has_read {
            if let Some(writer) = flow.writer.take() {
                writer.wake();
            }
            return Ok(Ok(()));
        }
        let next = match flow.pieces.front() {
            Some((due, _)) => Some(*due),
            None => flow.end,
        };
        if flow.pieces.is_empty() && flow.end.is_some_and(|end| end <= now) {
            return Ok(Ok(()));
        }
        flow.reader = Some(context.waker().clone());
        Err(next)
    }

    fn end(&self) {
        let mut flow = self.flow();
        if flow.end.is_none() {
            let due = self.arrival(&flow);
            flow.end = Some(due);
            if let Some(reader) = flow.reader.take() {
                reader.wake();
            }
        }
    }
}

/// One end of a connection.
pub struct End {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl End {
    pub fn new(incoming: Arc<Pipe>, outgoing: Arc<Pipe>) -> Self {
        Self {
            incoming,
            outgoing,
            alarm: None,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let next = match self.incoming.read(buffer, context) {
                Ok(outcome) => return Poll::Ready(outcome),
                Err(None) => return Poll::Pending,
                Err(Some(next)) => next,
            };
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if alarm.deadline() != next {
                alarm.as_mut().reset(next);
            }
            if alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.write(bytes, context)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.outgoing.end();
        // Nobody reads what the other side still writes.
        self.incoming.reset();
    }
}
