//! The real SDKs against a real server: one test per release and theme, so that they run side by side.
//! What they expect is written in Python, in `tests/sdk`.

use std::path::Path;

use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::server::{Options, Server};
use flotilla_tests::workdir::WorkDir;

/// What `test_routing.py` sends to.
const ROUTES: &str = r#"[{"Key":"audit","Routes":"events_store:audit.log;queues:audit.jobs"}]"#;

fn run(sdk: Sdk, file: &str) {
    let (_work, server) = start();
    let rest = server.kubemq_rest().to_string();
    let admin = server.admin().to_string();
    let environment = [
        ("FLOTILLA_REST_ADDRESS", rest.as_str()),
        ("FLOTILLA_ADMIN_ADDRESS", admin.as_str()),
    ];
    run_pytest(sdk, file, &server.kubemq().to_string(), &environment);
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}

fn start() -> (WorkDir, Server) {
    let work = WorkDir::new("sdk");
    let options = Options::new(&work.join("data"), &work.join("server.log"));
    let server = options
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
        .set("FLOTILLA_KUBEMQ_ROUTES", ROUTES)
        // Every name of a test has its figures.
        .set("FLOTILLA_METRICS_NAMES_MAX", "100000")
        .set("FLOTILLA_LISTEN_KUBEMQ_REST", "127.0.0.1:0")
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    (work, server)
}

#[test]
fn kubemq_1_1_0_events() {
    run(Sdk::V1_1_0, "test_old_events.py");
}

#[test]
fn kubemq_1_1_0_events_store() {
    run(Sdk::V1_1_0, "test_old_store.py");
}

#[test]
fn kubemq_1_1_0_queues() {
    run(Sdk::V1_1_0, "test_old_queues.py");
}

#[test]
fn kubemq_1_1_0_transactions() {
    run(Sdk::V1_1_0, "test_old_transactions.py");
}

#[test]
fn kubemq_2_4_0_events() {
    run(Sdk::V2_4_0, "test_old_events.py");
}

#[test]
fn kubemq_2_4_0_events_store() {
    run(Sdk::V2_4_0, "test_old_store.py");
}

#[test]
fn kubemq_2_4_0_queues() {
    run(Sdk::V2_4_0, "test_old_queues.py");
}

#[test]
fn kubemq_2_4_0_transactions() {
    run(Sdk::V2_4_0, "test_old_transactions.py");
}

#[test]
fn kubemq_1_1_0_requests() {
    run(Sdk::V1_1_0, "test_old_requests.py");
}

#[test]
fn kubemq_2_4_0_requests() {
    run(Sdk::V2_4_0, "test_old_requests.py");
}

#[test]
fn kubemq_3_6_0_requests() {
    run(Sdk::V3_6_0, "test_cq.py");
}

#[test]
fn kubemq_4_1_5_requests() {
    run(Sdk::V4_1_5, "test_cq.py");
}

#[test]
fn kubemq_4_1_5_requests_async_and_raw() {
    run(Sdk::V4_1_5, "test_new_cq.py");
}

#[test]
fn kubemq_3_6_0_channels() {
    run(Sdk::V3_6_0, "test_channels.py");
}

#[test]
fn kubemq_4_1_5_channels() {
    run(Sdk::V4_1_5, "test_channels.py");
}

#[test]
fn kubemq_3_6_0_asynchronous_calls() {
    run(Sdk::V3_6_0, "test_async_calls.py");
}

#[test]
fn kubemq_4_1_5_asynchronous_calls() {
    run(Sdk::V4_1_5, "test_async_calls.py");
}

#[test]
fn kubemq_1_1_0_routing() {
    run(Sdk::V1_1_0, "test_routing.py");
}

#[test]
fn kubemq_2_4_0_routing() {
    run(Sdk::V2_4_0, "test_routing.py");
}

#[test]
fn kubemq_3_6_0_routing() {
    run(Sdk::V3_6_0, "test_routing.py");
}

#[test]
fn kubemq_4_1_5_routing() {
    run(Sdk::V4_1_5, "test_routing.py");
}

#[test]
fn kubemq_3_6_0_basics() {
    run(Sdk::V3_6_0, "test_mid_basics.py");
}

#[test]
fn kubemq_3_6_0_queues() {
    run(Sdk::V3_6_0, "test_mid_queues.py");
}

#[test]
fn kubemq_4_1_5_events() {
    run(Sdk::V4_1_5, "test_new_events.py");
}

#[test]
fn kubemq_4_1_5_events_store() {
    run(Sdk::V4_1_5, "test_new_store.py");
}

#[test]
fn kubemq_4_1_5_queues() {
    run(Sdk::V4_1_5, "test_new_queues.py");
}

#[test]
fn kubemq_4_1_5_async() {
    run(Sdk::V4_1_5, "test_new_async.py");
}

