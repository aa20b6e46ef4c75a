//! Listen: signals as they come.

use std::collections::vec_deque::Drain;
use std::sync::Arc;

use flotilla_broker::{BrokerError, SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::{Kind as NameKind, Name};

use super::context::{Context, Sight};
use super::convert::{group, namespace, record_out};
use super::error::RequestError;
use super::feed::Feed;
use super::frame::message_bytes;
use super::protocol::listen_response::{Kind, Opened};
use super::protocol::{
    ListenRequest, ListenResponse, SignalDelivery as SignalOut, Signals as SignalsOut,
};

/// One who listens.
pub struct Listener {
    subscription: SignalSubscription,
    sight: Sight,
}

impl Feed for Listener {
    type Request = ListenRequest;
    type Response = ListenResponse;
    type Arrived = SignalDelivery;

    const ENDS_WITH_CLIENT: bool = false;

    async fn open(context: Arc<Context>, first: ListenRequest) -> Result<Self, RequestError> {
        let namespace = namespace(&first.namespace);
        let sight = context.allowed_to_follow(NameKind::Signal, namespace, &first.pattern)?;
        let wanted = SubscribeSignals {
            namespace: namespace.to_owned(),
            pattern: first.pattern,
            group: group(first.group)?,
        };
        let subscription = context.broker.subscribe_signals(wanted).await?;
        Ok(Self {
            subscription,
            sight,
        })
    }

    fn opened() -> ListenResponse {
        response(Kind::Opened(Opened {}))
    }

    fn said(&mut self, requests: Vec<ListenRequest>) -> Result<Vec<SignalDelivery>, RequestError> {
        if requests.is_empty() {
            Ok(Vec::new())
        } else {
            Err(RequestError::OpenedTwice)
        }
    }

    async fn next(&mut self) -> Result<Vec<SignalDelivery>, BrokerError> {
        let mut arrived = self.subscription.next().await?;
        arrived.retain(|one| self.sight.has(&one.name));
        Ok(arrived)
    }

    fn bytes(arrived: &SignalDelivery) -> usize {
        message_bytes(&arrived.message) + arrived.name.text().len()
    }

    fn frame(arrived: Drain<'_, SignalDelivery>) -> ListenResponse {
        let mut signals = Vec::with_capacity(arrived.len());
        let mut before: Option<Arc<Name>> = None;
        for one in arrived {
            let is_same = before.as_ref() == Some(&one.name);
            signals.push(SignalOut {
                name: if is_same {
                    String::new()
                } else {
                    one.name.text().to_owned()
                },
                record: Some(record_out(&one.message)),
            });
            before = Some(one.name);
        }
        response(Kind::Signals(SignalsOut { signals }))
    }
}

fn response(kind: Kind) -> ListenResponse {
    ListenResponse { kind: Some(kind) }
}
