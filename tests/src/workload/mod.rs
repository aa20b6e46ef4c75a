//! Clients that write a history.
