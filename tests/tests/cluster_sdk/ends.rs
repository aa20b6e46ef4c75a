//! The graceful end of one node of a cluster, with streams of an SDK open.

use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::workdir::WorkDir;

#[test]
fn streams_of_the_sdk_end_with_unavailable_when_their_node_ends() {
    let work = WorkDir::new("sdk-ends");
    let fleet = Fleet::form(&work, &Layout::of(3));
    let node = fleet.node(2);
    let server = node.server().expect("a running node");
    let pid = server.pid().to_string();
    run_pytest(
        Sdk::V4_1_5,
        "test_new_shutdown.py",
        &node.kubemq().to_string(),
        &[("FLOTILLA_SERVER_PID", &pid)],
    );
    // Which waits for its end, too.
    fleet.terminate();
}
