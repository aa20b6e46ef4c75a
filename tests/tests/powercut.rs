//! End-to-end tests: powercut.
