//! End-to-end tests: daemon.
