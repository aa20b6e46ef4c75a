//! Tests of the log as a whole, against its public interface.

mod basics;
mod support;
