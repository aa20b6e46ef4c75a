//! The process: configuration errors, locks, versions, health, a graceful end.

use flotilla_tests::admin;
use flotilla_tests::server::{Options, SHUTDOWN_SECONDS_MAX, Server, free_port, wait};
use flotilla_tests::workdir::WorkDir;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

fn options(work: &WorkDir) -> Options {
    Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
}

fn start(options: &Options) -> Server {
    options.start().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a server that must not start; gives its exit code and what it printed as the error.
fn refusal(options: &Options) -> (i32, String) {
    let mut child = options
        .command()
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server can be run");
    let status = wait(&mut child, Duration::from_secs(20)).expect("waiting for a child");
    if status.is_none() {
        child.kill().expect("a running server can be killed");
    }
    let output = child.wait_with_output().expect("waiting for a child");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = status.unwrap_or_else(|| panic!("the server started:\n{text}"));
    let code = status
        .code()
        .unwrap_or_else(|| panic!("it ended with {status}:\n{text}"));
    assert_ne!(code, 0, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    (code, text)
}

fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not named in:\n{text}");
    }
}

#[test]
fn an_impossible_value_is_refused_with_its_key() {
    for (variable, key, value) in [
        (
            "FLOTILLA_STORAGE_SEGMENT_SIZE",
            "storage.segment_size",
            "12parsecs",
        ),
        ("FLOTILLA_STORAGE_SYNC", "storage.sync", "sometimes"),
        ("FLOTILLA_LISTEN_KUBEMQ", "listen.kubemq", "nowhere"),
        ("FLOTILLA_LOG_FORMAT", "log.format", "poem"),
    ] {
        let work = WorkDir::new("value");
        let (code, text) = refusal(&options(&work).set(variable, value));
        assert_eq!(code, 2, "{text}");
        assert_names(&text, &[key, value]);
    }
}

/// The build that tests run has a variable more than a release, and calls itself what it is.
#[test]
fn a_build_that_can_be_told_to_break_promises_says_so() {
    let work = WorkDir::new("mutation");
    let told = options(&work).set("FLOTILLA_MUTATION", "sync");
    let (code, text) = refusal(&told);
    assert_eq!(code, 2, "{text}");
    assert_names(&text, &["FLOTILLA_MUTATION", "quorum, dedup and lease"]);

    let output = options(&work).program().arg("--version").output();
    let output = output.expect("the program can be run");
    assert_names(&String::from_utf8_lossy(&output.stdout), &["-dev"]);
}

#[test]
fn an_unknown_key_is_refused_wherever_it_comes_from() {
    let work = WorkDir::new("unknown");
    let (code, text) = refusal(&options(&work).set("FLOTILLA_STORAGE_SEGMENT_SISE", "1MiB"));
    assert_eq!(code, 2, "{text}");
    assert_names(&text, &["SEGMENT_SISE"]);

    let file = work.join("config.toml");
    std::fs::write(&file, "[storage]\nsegment_sise = \"1MiB\"\n").expect("a new file");
    let (code, text) = refusal(&options(&work).argument("--config").argument(&file));
    assert_eq!(code, 2, "{text}");
    assert_names(&text, &["storage.segment_sise", "config.toml"]);
}

#[test]
fn a_listener_that_is_not_served_is_refused() {
    let work = WorkDir::new("not-served");
    let (code, text) = refusal(&options(&work).set("FLOTILLA_LISTEN_MESSAGEDB", "127.0.0.1:0"));
    assert_eq!(code, 2, "{text}");
    assert_names(&text, &["listen.messagedb", "not served"]);
}

#[test]
fn a_listener_that_others_can_reach_needs_consent() {
    let work = WorkDir::new("insecure");
    let (code, text) = refusal(&options(&work).set("FLOTILLA_LISTEN_KUBEMQ", "0.0.0.0:0"));
    assert_eq!(code, 2, "{text}");
    assert_names(&text, &["listen.kubemq", "0.0.0.0", "allow_insecure"]);
}