#[test]
fn kubemq_4_1_5_async_queues() {
    run(Sdk::V4_1_5, "test_new_async_queues.py");
}

#[test]
fn kubemq_4_1_5_requeue() {
    run(Sdk::V4_1_5, "test_new_requeue.py");
}

#[test]
fn kubemq_4_1_5_streams() {
    run(Sdk::V4_1_5, "test_new_streams.py");
}

#[test]
fn kubemq_4_1_5_with_rest_and_websocket() {
    run(Sdk::V4_1_5, "test_rest.py");
}

#[test]
fn kubemq_4_1_5_errors() {
    run(Sdk::V4_1_5, "test_new_errors.py");
}

#[test]
fn kubemq_1_1_0_attributes() {
    run(Sdk::V1_1_0, "test_old_attributes.py");
}

#[test]
fn kubemq_1_1_0_pages() {
    run(Sdk::V1_1_0, "test_old_pages.py");
}

#[test]
fn kubemq_1_1_0_large() {
    run(Sdk::V1_1_0, "test_old_large.py");
}

#[test]
fn kubemq_2_4_0_attributes() {
    run(Sdk::V2_4_0, "test_old_attributes.py");
}

#[test]
fn kubemq_2_4_0_pages() {
    run(Sdk::V2_4_0, "test_old_pages.py");
}

#[test]
fn kubemq_2_4_0_large() {
    run(Sdk::V2_4_0, "test_old_large.py");
}

#[test]
fn kubemq_3_6_0_messages() {
    run(Sdk::V3_6_0, "test_mid_messages.py");
}

#[test]
fn kubemq_3_6_0_shared() {
    run(Sdk::V3_6_0, "test_mid_shared.py");
}

#[test]
fn kubemq_3_6_0_large() {
    run(Sdk::V3_6_0, "test_mid_large.py");
}

#[test]
fn kubemq_3_6_0_channels_figures() {
    run(Sdk::V3_6_0, "test_channels_figures.py");
}

#[test]
fn kubemq_4_1_5_channels_figures() {
    run(Sdk::V4_1_5, "test_channels_figures.py");
}

#[test]
fn kubemq_4_1_5_messages() {
    run(Sdk::V4_1_5, "test_new_messages.py");
}

#[test]
fn kubemq_4_1_5_shared() {
    run(Sdk::V4_1_5, "test_new_shared.py");
}

#[test]
fn kubemq_4_1_5_leaving() {
    run(Sdk::V4_1_5, "test_new_leaving.py");
}

#[test]
fn kubemq_4_1_5_answers() {
    run(Sdk::V4_1_5, "test_new_answers.py");
}

#[test]
fn kubemq_4_1_5_exceptions() {
    run(Sdk::V4_1_5, "test_new_exceptions.py");
}

#[test]
fn kubemq_4_1_5_clients() {
    run(Sdk::V4_1_5, "test_new_clients.py");
}

#[test]
fn kubemq_4_1_5_reconnect() {
    run(Sdk::V4_1_5, "test_new_reconnect.py");
}

#[test]
fn kubemq_4_1_5_idle() {
    run(Sdk::V4_1_5, "test_new_idle.py");
}

#[test]
fn kubemq_4_1_5_large() {
    run(Sdk::V4_1_5, "test_new_large.py");
}

#[test]
fn kubemq_4_1_5_large_async() {
    run(Sdk::V4_1_5, "test_new_large_async.py");
}

#[test]
fn kubemq_4_1_5_retention() {
    run(Sdk::V4_1_5, "test_new_retention.py");
}

/// What the README shows is what runs, and it works as written.
#[test]
fn the_first_example_of_the_readme_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let example = root.join("examples/quickstart.py");
    let shown = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let (_, after) = shown.split_once("```python\n").expect("an example");
    let (lines, _) = after.split_once("```").expect("the end of the example");
    let text = std::fs::read_to_string(&example).expect("the example");
    assert!(
        text.contains(lines),
        "the README shows other lines:\n{lines}"
    );

    let (_work, server) = start();
    let output = Sdk::V4_1_5
        .command()
        .arg(example)
        .env("KUBEMQ_ADDRESS", server.kubemq().to_string())
        .output()
        .expect("the example runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    for line in [
        "received resize image 1 sequence 1",
        "left 0",
        "event 1 order 0",
        "event 3 order 2",
    ] {
        assert!(
            printed.contains(line),
            "no {line:?} in:\n{printed}\n{errors}"
        );
    }
}

/// The server is ended by the Python side here, while its streams are open.
#[test]
fn kubemq_4_1_5_shutdown() {
    let (_work, server) = start();
    let pid = server.pid().to_string();
    run_pytest(
        Sdk::V4_1_5,
        "test_new_shutdown.py",
        &server.kubemq().to_string(),
        &[("FLOTILLA_SERVER_PID", &pid)],
    );
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}
