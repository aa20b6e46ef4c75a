//! Streams of what comes without being asked for: plain events, commands and queries.

use std::future::Future;
use std::sync::Arc;

use flotilla_broker::BrokerError;
use futures::Stream;
use tonic::Status;

use super::context::Context;
use super::error::RequestError;

/// A live subscription.
pub trait Source: Send + 'static {
    /// What it brings.
    type Arrived: Send;
    /// As the client gets it.
    type Out: Send;

    /// What is there, at least one; waits for it.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Self::Arrived>, BrokerError>> + Send;

    /// One as the client gets it.
    fn out(&self, arrived: &Self::Arrived) -> Self::Out;
}

/// One after another as they come, until the end of the server; the transport asks for the next when it
/// has room.
pub fn stream<S: Source>(
    context: Arc<Context>,
    source: S,
) -> impl Stream<Item = Result<S::Out, Status>> + Send {
    let none: std::vec::IntoIter<S::Arrived> = Vec::new().into_iter();
    futures::stream::try_unfold(
        (context, source, none),
        |(context, mut source, mut arrived)| async move {
            loop {
                if let Some(one) = arrived.next() {
                    let out = source.out(&one);
                    return Ok(Some((out, (context, source, arrived))));
                }
                arrived = context
                    .until_ending(source.next())
                    .await?
                    .map_err(RequestError::from)?
                    .into_iter();
            }
        },
    )
}
