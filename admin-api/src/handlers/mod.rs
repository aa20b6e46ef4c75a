//! One file per subject; a handler reads its request, asks the broker and shapes the answer.

pub mod cluster;
pub mod groups;
pub mod health;
pub mod node;
pub mod objects;
pub mod stats;
