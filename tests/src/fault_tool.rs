//! What the fault tests do to a server from outside: fill it, read it, ask it for its state.

use crate::python::{Sdk, run_script};
use crate::server::{Options, Server};
use crate::workdir::WorkDir;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// The size of every message that is sent.
pub const MESSAGE_BYTES: u64 = 4096;

pub fn options(work: &WorkDir, data: &Path) -> Options {
    // Small segments: the messages of a test lie in many of them.
    Options::new(data, &work.join("server.log"))
        .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "1MiB")
        .set("FLOTILLA_STORAGE_RESERVE", "8MiB")
        .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "500ms")
}

pub fn start(options: &Options) -> Server {
    options.start().unwrap_or_else(|error| panic!("{error}"))
}

pub fn stop(server: Server) {
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}

/// Runs a job of `fault_tool.py`.
pub fn tool(server: &Server, job: &str, options: &[(&str, &dyn std::fmt::Display)]) -> Value {
    let address = server.kubemq().to_string();
    let mut arguments = vec![job.to_owned(), "--address".to_owned(), address];
    for (option, value) in options {
        arguments.extend([(*option).to_owned(), value.to_string()]);
    }
    let text = run_script(Sdk::V4_1_5, "fault_tool.py", &arguments);
    serde_json::from_str(&text).expect("the tool prints JSON")
}

/// Sends messages and gives the numbers that were acknowledged, and the refusals.
pub fn fill(
    server: &Server,
    channel: (&str, &str),
    first: u64,
    count: u64,
) -> (Vec<u64>, Vec<String>) {
    let answer = tool(
        server,
        "fill",
        &[
            (channel.0, &channel.1),
            ("--first", &first),
            ("--count", &count),
            ("--size", &MESSAGE_BYTES),
        ],
    );
    let acknowledged = answer["acknowledged"].as_array().expect("a list");
    let errors = answer["errors"].as_array().expect("a list");
    (
        acknowledged.iter().filter_map(Value::as_u64).collect(),
        errors
            .iter()
            .filter_map(|error| error.as_str().map(str::to_owned))
            .collect(),
    )
}

pub fn fill_all(server: &Server, channel: (&str, &str), first: u64, count: u64) {
    let (acknowledged, errors) = fill(server, channel, first, count);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(acknowledged.len() as u64, count);
}

/// The numbers that came, after checking that each is intact and at its place: the message with
/// number N has sequence N.
pub fn numbers_of(answer: &Value) -> BTreeSet<u64> {
    let seen = answer["seen"].as_array().expect("a list");
    let mut numbers = BTreeSet::new();
    for message in seen {
        assert_eq!(
            message["intact"],
            Value::Bool(true),
            "wrong bytes were served: {message}"
        );
        assert_eq!(message["sequence"], message["number"], "{message}");
        let number = message["number"].as_u64().expect("a number");
        assert!(numbers.insert(number), "message {number} came twice");
    }
    numbers
}

pub fn wait_until_accepted(server: &Server, channel: (&str, &str), first: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut number = first;
    loop {
        let (acknowledged, errors) = fill(server, channel, number, 1);
        number += 1;
        if acknowledged.len() == 1 {
            return number;
        }
        assert!(
            Instant::now() < deadline,
            "still refused: {errors:?}\n{}",
            server.log()
        );
    }
}
