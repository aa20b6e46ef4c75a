//! Readers of stored events while leaders of their topic, and their own nodes, are killed.

use crate::noting::{Noting, wait_until};
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::{Sdk, run_script};
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::{Calls, until_ok};
use std::time::Duration;

const TOPIC: &str = "read";
const TOPIC_PATH: &str = "/api/v1/topics/read";
/// Between two deaths.
const EVENTS: u64 = 20;
/// For an event to be taken beside a death, which costs a few seconds.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Events that are stored one after another, however often that has to be tried.
struct Stored {
    calls: Calls,
    count: u64,
}

impl Stored {
    fn add(&mut self, fleet: &Fleet, number: u32) {
        for _ in 0..EVENTS {
            self.count += 1;
            let body = self.count.to_string();
            until_ok("an event is stored", TAKEN_WITHIN, || {
                let node = fleet.node(number).kubemq();
                self.calls.send_event(node, TOPIC, &body, true)
            });
        }
    }
}

/// Each reader stays on its node, which is not the topic's leader first.
#[test]
fn subscriptions_of_the_sdks_go_on_when_leaders_of_their_topic_and_their_own_nodes_die() {
    let work = WorkDir::new("sdk-readers");
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let mut stored = Stored {
        calls: Calls::default(),
        count: 0,
    };
    stored.add(&fleet, 1);
    let first_leader = fleet.leader_of(TOPIC_PATH);
    let others: Vec<u32> = (1..=3).filter(|node| *node != first_leader).collect();
    let start = |sdk: Sdk, node: u32| {
        let options = [
            ("--address", fleet.node(node).kubemq().to_string()),
            ("--channel", TOPIC.to_owned()),
            ("--name", format!("live-{}", sdk.version())),
        ];
        let name = format!("reader-{}", sdk.version());
        Noting::start(&work, sdk, "live_reader.py", &name, &options)
    };
    let readers = [start(Sdk::V3_6_0, others[0]), start(Sdk::V4_1_5, others[1])];
    let all_have = |fleet: &Fleet, count: u64| {
        let last = count.to_string();
        wait_until("each reader has the last event", fleet, || {
            readers
                .iter()
                .all(|reader| reader.lines("R").contains(&last))
        });
    };
    all_have(&fleet, stored.count);
    // The leader dies under both of them, then the node of one of them, which leads by then or does not.
    for (dies, stays) in [(first_leader, others[0]), (others[0], others[1])] {
        fleet.node_mut(dies).kill();
        stored.add(&fleet, stays);
        if dies == first_leader {
            all_have(&fleet, stored.count);
        }
        fleet.restart(dies);
        stored.add(&fleet, stays);
        all_have(&fleet, stored.count);
    }
    for reader in readers {
        let mut last = 0;
        // Some may come again where a connection broke; none is left out, and none comes before those before it.
        for sequence in reader.finish("R") {
            let sequence: u64 = sequence.parse().expect("a sequence");
            assert!(sequence <= last + 1, "{sequence} came after {last}");
            last = last.max(sequence);
        }
        assert_eq!(last, stored.count);
    }
    fleet.terminate();
}

/// Under the names they always have, at another node each time.
#[test]
fn known_clients_of_the_sdks_go_on_where_they_were_when_leaders_have_died() {
    let work = WorkDir::new("sdk-known");
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let releases = [Sdk::V1_1_0, Sdk::V2_4_0, Sdk::V3_6_0, Sdk::V4_1_5];
    for round in 0..3 {
        let node = u32::try_from(round).expect("a small number") + 1;
        let address = fleet.node(node).kubemq().to_string();
        for sdk in releases {
            let channel = format!("known-{}", sdk.version());
            let options = [
                ("--address", address.clone()),
                ("--channel", channel.clone()),
                ("--round", round.to_string()),
                ("--count", EVENTS.to_string()),
            ];
            let arguments: Vec<String> = options
                .into_iter()
                .flat_map(|(option, value)| [option.to_owned(), value])
                .collect();
            let printed = run_script(sdk, "known_reader.py", &arguments);
            let expected: Vec<String> = (round * EVENTS + 1..=(round + 1) * EVENTS)
                .map(|sequence| sequence.to_string())
                .collect();
            let read: Vec<&str> = printed.split_whitespace().collect();
            assert_eq!(read, expected, "{} in round {round}", sdk.version());
        }
        let leader = fleet.leader_of("/api/v1/topics/known-1.1.0");
        fleet.node_mut(leader).kill();
        fleet.restart(leader);
    }
    fleet.terminate();
}
