//! The native protocol's messages, and a client for it.

#![allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]

tonic::include_proto!("flotilla.v1");
