//! End-to-end tests: faults.
