//! Streams of what comes without being asked for: plain events, commands and queries.

use std::future::Future;
use std::sync::Arc;

use flotilla_broker::BrokerError;
use flotilla_model::name::Name;
use futures::Stream;
use tonic::Status;

use super::context::Context;
use super::error::RequestError;
use super::protocol::Subscribe;
use crate::access::Action;

/// A live subscription.
pub trait Source: Send + 'static {
    /// What it brings.
    type Arrived: Send;
    /// As the client gets it.
    type Out: Send;

    /// What is there, at least one; waits for it.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Arrived>, BrokerError>> + Send;

    /// Where one was sent to.
    fn name(arrived: &Self::Arrived) -> &Name;

    /// Takes back what the client is not to see.
    fn hide(&self, arrived: Vec<Self::Arrived>);

    /// One as the client gets it.
    fn out(&self, arrived: &Self::Arrived) -> Self::Out;
}

/// What of a subscription to a pattern its client may see. Rules are for channels: one that allows the pattern may
/// not allow every channel which the pattern brings.
pub struct Sight {
    /// `None`: all of it.
    client: Option<String>,
}

impl Sight {
    /// Of who subscribes like this.
    pub fn of(context: &Context, request: &Subscribe) -> Self {
        let is_limited = !context.caller.is_unrestricted() && request.channel.contains(['*', '>']);
        Self {
            client: is_limited.then(|| request.client_id.clone()),
        }
    }

    fn has(&self, context: &Context, name: &Name) -> bool {
        let client = self.client.as_deref();
        client.is_none_or(|client| context.caller.may(client, Action::Read, name))
    }
}

/// One after another as they come, until the end of the server; the transport asks for the next when it
/// has room.
pub fn stream<S: Source>(
    context: Arc<Context>,
    source: S,
    sight: Sight,
) -> impl Stream<Item = Result<S::Out, Status>> + Send {
    let none: std::vec::IntoIter<S::Arrived> = Vec::new().into_iter();
    futures::stream::try_unfold(
        (context, source, sight, none),
        |(context, mut source, sight, mut arrived)| async move {
            loop {
                if let Some(one) = arrived.next() {
                    let out = source.out(&one);
                    return Ok(Some((out, (context, source, sight, arrived))));
                }
                let mut brought = context
                    .until_ending(source.next())
                    .await?
                    .map_err(RequestError::from)?;
                let hidden = brought.extract_if(.., |one| !sight.has(&context, S::name(one)));
                source.hide(hidden.collect());
                arrived = brought.into_iter();
            }
        },
    )
}
