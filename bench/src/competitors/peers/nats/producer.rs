//! Sending: with an answer for each message, or with none.

use super::subject;
use crate::BenchError;
use crate::competitors::peers::next_ready;
use crate::competitors::peers::pending::Pending;
use crate::target::{Outgoing, Producer};
use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

/// How much is sent before looking for answers.
const BATCH_MAX: usize = 64;

/// Signals.
pub struct Sender {
    client: Client,
    subjects: Vec<Subject>,
}

impl Sender {
    pub fn new(client: Client, names: &[String]) -> Self {
        Self {
            client,
            subjects: subjects(names),
        }
    }
}

#[async_trait]
impl Producer for Sender {
    fn batch(&self, in_flight: usize) -> usize {
        in_flight.clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        for message in messages {
            let subject = self.subjects[message.name].clone();
            self.client
                .publish(subject, message.body.clone())
                .await
                .map_err(BenchError::client("publish"))?;
        }
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        Err(BenchError::NotSupported("acknowledging signals"))
    }
}

/// Messages to streams, and requests: both are answered at the subject that they name for it.
pub struct Asker {
    client: Client,
    subjects: Vec<Subject>,
    inbox: String,
    /// The subject for the answer of each slot.
    replies: Vec<Subject>,
    answers: Subscriber,
    pending: Pending,
}

impl Asker {
    pub async fn new(client: Client, names: &[String]) -> Result<Self, BenchError> {
        let inbox = client.new_inbox();
        let answers = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(BenchError::client("subscribe to the answers"))?;
        Ok(Self {
            client,
            subjects: subjects(names),
            inbox,
            replies: Vec::new(),
            answers,
            pending: Pending::default(),
        })
    }

    fn note(&mut self, answer: &Message) -> Result<(), BenchError> {
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(refused("nobody listens to the subject"));
        }
        if is_error(&answer.payload) {
            return Err(refused(&String::from_utf8_lossy(&answer.payload)));
        }
        let slot = answer
            .subject
            .as_str()
            .rsplit_once('.')
            .and_then(|(_, slot)| slot.parse().ok())
            .ok_or_else(|| refused(&format!("an answer came at {}", answer.subject)))?;
        self.pending.answer(slot)
    }
}

#[async_trait]
impl Producer for Asker {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / 4).clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> Result<(), BenchError> {
        for message in messages {
            let slot = self.pending.push()?;
            while self.replies.len() <= slot {
                let next = format!("{}.{}", self.inbox, self.replies.len());
                self.replies.push(next.into());
            }
            let subject = self.subjects[message.name].clone();
            let reply = self.replies[slot].clone();
            self.client
                .publish_with_reply(subject, reply, message.body.clone())
                .await
                .map_err(BenchError::client("publish"))?;
        }
        Ok(())
    }

    async fn acked(&mut self) -> Result<usize, BenchError> {
        loop {
            let answer = self.answers.next().await;
            let mut answer = Some(answer.ok_or_else(|| refused("the connection was closed"))?);
            while let Some(message) = answer {
                self.note(&message)?;
                answer = next_ready(&mut self.answers);
            }
            match self.pending.take() {
                // Only messages that were sent later are answered.
                0 => {}
                count => return Ok(count),
            }
        }
    }
}

fn subjects(names: &[String]) -> Vec<Subject> {
    names.iter().map(|name| subject(name).into()).collect()
}

fn refused(text: &str) -> BenchError {
    BenchError::Refused {
        doing: "a message".to_owned(),
        text: text.to_owned(),
    }
}

/// Whether a stream refused a message: `{"error":{...},"stream":"...","seq":0}`. What it stored is answered
/// with `{"stream":"...","seq":1}`. The bodies of replies to requests are those of the bench, without this.
fn is_error(payload: &Bytes) -> bool {
    payload.starts_with(b"{\"error\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_message_is_told_from_a_stored_one() {
        assert!(!is_error(&Bytes::from_static(
            b"{\"stream\":\"a\", \"seq\":7}"
        )));
        assert!(is_error(&Bytes::from_static(
            b"{\"error\":{\"code\":503,\"err_code\":10077},\"stream\":\"a\",\"seq\":0}"
        )));
    }
}
