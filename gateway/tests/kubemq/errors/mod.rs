//! The protocol's table of error texts, row by row, as raw requests on every call that can say them.
//!
//! Elsewhere: 129 and 138 take time (`transactions.rs`), 301 too (`requests.rs`), 409 ends the server (`shutdown.rs`). This server has no
//! use for 121, 302, 402 and 405.

mod events;
mod queues;
mod requests;
mod storage;
mod streams;

use tonic::{Code, Status};

const E101: &str = "Error 101: invalid clientID value, cannot be empty";
const E102: &str = "Error 102: invalid channel value, cannot be empty";
const E107: &str = "Error 107: invalid channel value, no wildcards are allowed";
const E108: &str = "Error 108: invalid channel value, no white spaces are allowed";
const E109: &str = "Error 109: invalid set timeout value, cannot be 0 or negative";
const E110: &str = "Error 110: invalid message, cannot be empty";
const E111: &str = "Error 111: invalid subscription type, cannot be undefined or 0";
const E112: &str =
    "Error 112: invalid subscription type start at sequence value, cannot by 0 or negative";
const E113: &str =
    "Error 113: invalid subscription type start at time value, cannot by 0 or negative";
const E114: &str =
    "Error 114: invalid subscription type start at time delta value, cannot by 0 or negative";
const E115: &str = "Error 115: invalid request, cannot be empty";
const E116: &str = "Error 116: invalid cache ttl value, cannot be 0 or negative";
const E117: &str = "Error 117: invalid request id, cannot be empty";
const E118: &str =
    "Error 118: event store parameters were set but subscribe type is not event store";
const E119: &str = "Error 119: invalid channel value, cannot end with `.`";
const E120: &str = "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot";
const E122: &str =
    "Error 122: max messages should be between 1 and max message setting in kubemq config  ";
const E123: &str = "Error 123: cannot ack the current message";
const E124: &str = "Error 124: no active message to ack";
const E125: &str = "Error 125: ack sequence cannot be 0 or negative";
const E126: &str = "Error 126: no active message to send";
const E127: &str =
    "Error 127: invalid visibility time, cannot be negative or exceed setting in kubemq config";
const E128: &str = "Error 128: subscription to queue is already active";
const E130: &str = "Error 130: error during send message to queue";
const E131: &str = "Error 131: invalid queue message";
const E132: &str = "Error 132: invalid stream queue messages request type";
const E133: &str =
    "Error 133: invalid expiration seconds, exceed max expiration seconds setting in kubemq config";
const E134: &str = "Error 134: invalid max received count, cannot be negative or exceed max receive count setting in kubemq config";
const E135: &str =
    "Error 135: invalid delay seconds, exceed max delay seconds setting in kubemq config";
const E136: &str = "Error 136: invalid wait timeout, value cannot be negative or exceed max wait timeout seconds setting in kubemq config";
const E137: &str = "Error 137: no active message to reject";
const E206: &str = "Error 206: invalid request type";
const E207: &str = "Error 207: invalid subscribe type";

/// A text of this server.
const CLIENT_LONG: &str = "the client id has 1025 bytes, at most 1024 are allowed";

/// A client id that is longer than any.
fn long() -> String {
    "c".repeat(1_025)
}

/// What is wrong with channels that are no queues, and what with all of these as queues.
const CHANNELS: [(&str, &str); 8] = [
    ("", E102),
    ("a.", E119),
    ("a *.", E119),
    ("a b", E108),
    ("a\u{2003}b", E108),
    ("a *", E108),
    ("a.*", E107),
    ("a.>", E107),
];

/// A row: what is wrong, and what is said.
type Row<R> = (&'static str, fn(&mut R));

/// Wrong requests of one kind, each with its text.
fn rows<R: Clone>(right: &R, rows: &[Row<R>]) -> Vec<(R, String)> {
    let wrong = |(text, change): &Row<R>| {
        let mut wrong = right.clone();
        change(&mut wrong);
        (wrong, (*text).to_owned())
    };
    rows.iter().map(wrong).collect()
}

fn internal(status: Status) -> String {
    assert_eq!(status.code(), Code::Internal, "{status}");
    status.message().to_owned()
}
