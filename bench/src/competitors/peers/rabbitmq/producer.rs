//! Sending, with confirms.

use super::Session;
use crate::BenchError;
use crate::target::{Outgoing, Producer};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation, PublisherConfirm, Result};
use std::collections::VecDeque;

/// How much is given to the connection together.
const BATCH_MAX: usize = 256;
/// AMQP's mark of a message that is to be stored.
const PERSISTENT: u8 = 2;

pub struct Publisher {
    session: Session,
    queues: Vec<ShortString>,
    confirms: VecDeque<PublisherConfirm>,
}

impl Publisher {
    pub async fn new(session: Session, names: &[String]) -> std::result::Result<Self, BenchError> {
        session
            .channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(BenchError::client("ask for confirms"))?;
        Ok(Self {
            session,
            queues: names.iter().map(|name| name.as_str().into()).collect(),
            confirms: VecDeque::new(),
        })
    }
}

#[async_trait]
impl Producer for Publisher {
    fn batch(&self, in_flight: usize) -> usize {
        (in_flight / 4).clamp(1, BATCH_MAX)
    }

    async fn send(&mut self, messages: &[Outgoing]) -> std::result::Result<(), BenchError> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        // Each one waits until it is written to the socket: given together, they are written together.
        let written = try_join_all(messages.iter().map(|message| {
            self.session.channel.basic_publish(
                ShortString::default(),
                self.queues[message.name].clone(),
                BasicPublishOptions::default(),
                &message.body,
                properties.clone(),
            )
        }))
        .await
        .map_err(BenchError::client("publish"))?;
        self.confirms.extend(written);
        Ok(())
    }

    async fn acked(&mut self) -> std::result::Result<usize, BenchError> {
        let Some(oldest) = self.confirms.front_mut() else {
            return Ok(0);
        };
        let mut confirmation = Some(oldest.await);
        let mut count = 0;
        while let Some(one) = confirmation {
            self.confirms.pop_front();
            check(one)?;
            count += 1;
            let next = self.confirms.front_mut();
            confirmation = next.and_then(|next| next.now_or_never());
        }
        Ok(count)
    }
}

fn check(confirmation: Result<Confirmation>) -> std::result::Result<(), BenchError> {
    match confirmation.map_err(BenchError::client("publish"))? {
        Confirmation::Ack(None) => Ok(()),
        other => Err(BenchError::Refused {
            doing: "a message".to_owned(),
            text: format!("{other:?}"),
        }),
    }
}
