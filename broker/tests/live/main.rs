//! The broker over a real one-node cluster in a temporary directory.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admin;
mod faults;
mod groups;
mod node;
mod publish;
mod queues;
mod receivers;
mod restart;
mod signals;
mod topics;
