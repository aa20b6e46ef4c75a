//! Receives that acknowledge what they bring, while leaders of their queue are killed. What the answer of a failed one
//! had may be gone, as when a client dies; what an answer had whose leader died before it removed that comes again.

use crate::noting::{Noting, PROGRESS, all, wait_for_more, wait_until};
use flotilla_tests::admin;
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::Sdk;
use flotilla_tests::workdir::WorkDir;
use std::collections::BTreeSet;

const QUEUE: &str = "polled";
const QUEUE_PATH: &str = "/api/v1/queues/polled";
/// Messages of one receive, see `load/puller.py`.
const MESSAGES_MAX: usize = 4;
const DEATHS: usize = 2;

#[test]
fn receives_of_the_sdks_lose_and_repeat_no_more_than_what_was_on_its_way_when_leaders_died() {
    let work = WorkDir::new("sdk-polls");
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let addresses = all(&fleet.kubemq());
    let start = |sdk: Sdk, script: &str, home: usize| {
        let options = [
            ("--address", addresses.clone()),
            ("--home", home.to_string()),
            ("--queue", QUEUE.to_owned()),
        ];
        let name = format!("{script}-{}", sdk.version());
        Noting::start(&work, sdk, script, &name, &options)
    };
    let releases = [Sdk::V1_1_0, Sdk::V2_4_0, Sdk::V3_6_0, Sdk::V4_1_5];
    let sender = [start(Sdk::V2_4_0, "queue_sender.py", 0)];
    let mut home = 0;
    let pullers = releases.map(|sdk| {
        home += 1;
        start(sdk, "puller.py", home)
    });
    let receive = pullers
        .iter()
        .map(|puller| (std::slice::from_ref(puller), "G"));
    let each: Vec<(&[Noting], &str)> = [(sender.as_slice(), "A")]
        .into_iter()
        .chain(receive)
        .collect();
    for _ in 0..DEATHS {
        wait_for_more("messages are taken", &fleet, PROGRESS, &each);
        let leader = fleet.leader_of(QUEUE_PATH);
        fleet.node_mut(leader).kill();
        wait_for_more("messages are taken without a node", &fleet, PROGRESS, &each);
        fleet.restart(leader);
    }
    let [sender] = sender;
    let sent: BTreeSet<String> = sender.finish("A").into_iter().collect();
    wait_until("the queue is empty", &fleet, || {
        let answer = admin::get(fleet.node(1).admin(), QUEUE_PATH);
        let (_, detail) = answer.unwrap_or_default();
        let detail: serde_json::Value = serde_json::from_str(&detail).unwrap_or_default();
        detail["messages"] == 0
    });
    let on_their_way_max = MESSAGES_MAX * pullers.len() * DEATHS;
    let (mut received, mut repeated, mut failures) = (BTreeSet::new(), Vec::new(), 0);
    for puller in pullers {
        failures += puller.lines("F").len();
        for name in puller.finish("G") {
            if !received.insert(name.clone()) {
                repeated.push(name);
            }
        }
    }
    let lost: Vec<&String> = sent.difference(&received).collect();
    println!(
        "{} received, {} of them twice, {failures} failed calls, {} lost",
        received.len(),
        repeated.len(),
        lost.len()
    );
    assert!(
        lost.len() <= MESSAGES_MAX * failures,
        "{failures} failed calls had not so many: {lost:?}"
    );
    assert!(
        repeated.len() <= on_their_way_max,
        "so many were not on their way: {repeated:?}"
    );
    fleet.terminate();
}
