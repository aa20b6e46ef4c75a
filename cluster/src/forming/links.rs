//! Forming over the node's links.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::runner::Ask;
use super::service::FormingService;
use crate::net::{Links, PeerIdentity, PeerService, ServiceId, Talk};

impl Ask for Links {
    fn ask(
        &self,
        address: String,
        question: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let links = self.clone();
        Box::pin(async move {
            links
                .call_address(&address, ServiceId::FORMING, question, timeout)
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn resolve(&self, seed: String) -> BoxFuture<'static, Result<Vec<String>, String>> {
        Box::pin(async move {
            let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(&seed))
                .await
                .map_err(|_| "its name was not resolved in time".to_owned())?
                .map_err(|error| error.to_string())?;
            Ok(found.map(|address| address.to_string()).collect())
        })
    }
}

/// For the addresses behind a seed's name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

impl PeerService for FormingService {
    fn call(
        &self,
        _from: PeerIdentity,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(self.clone().answer(request))
    }

    fn talk(&self, _from: PeerIdentity, _talk: Talk) -> BoxFuture<'static, ()> {
        // There are only questions: dropping the conversation tells so.
        Box::pin(async {})
    }
}
