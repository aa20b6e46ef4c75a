//! Listen: signals as they come.

use std::collections::VecDeque;
use std::sync::Arc;

use flotilla_broker::{SignalDelivery, SignalSubscription, SubscribeSignals};
use flotilla_model::name::Name;
use futures::Stream;
use tonic::Status;

use super::context::{Context, FRAME_BYTES_MAX, ServerEnd};
use super::convert::{namespace, record_out};
use super::error::RequestError;
use super::protocol::listen_response::{Kind, Opened};
use super::protocol::{
    ListenRequest, ListenResponse, SignalDelivery as SignalOut, Signals as SignalsOut,
};
use crate::transport::inbound::{BatchBounds, Ended, Inbound};

/// The only frame of the client, and what would be a second one.
const FRAMES: BatchBounds = BatchBounds {
    count_max: 1,
    bytes_max: usize::MAX,
};

/// Serves one listener.
pub fn stream<S>(
    context: Arc<Context>,
    requests: S,
) -> impl Stream<Item = Result<ListenResponse, Status>> + Send
where
    S: Stream<Item = Result<ListenRequest, Status>> + Send + Unpin,
{
    let listener = Listener {
        server_end: context.server_end(),
        context,
        inbound: Inbound::new(requests),
        subscription: None,
        arrived: VecDeque::new(),
    };
    futures::stream::try_unfold(listener, |mut listener| async move {
        Ok(listener.next().await?.map(|kind| {
            let response = ListenResponse { kind: Some(kind) };
            (response, listener)
        }))
    })
}

struct Listener<S> {
    context: Arc<Context>,
    server_end: ServerEnd,
    inbound: Inbound<S>,
    /// Once the first frame was served.
    subscription: Option<SignalSubscription>,
    /// Taken from the subscription, and not given out.
    arrived: VecDeque<SignalDelivery>,
}

impl<S> Listener<S>
where
    S: Stream<Item = Result<ListenRequest, Status>> + Send + Unpin,
{
    /// `None` if the client ended its side without a frame.
    async fn next(&mut self) -> Result<Option<Kind>, Status> {
        loop {
            if !self.arrived.is_empty() {
                return Ok(Some(Kind::Signals(self.frame())));
            }
            if let Some(Ended::Failed(status)) = self.inbound.ended() {
                return Err(status.clone());
            }
            let Some(subscription) = &mut self.subscription else {
                let Some(subscription) = self.open().await? else {
                    return Ok(None);
                };
                self.subscription = Some(subscription);
                return Ok(Some(Kind::Opened(Opened {})));
            };
            tokio::select! {
                biased;
                error = &mut self.server_end => return Err(error.status()),
                more = self.inbound.next_batch(FRAMES), if self.inbound.ended().is_none() => {
                    if !more.is_empty() {
                        return Err(RequestError::OpenedTwice.status());
                    }
                }
                arrived = subscription.next() => {
                    let arrived = arrived.map_err(|error| RequestError::from(error).status())?;
                    self.arrived = arrived.into();
                }
            }
        }
    }

    /// Serves the only frame; `None` if there is none.
    async fn open(&mut self) -> Result<Option<SignalSubscription>, Status> {
        let opening = async {
            let Some(request) = self.inbound.next_batch(FRAMES).await.pop() else {
                return match self.inbound.ended() {
                    Some(Ended::Failed(status)) => Err(status.clone()),
                    _ => Ok(None),
                };
            };
            let wanted = SubscribeSignals {
                namespace: namespace(&request.namespace).to_owned(),
                pattern: request.pattern,
                group: (!request.group.is_empty()).then_some(request.group),
            };
            let opened = self.context.broker.subscribe_signals(wanted).await;
            opened
                .map(Some)
                .map_err(|error| RequestError::from(error).status())
        };
        tokio::select! {
            error = &mut self.server_end => Err(error.status()),
            opened = opening => opened,
        }
    }

    /// As much of what arrived as a frame should hold, at least one signal.
    fn frame(&mut self) -> SignalsOut {
        let mut signals = Vec::with_capacity(self.arrived.len());
        let mut bytes = 0;
        let mut before: Option<Arc<Name>> = None;
        while bytes < FRAME_BYTES_MAX
            && let Some(arrived) = self.arrived.pop_front()
        {
            let is_same = before.as_ref() == Some(&arrived.name);
            bytes += arrived.message.encoded_len();
            signals.push(SignalOut {
                name: if is_same {
                    String::new()
                } else {
                    arrived.name.text().to_owned()
                },
                record: Some(record_out(&arrived.message)),
            });
            before = Some(arrived.name);
        }
        SignalsOut { signals }
    }
}
