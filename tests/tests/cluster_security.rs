//! Every node of a cluster asks who calls, whoever leads what is called for.

use flotilla_tests::cluster::{Fleet, Layout, Place};
use flotilla_tests::credentials::Credentials;
use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::workdir::WorkDir;

#[test]
fn clients_of_each_node_are_known_by_certificate_and_token_and_keep_to_the_rules() {
    let work = WorkDir::new("secured");
    let addresses = (1..=3).map(|node| Place::Node(node).address().to_string());
    let addresses: Vec<String> = addresses.collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let files = Credentials::new(&work, &addresses);
    // Where the nodes' states are asked for nothing is encrypted.
    let mut layout = Layout::of(3).set("FLOTILLA_TLS_ADMIN", "false");
    for (key, value) in [files.mutual_tls(), files.tokens(), files.rules()].concat() {
        layout = layout.set(key, value);
    }
    let fleet = Fleet::form(&work, &layout);
    let environment = files.environment();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    for (sdk, node) in [(Sdk::V4_1_5, 1), (Sdk::V3_6_0, 2), (Sdk::V4_1_5, 3)] {
        let address = fleet.node(node).kubemq().to_string();
        run_pytest(sdk, "test_access_new.py", &address, &environment);
    }
    fleet.terminate();
}
