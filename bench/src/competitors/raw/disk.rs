//! Appends what is published to a file, synced before it is acknowledged. A thread takes all that came
//! while the last sync ran: what one sync can carry, it carries.

use crate::BenchError;
use crate::target::{Outgoing, Producer};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::mpsc;

/// Batches that wait for the disk.
const BATCHES_WAITING_MAX: usize = 64;
/// Batches of what may be under way, as the native protocol's driver has them.
const BATCHES_IN_FLIGHT: usize = 4;

pub struct Appender {
    file: File,
    batches: SyncSender<Vec<Bytes>>,
    acked: mpsc::UnboundedReceiver<io::Result<usize>>,
    /// Written and synced by `send` itself.
    done: usize,
}

impl Appender {
    pub fn create(path: &Path) -> Result<Self, BenchError> {
        let doing = || BenchError::io(format!("write {}", path.display()));
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(doing())?;
        let writer = file.try_clone().map_err(doing())?;
        let (batches, waiting) = sync_channel(BATCHES_WAITING_MAX);
        // It holds one number for each batch under way, which the workload bounds.
        let (answers, acked) = mpsc::unbounded_channel();
        std::thread::spawn(move || write_all(writer, &waiting, &answers));
        Ok(Self {
            file,
            batches,
            acked,
            done: 0,
        })
    }
}

/// Writes batches until there is nobody left to send any.
fn write_all(
    mut file: File,
    waiting: &Receiver<Vec<Bytes>>,
    answers: &mpsc::UnboundedSender<io::Result<usize>>,
) {
    while let Ok(mut bodies) = waiting.recv() {
        for more in waiting.try_iter() {
            bodies.extend(more);
        }
        let written = append(&mut file, &bodies).map(|()| bodies.len());
        if answers.send(written).is_err() {
            return;
        }
    }
}

fn append(file: &mut File, bodies: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice> = bodies.iter().map(|body| IoSlice::new(body)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_vectored(left)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut left, written),
        }
    }
    file.sync_data()
}

#[async_trait]
impl Producer for Appender {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / BATCHES_IN_FLIGHT).max(1)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        let bodies: Vec<Bytes> = messages
            .iter()
            .map(|message| message.body.clone())
            .collect();
        if bodies.len() == 1 {
            // One at a time: no other thread is needed, nor the time that waking it takes.
            append(&mut self.file, &bodies).map_err(BenchError::io("append"))?;
            self.done += 1;
            return Ok(());
        }
        let handed_over = self.batches.send(bodies);
        handed_over.map_err(BenchError::client("hand over a batch"))
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        if self.done > 0 {
            return Ok(std::mem::take(&mut self.done));
        }
        let gone = || io::Error::other("the writing thread has ended");
        let written = self.acked.recv().await.ok_or_else(gone);
        let mut count = written
            .and_then(|written| written)
            .map_err(BenchError::io("append"))?;
        while let Ok(written) = self.acked.try_recv() {
            count += written.map_err(BenchError::io("append"))?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_acknowledged_is_in_the_file() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let path = work.path().join("data");
        let mut appender = Appender::create(&path).expect("a new file");
        let message = |body: &'static str| Outgoing {
            name: 0,
            body: Bytes::from_static(body.as_bytes()),
        };
        for messages in [
            vec![message("one,")],
            vec![message("two,"), message("three")],
        ] {
            appender.send(&messages).await.expect("it takes them");
            let mut left = messages.len();
            while left > 0 {
                left -= appender.acked().await.expect("they are written");
            }
        }
        let written = std::fs::read_to_string(&path).expect("the file is there");
        assert_eq!(written, "one,two,three");
    }
}
