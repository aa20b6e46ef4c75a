//! A producer with as many messages under way as it may have, and how long each was.

use super::body;
use crate::BenchError;
use crate::target::{Family, Outgoing, Producer, Running};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many may be under way while a backlog is made that is not measured.
const FILL_IN_FLIGHT: usize = 4_096;

pub struct Flight {
    producer: Box<dyn Producer>,
    limit: usize,
    batch: usize,
    /// Messages go to the names in turn.
    names: usize,
    next_name: usize,
    body: Bytes,
    outgoing: Vec<Outgoing>,
    under_way: VecDeque<(Instant, usize)>,
    under_way_count: usize,
}

impl Flight {
    pub fn new(producer: Box<dyn Producer>, limit: usize, names: usize, body: Bytes) -> Self {
        let batch = producer.batch(limit).clamp(1, limit);
        Self {
            producer,
            limit,
            batch,
            names,
            next_name: 0,
            body,
            outgoing: Vec::with_capacity(batch),
            under_way: VecDeque::new(),
            under_way_count: 0,
        }
    }

    /// How many messages are sent at a time.
    pub fn batch(&self) -> usize {
        self.batch
    }

    pub fn under_way(&self) -> usize {
        self.under_way_count
    }

    /// Sends as much as may be under way, but no more than `most`; says how many.
    pub async fn fill(&mut self, most: usize) -> Result<usize, BenchError> {
        let mut sent = 0;
        loop {
            let count = self.batch.min(most - sent);
            if count == 0 || self.under_way_count + count > self.limit {
                return Ok(sent);
            }
            self.gather(count);
            self.under_way.push_back((Instant::now(), count));
            self.under_way_count += count;
            self.producer.send(&self.outgoing).await?;
            sent += count;
        }
    }

    fn gather(&mut self, count: usize) {
        self.outgoing.clear();
        for _ in 0..count {
            self.outgoing.push(Outgoing {
                name: self.next_name,
                body: self.body.clone(),
            });
            self.next_name = (self.next_name + 1) % self.names;
        }
    }

    /// Waits until something is acknowledged, and tells how long how many messages took.
    pub async fn acked(&mut self, mut note: impl FnMut(Duration, u64)) -> Result<(), BenchError> {
        let mut left = self.producer.acked().await?;
        let now = Instant::now();
        if left > self.under_way_count {
            return Err(BenchError::Refused {
                doing: "no more than was sent".to_owned(),
                text: format!("{left} acknowledgements of {}", self.under_way_count),
            });
        }
        self.under_way_count -= left;
        while left > 0
            && let Some((sent, count)) = self.under_way.front_mut()
        {
            let taken = left.min(*count);
            note(now - *sent, taken as u64);
            left -= taken;
            *count -= taken;
            if *count == 0 {
                self.under_way.pop_front();
            }
        }
        Ok(())
    }
}

/// Stores messages in one topic until it holds as many, and waits until all are acknowledged.
pub async fn store(
    running: &dyn Running,
    names: &Arc<[String]>,
    message_bytes: usize,
    messages: usize,
) -> Result<(), BenchError> {
    let producer = running.producer(Family::Topics, names.clone()).await?;
    let body = body::filler(message_bytes);
    let mut flight = Flight::new(producer, FILL_IN_FLIGHT, names.len(), body);
    let mut left = messages;
    loop {
        left -= flight.fill(left).await?;
        if flight.under_way() == 0 {
            return Ok(());
        }
        flight.acked(|_, _| {}).await?;
    }
}
