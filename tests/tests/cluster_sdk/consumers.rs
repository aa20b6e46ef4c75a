//! Consumers that acknowledge, give back and move messages while leaders of their queue are killed.

use crate::noting::{Noting, PROGRESS, all, wait_for_more, wait_until};
use flotilla_tests::admin;
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::Sdk;
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const QUEUE: &str = "worked";
const QUEUE_PATH: &str = "/api/v1/queues/worked";
/// Of the queue into which some of the workers move messages: it is in another shard.
const OTHER_PATH: &str = "/api/v1/queues/worked-2";
/// For a message. The new SDKs give up half a second later, and what comes then stays with them: the longer
/// they wait, the more seldom it comes to that.
const WAIT: Duration = Duration::from_secs(1);

/// How long somebody had a message: see `load/transactions.py`.
#[derive(Debug)]
struct Hold {
    queue: String,
    from: u64,
    until: u64,
    how: How,
    confirmed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Acked,
    GivenBack,
    Moved,
}

impl Hold {
    /// Whether the same message may be held like that later on.
    fn allows(&self, later: &Self) -> bool {
        let left_the_queue = self.confirmed > 0;
        let is_there_still = later.queue == self.queue;
        match self.how {
            How::Acked => is_there_still && !left_the_queue,
            How::GivenBack => is_there_still,
            How::Moved => !(is_there_still && left_the_queue),
        }
    }
}

fn holds(lines: &[String]) -> BTreeMap<String, Vec<Hold>> {
    let mut holds: BTreeMap<String, Vec<Hold>> = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, queue, from, until, how, confirmed] = words[..] else {
            panic!("a line of six words: {line:?}");
        };
        let how = match how {
            "ack" => How::Acked,
            "back" => How::GivenBack,
            "move" => How::Moved,
            _ => panic!("settled in one of three ways: {line:?}"),
        };
        let moment = |text: &str| text.parse().expect("a moment");
        holds.entry(name.to_owned()).or_default().push(Hold {
            queue: queue.to_owned(),
            from: moment(from),
            until: moment(until),
            how,
            confirmed: moment(confirmed),
        });
    }
    for holds in holds.values_mut() {
        holds.sort_unstable_by_key(|hold| hold.from);
    }
    holds
}

/// Those that nobody acknowledged in the end.
fn lost<'a>(sent: &'a BTreeSet<String>, holds: &BTreeMap<String, Vec<Hold>>) -> Vec<&'a String> {
    let is_lost = |name: &&String| {
        let last = holds.get(*name).and_then(|holds| holds.last());
        last.is_none_or(|last| last.how != How::Acked)
    };
    sent.iter().filter(is_lost).collect()
}

#[test]
fn consumers_of_the_sdks_lose_and_double_nothing_while_leaders_of_their_queue_are_killed() {
    let work = WorkDir::new("sdk-leader");
    // A receive of several messages that waits for the last of them to the end of its time comes too late for the
    // SDKs now and then, and what it brought is held.
    let layout = Layout::of(3).set("FLOTILLA_KUBEMQ_RECEIVE_LINGER", "0ms");
    let mut fleet = Fleet::form(&work, &layout);
    let addresses = all(&fleet.kubemq());
    let start = |sdk: Sdk, script: &str, home: usize, more: &[(&'static str, String)]| {
        let mut options = vec![
            ("--address", addresses.clone()),
            ("--home", home.to_string()),
            ("--queue", QUEUE.to_owned()),
        ];
        options.extend_from_slice(more);
        let name = format!("{script}-{}-{home}", sdk.version());
        Noting::start(&work, sdk, script, &name, &options)
    };
    let send = |sdk, home| start(sdk, "queue_sender.py", home, &[]);
    let transact = |sdk, home| start(sdk, "transactions.py", home, &[]);
    let wait = seed::stretched(WAIT).as_secs().to_string();
    let work_with = |client: &str, sdk, home| {
        let options = [("--wait", wait.clone()), ("--client", client.to_owned())];
        start(sdk, "queue_worker.py", home, &options)
    };
    // The name of a message is that of its sender's home, counted on.
    let senders = [
        send(Sdk::V1_1_0, 0),
        send(Sdk::V2_4_0, 1),
        send(Sdk::V3_6_0, 2),
        send(Sdk::V4_1_5, 3),
    ];
    let workers = [
        vec![transact(Sdk::V1_1_0, 0)],
        vec![transact(Sdk::V2_4_0, 1)],
        // One of them is not at the leader, and stays when that is killed.
        vec![
            work_with("synchronous", Sdk::V3_6_0, 1),
            work_with("synchronous", Sdk::V3_6_0, 2),
        ],
        vec![work_with("synchronous", Sdk::V4_1_5, 2)],
        vec![work_with("asynchronous", Sdk::V4_1_5, 0)],
    ];
    let each: Vec<(&[Noting], &str)> = senders
        .iter()
        .map(|sender| (std::slice::from_ref(sender), "A"))
        .chain(workers.iter().map(|workers| (workers.as_slice(), "H")))
        .collect();
    for _ in 0..2 {
        wait_for_more("all work", &fleet, PROGRESS, &each);
        let leader = fleet.leader_of(QUEUE_PATH);
        fleet.node_mut(leader).kill();
        wait_for_more("all work without a node", &fleet, PROGRESS, &each);
        fleet.restart(leader);
    }
    let sent: BTreeSet<String> = senders
        .into_iter()
        .flat_map(|one| one.finish("A"))
        .collect();
    // What is moved may be on its way from one to the other.
    wait_until("each message is acknowledged", &fleet, || {
        let is_empty = |path| {
            let answer = admin::get(fleet.node(1).admin(), path);
            let (_, detail) = answer.unwrap_or_default();
            let detail: serde_json::Value = serde_json::from_str(&detail).unwrap_or_default();
            detail["messages"] == 0
        };
        let noted = || workers.iter().flatten().flat_map(|one| one.lines("H"));
        [QUEUE_PATH, OTHER_PATH].into_iter().all(is_empty)
            && lost(&sent, &holds(&noted().collect::<Vec<_>>())).is_empty()
    });
    let lines: Vec<String> = workers
        .into_iter()
        .flatten()
        .flat_map(|one| one.finish("H"))
        .collect();
    let holds = holds(&lines);
    let lost = lost(&sent, &holds);
    assert!(lost.is_empty(), "taken and lost: {lost:?}");
    for (name, holds) in &holds {
        for pair in holds.windows(2) {
            let [before, after] = pair else { continue };
            assert!(
                before.allows(after),
                "{name} came back when it was removed: {pair:?}"
            );
            assert!(
                after.from >= before.until,
                "{name} had two holders: {pair:?}"
            );
        }
    }
    let all = || holds.values().flatten();
    let [acked, back, moved] = [How::Acked, How::GivenBack, How::Moved]
        .map(|how| all().filter(|hold| hold.how == how).count());
    println!("{acked} acknowledged, {back} given back, {moved} moved");
    assert!(back > 0 && moved > 0, "nothing but acknowledgements");
    fleet.terminate();
}
