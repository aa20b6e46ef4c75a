//! Long messages of sockets take of the room that there is for bodies.
//!
//! What there is of a message is kept by whoever puts its frames together, who cannot be asked about it. So the
//! connection below counts what it reads: after the first bytes of a message it reads on only with room for the
//! longest one. Who has that room must end the message soon, and keeps what the message takes of it until the next
//! one is asked for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::kubemq::rest::body::{BODY_WAIT_MAX, BodyRoom, Taken};
use crate::kubemq::rest::error::RestError;

/// Bytes of a message that every socket has room for: most messages have fewer.
const FREE_BYTES: usize = 64 * 1024;
/// What surrounds the content of a ping or pong of a client.
const CONTROL_FRAME_BYTES: usize = 6;

/// A connection that reads long messages only with room for them.
pub struct Metered<IO> {
    connection: IO,
    meter: Meter,
}

/// What was read of the message that is under way; clones are the same.
#[derive(Clone)]
pub struct Meter(Arc<Mutex<Metering>>);

struct Metering {
    room: BodyRoom,
    bytes: usize,
    state: State,
}

enum State {
    Without,
    Waiting(BoxFuture<'static, Result<Taken, RestError>>),
    With {
        taken: Taken,
        too_late: Pin<Box<Sleep>>,
    },
}

impl Meter {
    /// Of a connection of which nothing was read.
    pub fn new(room: BodyRoom) -> Self {
        Self(Arc::new(Mutex::new(Metering {
            room,
            bytes: 0,
            state: State::Without,
        })))
    }

    /// A message is whole.
    pub fn message_came(&self) {
        let metering = &mut *self.0.lock();
        if let State::With { taken, .. } = &mut metering.state {
            taken.keep(metering.bytes);
        }
        metering.bytes = 0;
    }

    /// A ping or pong came, which may be between the parts of a message and is none.
    pub fn control_came(&self, content_bytes: usize) {
        let mut metering = self.0.lock();
        let bytes = content_bytes + CONTROL_FRAME_BYTES;
        metering.bytes = metering.bytes.saturating_sub(bytes);
    }

    /// The next message is asked for: that before was worked on.
    pub fn next_is_wanted(&self) {
        let mut metering = self.0.lock();
        if metering.bytes < FREE_BYTES {
            metering.state = State::Without;
        }
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let metering = &mut *self.0.lock();
        if metering.bytes < FREE_BYTES {
            return Poll::Ready(Ok(()));
        }
        loop {
            let failure = match &mut metering.state {
                State::Without => {
                    let room = metering.room.clone();
                    metering.state = State::Waiting(room.take_largest().boxed());
                    continue;
                }
                State::Waiting(room) => match ready!(room.as_mut().poll(context)) {
                    Ok(taken) => {
                        metering.state = State::With {
                            taken,
                            too_late: Box::pin(tokio::time::sleep(BODY_WAIT_MAX)),
                        };
                        continue;
                    }
                    Err(failure) => failure,
                },
                State::With { too_late, .. } => {
                    if too_late.as_mut().poll(context).is_pending() {
                        return Poll::Ready(Ok(()));
                    }
                    RestError::BodyLate {
                        wait_max: BODY_WAIT_MAX,
                    }
                }
            };
            metering.state = State::Without;
            return Poll::Ready(Err(io::Error::other(failure)));
        }
    }
}

impl<IO> Metered<IO> {
    pub fn new(connection: IO, meter: Meter) -> Self {
        Self { connection, meter }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Metered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.meter.poll_room(context))?;
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(context, buffer);
        self.meter.0.lock().bytes += buffer.filled().len() - filled;
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Metered<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::kubemq::rest::config::RestConfig;

    /// Room for so many of the longest messages.
    fn room(messages: usize) -> BodyRoom {
        BodyRoom::new(&RestConfig {
            body_bytes_max: 1 << 20,
            bodies_bytes_max: messages << 20,
            connections_max: 2,
        })
    }

    /// A connection whose client has sent more than every socket has room for.
    async fn with_much_sent(room: &BodyRoom) -> (Metered<DuplexStream>, Meter, DuplexStream) {
        let (mut client, connection) = tokio::io::duplex(1 << 20);
        client.write_all(&vec![7; 2 * FREE_BYTES]).await.unwrap();
        let meter = Meter::new(room.clone());
        (Metered::new(connection, meter.clone()), meter, client)
    }

    #[tokio::test]
    async fn long_messages_wait_for_room_and_give_it_back_when_the_next_is_wanted() {
        let room = room(1);
        let (mut one, meter, _client) = with_much_sent(&room).await;
        let (mut other, _, _other_client) = with_much_sent(&room).await;
        let mut free = vec![0; FREE_BYTES];
        one.read_exact(&mut free).await.unwrap();
        one.read_u8().await.unwrap();
        other.read_exact(&mut free).await.unwrap();
        {
            let rest = other.read_u8();
            tokio::pin!(rest);
            assert!(futures::poll!(rest.as_mut()).is_pending());
            meter.message_came();
            assert!(
                futures::poll!(rest.as_mut()).is_pending(),
                "it is worked on"
            );
            meter.next_is_wanted();
            rest.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_that_came_keeps_the_room_that_it_takes_and_no_more() {
        let room = room(2);
        let mut waiting = Vec::new();
        // Each message has little more than is free, so there is room for a third of any length.
        for _ in 0..3 {
            let (mut connection, meter, client) = with_much_sent(&room).await;
            let mut free = vec![0; FREE_BYTES];
            connection.read_exact(&mut free).await.unwrap();
            connection.read_u8().await.unwrap();
            meter.message_came();
            waiting.push((connection, client));
        }
    }

    #[tokio::test]
    async fn pings_between_the_parts_of_a_message_neither_count_nor_hide_them() {
        let room = room(1);
        let (mut connection, meter, _client) = with_much_sent(&room).await;
        let mut ping = [0; CONTROL_FRAME_BYTES + 4];
        for _ in 0..FREE_BYTES / ping.len() {
            connection.read_exact(&mut ping).await.unwrap();
            meter.control_came(4);
        }
        assert_eq!(meter.0.lock().bytes, 0);
        let mut part = vec![0; FREE_BYTES];
        connection.read_exact(&mut part).await.unwrap();
        meter.control_came(0);
        meter.next_is_wanted();
        assert!(meter.0.lock().bytes > FREE_BYTES / 2);
    }
}
