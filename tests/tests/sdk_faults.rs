//! What threads of the SDKs' own clients notice when their server is restarted under them.

use flotilla_tests::python::{Script, Sdk, run_script};
use flotilla_tests::server::{self, Options, Server};
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::Calls;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Acknowledgements between two restarts.
const PROGRESS: usize = 80;
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);
/// Longer than the script waits for its threads.
const FINISH_LIMIT: Duration = Duration::from_secs(120);
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// Time in which something that is there twice would show.
const QUIET: Duration = Duration::from_millis(500);
/// Of everything that one client does, between two restarts.
const DONE: usize = 20;
/// Events of a known client between two restarts.
const KNOWN: u64 = 10;

/// What is noted in a journal under a letter.
fn noted(journal: &Path, kind: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
    lines.map(str::to_owned).collect()
}

fn acknowledged(journal: &Path) -> BTreeSet<String> {
    noted(journal, "A ")
}

/// One server after another on the same data and address.
struct Node {
    options: Options,
    server: Server,
}

impl Node {
    fn start(work: &WorkDir, address: SocketAddr) -> Self {
        let options = Options::new(&work.join("data"), &work.join("server.log"))
            .set("FLOTILLA_LISTEN_KUBEMQ", address.to_string())
            .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
        Self::with(options)
    }

    fn with(options: Options) -> Self {
        let server = options.start().unwrap_or_else(|error| panic!("{error}"));
        Self { options, server }
    }

    fn restart(self, gracefully: bool) -> Self {
        let Self { options, server } = self;
        if gracefully {
            end(server);
        } else {
            server.kill().expect("a running server can be killed");
        }
        Self::with(options)
    }

    fn end(self) {
        end(self.server);
    }
}

fn end(server: Server) {
    let ended = server.terminate().expect("a graceful end");
    assert!(ended.success(), "the server ended with {ended}");
}

/// Threads of one SDK that store events in a channel of their own.
struct Storing {
    channel: String,
    journal: PathBuf,
    log: PathBuf,
    script: Script,
}

impl Storing {
    fn start(work: &WorkDir, sdk: Sdk, address: SocketAddr) -> Self {
        let channel = format!("stored-{}", sdk.version());
        let journal = work.join(&format!("{channel}.journal"));
        let log = work.join(&format!("{channel}.log"));
        let arguments = arguments(&[
            ("--address", &address.to_string()),
            ("--channel", &channel),
            ("--journal", &journal.display().to_string()),
        ]);
        let script = Script::start(sdk, "store_threads.py", &arguments, &log);
        Self {
            channel,
            journal,
            log,
            script: script.expect("Python starts"),
        }
    }

