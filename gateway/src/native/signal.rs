//! Signal: batches of records for whoever listens now.

use std::future::{Ready, ready};
use std::sync::Arc;

use flotilla_broker::{Broker, BrokerError, Signal};
use flotilla_model::name::Kind;

use super::answer::Answer;
use super::context::Context;
use super::convert::name;
use super::error::RequestError;
use super::pipeline::{Batches, Label};
use super::protocol::{Ack, SignalRequest, SignalResponse};
use crate::access::Action;

/// Batches of signals.
pub struct Signals;

impl Batches for Signals {
    type Request = SignalRequest;
    type Response = SignalResponse;
    type Item = Signal;
    type Stored = ();
    type Pending = Ready<Vec<Result<(), BrokerError>>>;

    const IS_STORED: bool = false;

    fn label(request: &SignalRequest) -> Label {
        Label::of(request.batch, request.ack, &request.records)
    }

    fn take(
        context: &Context,
        request: SignalRequest,
        items: &mut Vec<Signal>,
    ) -> Result<Vec<(u32, RequestError)>, RequestError> {
        let name = name(&request.namespace, Kind::Signal, &request.name)?;
        let name = context.allowed(Action::Write, name)?;
        items.extend(request.records.into_iter().map(|record| Signal {
            name: name.clone(),
            message: Arc::new(context.message(record)),
        }));
        Ok(Vec::new())
    }

    async fn begin(broker: Broker, items: Vec<Signal>) -> Self::Pending {
        ready(broker.signal(items).await)
    }

    fn refused(_: &Self::Pending) -> Vec<(usize, BrokerError)> {
        // All is known at once, and waited for.
        Vec::new()
    }

    fn stored(_: &mut Answer, _: u32, (): &()) {}

    fn response(answer: Answer) -> Option<SignalResponse> {
        let is_wanted = answer.ack != i32::from(Ack::None)
            || answer.error.is_some()
            || !answer.errors.is_empty();
        is_wanted.then_some(SignalResponse {
            batch: answer.batch,
            ack: answer.ack,
            errors: answer.errors,
            error: answer.error,
        })
    }
}
