//! Processes of the SDKs at a cluster whose nodes, and who themselves, are killed.

mod consumers;
mod ends;
mod majority;
mod noting;
mod polls;
mod readers;
mod requests;
