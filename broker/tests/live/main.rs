//! The broker over a real one-node cluster in a temporary directory.

mod admin;
mod faults;
mod groups;
mod node;
mod publish;
mod queues;
mod restart;
mod signals;
mod topics;
