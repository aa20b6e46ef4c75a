//! Clients of a node that has lost the majority: their calls fail, none waits for ever, and all go on afterwards.

use crate::noting::{Noting, wait_for_more};
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::Sdk;
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::Calls;
use std::collections::BTreeSet;
use std::time::Duration;

/// Of everything that clients do, before and after.
const DONE: usize = 20;
/// Without a majority. Calls of the SDKs fail within it several times.
const ALONE: Duration = Duration::from_secs(8);
/// What a call may still bring that was under way.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// What clients do all the time, see `load/one_client.py`: what is stored needs a majority.
const KINDS: [&str; 5] = ["A", "G", "E", "C", "Q"];

#[test]
fn clients_of_the_sdks_go_on_when_a_lost_majority_is_back() {
    let work = WorkDir::new("sdk-majority");
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let address = fleet.node(1).kubemq();
    let channel = |sdk: Sdk, way: &str| format!("one-{}{way}", sdk.version());
    let start = |sdk: Sdk, way: &str| {
        let mut options = vec![
            ("--address", address.to_string()),
            ("--channel", channel(sdk, way)),
        ];
        if !way.is_empty() {
            options.push(("--way", way.to_owned()));
        }
        Noting::start(&work, sdk, "one_client.py", &channel(sdk, way), &options)
    };
    let all = [
        (Sdk::V1_1_0, ""),
        (Sdk::V2_4_0, ""),
        (Sdk::V3_6_0, ""),
        (Sdk::V4_1_5, ""),
        (Sdk::V4_1_5, "asynchronous"),
    ];
    let clients = all.map(|(sdk, way)| start(sdk, way));
    let each: Vec<(&[Noting], &str)> = clients
        .iter()
        .flat_map(|client| KINDS.map(|kind| (std::slice::from_ref(client), kind)))
        .collect();
    wait_for_more("everything is done", &fleet, DONE, &each);
    for node in [2, 3] {
        fleet.node_mut(node).kill();
    }
    std::thread::sleep(UNDER_WAY);
    let sent = || clients.each_ref().map(|client| client.lines("A").len());
    let before = sent();
    std::thread::sleep(ALONE);
    assert_eq!(sent(), before, "nothing is acknowledged without a majority");
    for node in [2, 3] {
        fleet.node_mut(node).start();
    }
    fleet.wait_until_whole();
    wait_for_more("everything is done again", &fleet, DONE, &each);
    let calls = Calls::default();
    for ((sdk, way), client) in all.into_iter().zip(clients) {
        let sent: BTreeSet<String> = client.lines("A").into_iter().collect();
        let mut had: BTreeSet<String> = client.finish("G").into_iter().collect();
        loop {
            let left = calls.receive(address, &channel(sdk, way), 1);
            let Some(message) = left.expect("an answer").pop() else {
                break;
            };
            had.insert(String::from_utf8_lossy(&message.body).into_owned());
        }
        let lost: Vec<_> = sent.difference(&had).collect();
        assert!(
            lost.is_empty(),
            "{}{way}: acknowledged and lost: {lost:?}",
            sdk.version()
        );
    }
    fleet.terminate();
}
