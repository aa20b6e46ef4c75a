//! What is allowed to be asked and said, and what is noted of it.

use std::sync::Arc;
use std::time::Instant;

use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;
use crate::api::request::{REQUEST_EXTRA_BYTES_MAX, REQUEST_TIMEOUT_MAX, Reply, Request};
use crate::core::Core;
use crate::hub::request::letter::{Contents, Letter};
use crate::hub::request::route::State;

/// Refuses the kinds of names that nobody can serve.
pub(super) fn kind(kind: Kind) -> Result<(), BrokerError> {
    match kind {
        Kind::Request | Kind::Command => Ok(()),
        Kind::Topic | Kind::Queue | Kind::Signal => Err(invalid(format!(
            "a {kind} is not served: it must be a request or a command"
        ))),
    }
}

/// What goes to responders, if the request is in order.
pub(super) fn contents(core: &Core, request: &Request) -> Result<Contents, BrokerError> {
    kind(request.name.kind())?;
    if request.timeout.is_zero() || request.timeout > REQUEST_TIMEOUT_MAX {
        return Err(invalid(format!(
            "the timeout is {:?}, it must be above 0 and at most {REQUEST_TIMEOUT_MAX:?}",
            request.timeout
        )));
    }
    extra("extra bytes", request.extra.len())?;
    let message_bytes = request.message.encoded_len() as u64;
    core.check_size(message_bytes + request.extra.len() as u64)?;
    Ok(Contents::new(
        Arc::clone(&request.name),
        Arc::clone(&request.message),
        request.extra.clone(),
        message_bytes,
    ))
}

/// Refuses a reply that cannot be passed on.
pub(super) fn reply(core: &Core, reply: &Reply) -> Result<(), BrokerError> {
    extra("extra bytes", reply.extra.len())?;
    extra("bytes of an error", reply.error.len())?;
    core.check_size(reply.bytes())
}

fn extra(what: &str, bytes: usize) -> Result<(), BrokerError> {
    if bytes > REQUEST_EXTRA_BYTES_MAX {
        return Err(invalid(format!(
            "there are {bytes} {what}, at most {REQUEST_EXTRA_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

fn invalid(what: String) -> BrokerError {
    BrokerError::InvalidRequest { what }
}

/// Requests of one name in a row, to be noted together.
#[derive(Default)]
pub(super) struct Asked {
    name: Option<Arc<Name>>,
    requests: u64,
    bytes: u64,
    deliveries: u64,
}

impl Asked {
    pub fn count(
        &mut self,
        core: &Core,
        state: &mut State,
        letter: &Letter,
        deliveries: u64,
        now: Instant,
    ) {
        if self.name.as_ref() != Some(&letter.name) {
            self.note(core, state, now);
            self.name = Some(Arc::clone(&letter.name));
        }
        self.requests += 1;
        self.bytes += letter.message.body.len() as u64;
        self.deliveries += deliveries;
    }

    pub fn note(&mut self, core: &Core, state: &mut State, now: Instant) {
        let Self {
            name: Some(name),
            requests,
            bytes,
            deliveries,
        } = std::mem::take(self)
        else {
            return;
        };
        state.names.note(&name, requests, deliveries, now);
        core.metrics.accepted(name.kind(), &name, requests, bytes);
    }
}
