//! End-to-end tests: sdk.
