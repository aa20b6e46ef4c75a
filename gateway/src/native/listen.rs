//! Listen: signals as they come.

use std::collections::vec_deque::Drain;
use std::sync::Arc;

use flotilla_broker::{Broker, BrokerError, SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::Name;

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
}

impl Feed for Listener {
    type Request = ListenRequest;
    type Response = ListenResponse;
    type Arrived = SignalDelivery;

    const ENDS_WITH_CLIENT: bool = false;

    async fn open(broker: Broker, first: ListenRequest) -> Result<Self, RequestError> {
        let wanted = SubscribeSignals {
            namespace: namespace(&first.namespace).to_owned(),
            pattern: first.pattern,
            group: group(first.group)?,
        };
        let subscription = broker.subscribe_signals(wanted).await?;
        Ok(Self { subscription })
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
        self.subscription.next().await
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
