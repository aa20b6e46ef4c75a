//! Signals: messages to whoever listens now. One actor per node matches names to patterns.
//!
//! A listener that does not keep up makes publishers wait for a short while; after that its surplus
//! is dropped, for it alone and counted, and nobody waits for it again until it has caught up.

pub(crate) mod actor;
pub(crate) mod listener;
pub(crate) mod names;
pub(crate) mod subscription;
