//! Every node of a cluster asks who calls, whoever leads what is called for.

use flotilla_tests::cluster::{Fleet, Layout, Place};
use flotilla_tests::credentials::{Credentials, Settings};
use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::workdir::WorkDir;

/// Each node asks for as much as its clients can show: 1.1.0 knows neither encryption nor tokens, and 2.4.0 no
/// certificate of its own.
#[test]
fn clients_of_each_node_are_known_by_what_they_can_show_and_keep_to_the_rules() {
    let work = WorkDir::new("secured");
    let addresses = (1..=3).map(|node| Place::Node(node).address().to_string());
    let addresses: Vec<String> = addresses.collect();
    // Clients may expect a name of the server as well.
    let names: Vec<&str> = addresses
        .iter()
        .map(String::as_str)
        .chain(["localhost"])
        .collect();
    let files = Credentials::new(&work, &names);
    // Where the nodes' states are asked for nothing is encrypted.
    let plain_admin = || vec![("FLOTILLA_TLS_ADMIN", "false".to_owned())];
    let mutual = [files.mutual_tls(), plain_admin(), files.tokens()].concat();
    let encrypted = [files.tls(), plain_admin(), files.tokens()].concat();
    let mut fleet = Fleet::new(&work, &Layout::of(3));
    for (number, asked) in [(1, mutual), (2, encrypted), (3, Settings::new())] {
        let node = fleet.node_mut(number);
        for (key, value) in [asked, files.rules()].concat() {
            node.set(key, &value);
        }
        node.start();
    }
    fleet.wait_until_whole();

    let shown = files.environment();
    let run = |sdk, file, number, shown: &Settings| {
        let address = fleet.node(number).kubemq().to_string();
        let environment: Vec<(&str, &str)> = shown
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        run_pytest(sdk, file, &address, &environment);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run(Sdk::V4_1_5, "test_access_new.py", 1, &shown);
            run(Sdk::V3_6_0, "test_access_new.py", 1, &shown);
            run(Sdk::V4_1_5, "test_access_denied.py", 1, &shown);
            run(Sdk::V3_6_0, "test_access_denied.py", 1, &shown);
        });
        run(Sdk::V2_4_0, "test_access_old.py", 2, &shown);
        run(Sdk::V4_1_5, "test_access_tls.py", 2, &shown);
        run(Sdk::V4_1_5, "test_access_async.py", 1, &shown);
        run(Sdk::V1_1_0, "test_access_old.py", 3, &Settings::new());
    });
    fleet.terminate();
}
