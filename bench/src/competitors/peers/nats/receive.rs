//! Listening to signals, and answering requests.

use super::subject;
use crate::BenchError;
use crate::competitors::peers::next_ready;
use crate::target::{Consumer, Responder};
use async_nats::{Client, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::time::{Duration, Instant};

/// How long all nodes may take to learn of a subscription.
const REACHABLE_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked whether they have.
const PROBE: Duration = Duration::from_millis(10);

pub struct Listener {
    subscriber: Subscriber,
    presence: Presence,
}

impl Listener {
    pub async fn new(client: Client, name: &str) -> Result<Self, BenchError> {
        Ok(Self {
            subscriber: subscribe(&client, name).await?,
            presence: Presence::new(client).await?,
        })
    }

    /// Waits until what the other connection sends from now on is received.
    pub async fn wait_reachable(&self, other: Client) -> Result<(), BenchError> {
        self.presence.wait_reachable(other).await
    }
}

#[async_trait]
impl Consumer for Listener {
    async fn next(&mut self, bodies: &mut Vec<Bytes>) -> Result<(), BenchError> {
        let mut message = Some(self.subscriber.next().await.ok_or_else(closed)?);
        while let Some(one) = message {
            bodies.push(one.payload);
            message = next_ready(&mut self.subscriber);
        }
        Ok(())
    }

    async fn ack(&mut self) -> Result<(), BenchError> {
        Ok(())
    }
}

pub struct Replier {
    client: Client,
    subscriber: Subscriber,
    presence: Presence,
}

impl Replier {
    pub async fn new(client: Client, name: &str) -> Result<Self, BenchError> {
        Ok(Self {
            subscriber: subscribe(&client, name).await?,
            presence: Presence::new(client.clone()).await?,
            client,
        })
    }

    /// Waits until what the other connection asks from now on is answered.
    pub async fn wait_reachable(&self, other: Client) -> Result<(), BenchError> {
        self.presence.wait_reachable(other).await
    }
}

#[async_trait]
impl Responder for Replier {
    async fn serve(&mut self) -> Result<(), BenchError> {
        loop {
            let request = self.subscriber.next().await.ok_or_else(closed)?;
            if let Some(reply) = request.reply {
                self.client
                    .publish(reply, request.payload)
                    .await
                    .map_err(BenchError::client("reply"))?;
            }
        }
    }
}

/// Another subscription of the same connection, made later. A server tells the others of subscriptions in
/// their order: who can reach this one can reach those before it.
struct Presence {
    subject: String,
    _answering: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Presence {
    async fn new(client: Client) -> Result<Self, BenchError> {
        let subject = client.new_inbox();
        let mut asked = client
            .subscribe(subject.clone())
            .await
            .map_err(BenchError::client("subscribe"))?;
        let answering = tokio::spawn(async move {
            while let Some(request) = asked.next().await {
                if let Some(reply) = request.reply {
                    // Who asked asks again if the connection is gone.
                    let _ = client.publish(reply, Bytes::new()).await;
                }
            }
        });
        Ok(Self {
            subject,
            _answering: AbortOnDrop(answering),
        })
    }

    async fn wait_reachable(&self, other: Client) -> Result<(), BenchError> {
        let deadline = Instant::now() + REACHABLE_LIMIT;
        loop {
            match other.request(self.subject.clone(), Bytes::new()).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(BenchError::client("reach a subscription")(error));
                }
                Err(_) => tokio::time::sleep(PROBE).await,
            }
        }
    }
}

async fn subscribe(client: &Client, name: &str) -> Result<Subscriber, BenchError> {
    client
        .subscribe(subject(name))
        .await
        .map_err(BenchError::client("subscribe"))
}

fn closed() -> BenchError {
    BenchError::Refused {
        doing: "a subscription".to_owned(),
        text: "the connection was closed".to_owned(),
    }
}