    fn wait_for_progress(&mut self) {
        let wanted = acknowledged(&self.journal).len() + PROGRESS;
        let deadline = Instant::now() + PROGRESS_LIMIT;
        while acknowledged(&self.journal).len() < wanted {
            self.script.expect_running();
            assert!(
                Instant::now() < deadline,
                "nothing is acknowledged:\n{}",
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the threads; what was acknowledged to them is there, once, in the order in which each thread sent it.
    fn finish(self, calls: &Calls, address: SocketAddr) {
        let Self {
            channel,
            journal,
            script,
            ..
        } = self;
        script.finish(FINISH_LIMIT);
        let mut missing = acknowledged(&journal);
        let mut seen = BTreeSet::new();
        let mut last_of: BTreeMap<String, u64> = BTreeMap::new();
        let listener = calls.listen(address, &channel, "", true);
        let listener = listener.expect("a subscription");
        let mut last = 0;
        while let Some(event) = listener.next(if missing.is_empty() {
            QUIET
        } else {
            ARRIVES_WITHIN
        }) {
            last += 1;
            assert_eq!(event.sequence, last, "a gap or a repeat");
            let name = String::from_utf8_lossy(&event.body).into_owned();
            if missing.remove(&name) {
                let (thread, number) = name.split_once('-').expect("a thread and a number");
                let number: u64 = number.parse().expect("a number");
                let before = last_of.insert(thread.to_owned(), number);
                assert!(before < Some(number), "{name} came after {before:?}");
            }
            assert!(seen.insert(name.clone()), "{name} is there twice");
        }
        assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    }
}

fn arguments(options: &[(&str, &str)]) -> Vec<String> {
    let both = options.iter().flat_map(|(option, value)| [*option, *value]);
    both.map(str::to_owned).collect()
}

/// A process that stores some events and reads until it has them, under the name it always has. It gets
/// those, and none that it had before.
fn read_on(sdk: Sdk, address: SocketAddr, round: u64) {
    let (address, round_text) = (address.to_string(), round.to_string());
    let channel = format!("known-{}", sdk.version());
    let arguments = arguments(&[
        ("--address", &address),
        ("--channel", &channel),
        ("--round", &round_text),
        ("--count", &KNOWN.to_string()),
    ]);
    let printed = run_script(sdk, "known_reader.py", &arguments);
    let sequences: Vec<u64> = printed
        .split_whitespace()
        .map(|word| word.parse().expect("a sequence"))
        .collect();
    let had = round * KNOWN;
    let expected: Vec<u64> = (had + 1..=had + KNOWN).collect();
    assert_eq!(sequences, expected, "{} in round {round}", sdk.version());
}

/// Every call comes back with an acknowledgement or an error, or the script would fail; and what was
/// acknowledged is there, once, and that of each thread in its order. Known clients go on where they were.
fn stores_through_restarts(sdks: [Sdk; 2]) {
    let work = WorkDir::new("restarts");
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let mut node = Node::start(&work, address);
    let mut storing = sdks.map(|sdk| Storing::start(&work, sdk, address));
    for (round, gracefully) in [(0, true), (1, false)] {
        sdks.iter().for_each(|sdk| read_on(*sdk, address, round));
        storing.iter_mut().for_each(Storing::wait_for_progress);
        node = node.restart(gracefully);
    }
    sdks.iter().for_each(|sdk| read_on(*sdk, address, 2));
    storing.iter_mut().for_each(Storing::wait_for_progress);
    let calls = Calls::default();
    for storing in storing {
        storing.finish(&calls, address);
    }
    node.end();
}

/// What one subscription of an SDK was given, in the order it came.
fn read_by(journal: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("R "));
    lines
        .map(|sequence| sequence.parse().expect("a sequence"))
        .collect()
}

/// A subscription that its client makes once, and makes again by itself whenever the server was away.
fn a_live_subscription_misses_nothing(sdk: Sdk) {
    let work = WorkDir::new("live");
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let mut node = Node::start(&work, address);
    let (journal, log) = (work.join("live.journal"), work.join("live.log"));
    let told = arguments(&[
        ("--address", &address.to_string()),
        ("--channel", "live"),
        ("--journal", &journal.display().to_string()),
    ]);
    let reader = Script::start(sdk, "live_reader.py", &told, &log);
    let mut reader = reader.expect("Python starts");
    let calls = Calls::default();
    let mut stored = 0;
    let mut store_and_wait = || {
        for _ in 0..KNOWN {
            stored += 1;
            let sent = calls.send_event(address, "live", &stored.to_string(), true);
            sent.expect("an event is stored");
        }
        let deadline = Instant::now() + PROGRESS_LIMIT;
        while !read_by(&journal).contains(&stored) {
            reader.expect_running();
            assert!(
                Instant::now() < deadline,
                "event {stored} has not come:\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for gracefully in [true, false] {
        store_and_wait();
        node = node.restart(gracefully);
    }
    store_and_wait();
    reader.finish(FINISH_LIMIT);
    // After a crash some may come again; none is left out, and none comes before those before it.
    let mut last = 0;
    for sequence in read_by(&journal) {
        assert!(sequence <= last + 1, "{sequence} came after {last}");
        last = last.max(sequence);
    }
    assert_eq!(last, stored);
    node.end();
}

/// What clients do all the time, by the letter of their journal: messages sent and received, events heard,
/// commands and queries answered.
const KINDS: [&str; 5] = ["A ", "G ", "E ", "C ", "Q "];
/// Those and events that are stored.
const ALL_KINDS: [&str; 6] = ["A ", "G ", "E ", "C ", "Q ", "S "];

/// Clients that do all they can do, and that nobody makes anew.
fn clients_go_on(sdk: Sdk, options: &[&str], kinds: &[&str]) {
    let work = WorkDir::new("one-client");
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let mut node = Node::start(&work, address);
    let (journal, log) = (work.join("one.journal"), work.join("one.log"));
    let mut told = arguments(&[
        ("--address", &address.to_string()),
        ("--channel", "one"),
        ("--journal", &journal.display().to_string()),
    ]);
    told.extend(options.iter().map(|option| (*option).to_owned()));
    let clients = Script::start(sdk, "one_client.py", &told, &log);
    let mut clients = clients.expect("Python starts");
    let count = |kind: &&str| noted(&journal, kind).len();
    let counts = || -> Vec<usize> { kinds.iter().map(count).collect() };
    let mut go_on = || {
        let before = counts();
        let deadline = Instant::now() + PROGRESS_LIMIT;
        let has_more = || std::iter::zip(&before, counts()).all(|(old, new)| new >= old + DONE);
        while !has_more() {
            clients.expect_running();
            assert!(
                Instant::now() < deadline,
                "of {kinds:?} {before:?} became {:?}:\n{}",
                counts(),
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for gracefully in [true, false] {
        go_on();
        node = node.restart(gracefully);
    }
    go_on();
    clients.finish(FINISH_LIMIT);
    let mut left = acknowledged(&journal);
    let calls = Calls::default();
    loop {
        let message = calls.receive(address, "one", 1).expect("an answer").pop();
        let Some(message) = message else { break };
        left.remove(String::from_utf8_lossy(&message.body).as_ref());
    }
    let lost: Vec<_> = left.difference(&noted(&journal, "G ")).cloned().collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let mut missing = noted(&journal, "S ");
    let listener = calls.listen(address, "one", "", true);
    let listener = listener.expect("a subscription");
    while !missing.is_empty() {
        let event = listener.next(ARRIVES_WITHIN);
        let event = event.unwrap_or_else(|| panic!("stored and lost: {missing:?}"));
        missing.remove(String::from_utf8_lossy(&event.body).as_ref());
    }
    node.end();
}

#[test]
fn clients_of_kubemq_1_1_0_go_on_after_restarts() {
    clients_go_on(Sdk::V1_1_0, &[], &ALL_KINDS);
}

#[test]
fn clients_of_kubemq_2_4_0_go_on_after_restarts() {
    clients_go_on(Sdk::V2_4_0, &[], &ALL_KINDS);
}

#[test]
fn clients_of_kubemq_3_6_0_go_on_after_restarts() {
    clients_go_on(Sdk::V3_6_0, &[], &KINDS);
}

#[test]
fn clients_of_kubemq_4_1_5_go_on_after_restarts() {
    clients_go_on(Sdk::V4_1_5, &[], &KINDS);
}

#[test]
fn asynchronous_clients_of_kubemq_4_1_5_go_on_after_restarts() {
    clients_go_on(Sdk::V4_1_5, &["--way", "asynchronous"], &ALL_KINDS);
}

#[test]
fn a_live_subscription_of_kubemq_3_6_0_misses_nothing_over_restarts() {
    a_live_subscription_misses_nothing(Sdk::V3_6_0);
}

#[test]
fn a_live_subscription_of_kubemq_4_1_5_misses_nothing_over_restarts() {
    a_live_subscription_misses_nothing(Sdk::V4_1_5);
}

#[test]
fn threads_of_the_old_sdks_that_store_events_come_back_from_restarts_and_nothing_is_lost() {
    stores_through_restarts([Sdk::V2_4_0, Sdk::V1_1_0]);
}

#[test]
fn threads_of_the_new_sdks_that_store_events_come_back_from_restarts_and_nothing_is_lost() {
    stores_through_restarts([Sdk::V3_6_0, Sdk::V4_1_5]);
}
