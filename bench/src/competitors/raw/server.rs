//! The processes that only answer, and how they are talked to over plain TCP.
//!
//! Over TCP a client sends the length of its messages as four bytes, then messages of that length without
//! anything between them; the answer is a number of four bytes whenever whole messages came: how many.

use crate::BenchError;
use crate::competitors::flotilla::{
    CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::protocol::flotilla::bench::echo_server::{self, EchoServer};
use crate::protocol::flotilla::v1::{PublishRequest, PublishResponse};
use crate::target::{Outgoing, Producer};
use async_trait::async_trait;
use bytes::BytesMut;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Request, Response, Status, Streaming};

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;
const ANSWER_BYTES: usize = size_of::<u32>();

/// What a process answers over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Echo {
    Tcp,
    Tonic,
}

impl Echo {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tonic => "tonic",
        }
    }
}

/// Answers at an address until the process is killed.
pub async fn serve(echo: Echo, address: SocketAddr) -> Result<(), BenchError> {
    let doing = format!("serve at {address}");
    match echo {
        Echo::Tcp => {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(BenchError::io(doing.clone()))?;
            serve_tcp(listener).await.map_err(BenchError::io(doing))
        }
        Echo::Tonic => tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX)
            .add_service(EchoServer::new(Answerer))
            .serve(address)
            .await
            .map_err(BenchError::client(doing)),
    }
}

async fn serve_tcp(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away is the end of its run.
            if let Err(error) = count(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

/// Counts the messages of one connection.
async fn count(mut stream: TcpStream) -> io::Result<()> {
    let message_bytes = u64::from(stream.read_u32().await?);
    if message_bytes == 0 {
        return Err(io::Error::other("messages of no length cannot be counted"));
    }
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut bytes = 0;
    loop {
        buffer.clear();
        match stream.read_buf(&mut buffer).await? {
            0 => return Ok(()),
            read => bytes += read as u64,
        }
        let whole = bytes / message_bytes;
        bytes %= message_bytes;
        if whole > 0 {
            stream.write_u32(whole as u32).await?;
        }
    }
}

/// Sends to a process that counts.
pub struct TcpProducer {
    writer: OwnedWriteHalf,
    reader: OwnedReadHalf,
    outgoing: BytesMut,
    /// Bytes of answers; the last one may not be whole.
    answers: BytesMut,
    greeted: bool,
}

impl TcpProducer {
    pub async fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let doing = || BenchError::io(format!("connect to {address}"));
        let stream = TcpStream::connect(address).await.map_err(doing())?;
        stream.set_nodelay(true).map_err(doing())?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            writer,
            reader,
            outgoing: BytesMut::new(),
            answers: BytesMut::new(),
            greeted: false,
        })
    }
}

#[async_trait]
impl Producer for TcpProducer {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / 4).max(1)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        self.outgoing.clear();
        if let Some(first) = messages.first()
            && !self.greeted
        {
            self.greeted = true;
            let message_bytes = first.body.len() as u32;
            self.outgoing
                .extend_from_slice(&message_bytes.to_be_bytes());
        }
        for message in messages {
            self.outgoing.extend_from_slice(&message.body);
        }
        let written = self.writer.write_all(&self.outgoing).await;
        written.map_err(BenchError::io("send"))
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        while self.answers.len() < ANSWER_BYTES {
            let read = self.reader.read_buf(&mut self.answers).await;
            if read.map_err(BenchError::io("read answers"))? == 0 {
                let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(BenchError::io("read answers")(ended));
            }
        }
        let mut count = 0;
        while let Some(answer) = self.answers.first_chunk::<ANSWER_BYTES>() {
            count += u32::from_be_bytes(*answer) as usize;
            let _ = self.answers.split_to(ANSWER_BYTES);
        }
        Ok(count)
    }
}

/// Answers batches as if all their records had been stored.
struct Answerer;

#[async_trait]
impl echo_server::Echo for Answerer {
    type PublishStream = BoxStream<'static, Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        batches: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let mut next_offset = 1;
        let answers = batches.into_inner().map_ok(move |batch| {
            let first = next_offset;
            next_offset += batch.records.len() as u64;
            PublishResponse {
                batch: batch.batch,
                offsets: (first..next_offset).collect(),
                ..PublishResponse::default()
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[tokio::test]
    async fn every_message_over_tcp_is_answered_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(serve_tcp(listener));
        let mut producer = TcpProducer::open(address).await.expect("it answers");
        let message = Outgoing {
            name: 0,
            body: Bytes::from(vec![7; 1_000]),
        };
        let mut left = 0;
        for count in [1, 300, 17] {
            let messages = vec![message.clone(); count];
            producer.send(&messages).await.expect("they are sent");
            left += count;
        }
        while left > 0 {
            left -= producer.acked().await.expect("they are answered");
        }
    }
}
