//! The broker over real clusters in temporary directories: of one node, and of three.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admin;
mod faults;
mod fleet;
mod groups;
mod leaders;
mod names;
mod node;
mod publish;
mod queues;
mod receivers;
mod requests;
mod requests_afar;
mod requests_bounds;
mod requests_spread;
mod restart;
mod signals;
mod signals_afar;
mod topics;
mod unseen;