#[test]
fn later_sources_win() {
    let work = WorkDir::new("layers");
    let (file_port, flag_port) = (free_port(), free_port());
    let file = work.join("config.toml");
    std::fs::write(
        &file,
        format!("[listen]\nadmin = \"127.0.0.1:{file_port}\"\n"),
    )
    .expect("a new file");
    // The environment set by `options` wins over the file, a flag over the environment.
    let server = start(
        &options(&work)
            .argument("--config")
            .argument(&file)
            .argument("--kubemq")
            .argument(format!("127.0.0.1:{flag_port}")),
    );
    assert_ne!(server.admin().port(), file_port);
    assert_eq!(server.kubemq().port(), flag_port);
}

#[test]
fn a_port_in_use_is_refused_with_its_key_and_address() {
    let work = WorkDir::new("port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound address").to_string();
    for (variable, key) in [
        ("FLOTILLA_LISTEN_KUBEMQ", "listen.kubemq"),
        ("FLOTILLA_LISTEN_KUBEMQ_REST", "listen.kubemq_rest"),
        ("FLOTILLA_LISTEN_ADMIN", "listen.admin"),
    ] {
        let (_, text) = refusal(&options(&work).set(variable, &address));
        assert_names(&text, &[key, &address]);
    }
}

#[test]
fn a_data_directory_belongs_to_one_process() {
    let work = WorkDir::new("lock");
    let server = start(&options(&work));
    let (_, text) = refusal(&options(&work));
    assert_names(&text, &["in use", &server.pid().to_string()]);
    let (code, _) = admin::get(server.admin(), "/readyz").expect("the admin port");
    assert_eq!(code, 200, "the first one goes on");
    // The lock ends with its process, however that ends.
    server.kill().expect("a running server can be killed");
    start(&options(&work));
}

#[test]
fn a_newer_data_directory_is_refused() {
    let work = WorkDir::new("newer");
    let server = start(&options(&work));
    server.terminate().expect("a graceful end");
    let path = work.join("data").join("node.identity");
    let text = std::fs::read_to_string(&path).expect("the identity of the node");
    let (format, rest) = text.split_once('\n').expect("several lines");
    assert!(["format 2", "format 3"].contains(&format), "{text}");
    std::fs::write(&path, format!("format 999\n{rest}")).expect("a known file");
    let (_, text) = refusal(&options(&work));
    assert_names(&text, &["999", "newer"]);
}

#[test]
fn health_readiness_and_metrics_answer() {
    let work = WorkDir::new("health");
    let server = start(&options(&work));
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/v1/nodes",
        "/api/v1/damage",
        "/health",
        "/ready",
        "/v1/stats/queues",
        "/v1/stats/events_stores",
        "/v1/stats/channels",
        "/v1/stats/clients",
    ] {
        let (code, body) = admin::get(server.admin(), path).expect("the admin port");
        assert_eq!(code, 200, "{path}: {body}");
    }
    let (code, _) = admin::get(server.admin(), "/nothing").expect("the admin port");
    assert_eq!(code, 404);
}

#[test]
fn log_lines_are_json_where_asked_for() {
    let work = WorkDir::new("json");
    let server = start(&options(&work).set("FLOTILLA_LOG_FORMAT", "json"));
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!lines.is_empty(), "{log}");
    for line in lines {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn sigterm_ends_it_in_time_and_frees_everything() {
    let work = WorkDir::new("sigterm");
    let options = options(&work)
        .set(
            "FLOTILLA_LISTEN_KUBEMQ",
            format!("127.0.0.1:{}", free_port()),
        )
        .set(
            "FLOTILLA_LISTEN_ADMIN",
            format!("127.0.0.1:{}", free_port()),
        );
    for _ in 0..3 {
        let server = start(&options);
        let began = std::time::Instant::now();
        let status = server.terminate().expect("a graceful end");
        assert!(status.success(), "the server ended with {status}");
        assert!(began.elapsed() < Duration::from_secs(SHUTDOWN_SECONDS_MAX));
    }
}
