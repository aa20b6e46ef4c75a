//! `kill -9` at random moments under load: nothing acknowledged is lost, doubled or out of order.

use flotilla_tests::history::check;
use flotilla_tests::load::Load;
use flotilla_tests::seed;
use flotilla_tests::server::{self, Options};
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::Calls;
use flotilla_tests::workload::read_back::Node;
use flotilla_tests::workload::{Plan, Workload};
use rand::Rng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Acknowledgements before a kill, so that every round has something to lose.
const PROGRESS: usize = 20;
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);
const KILL_DELAY_MS_MAX: u64 = 1000;
/// A quarter of the rounds begin with a kill within this time after a start.
const RECOVERY_KILL_DELAY_MS_MAX: u64 = 200;
/// Kills of the test that looks at moments.
const HISTORY_ROUNDS_MAX: u64 = 6;
const WRITES_WITHIN: Duration = Duration::from_secs(20);
/// Longer than two crashes and starts take, mostly.
const DELAY: Duration = Duration::from_secs(6);
const COMES_WITHIN: Duration = Duration::from_secs(15);

/// Small segments and frequent checkpoints, so that kills hit their changes too.
fn options(work: &WorkDir, address: SocketAddr) -> Options {
    Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_LISTEN_KUBEMQ", address.to_string())
        .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "1MiB")
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
        .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "500ms")
}

#[test]
fn a_delayed_message_comes_in_its_time_whatever_crashes_meanwhile() {
    let work = WorkDir::new("delayed");
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let options = options(&work, address);
    let start = || options.start().unwrap_or_else(|error| panic!("{error}"));
    let calls = Calls::default();
    let server = start();
    let before = Instant::now();
    let sent = calls.send_to_queue(address, "delayed", "late", DELAY.as_secs() as i32);
    sent.expect("a message is sent");
    server.kill().expect("a running server can be killed");
    let server = start();
    server.kill().expect("a running server can be killed");
    let server = start();
    let received = calls.receive(address, "delayed", COMES_WITHIN.as_secs() as i32);
    assert_eq!(received.expect("an answer").len(), 1);
    assert!(before.elapsed() >= DELAY, "it came early");
    let ended = server.terminate().expect("a graceful end");
    assert!(ended.success(), "the server ended with {ended}");
}

#[test]
fn acknowledged_messages_survive_kill_9() {
    let work = WorkDir::new("crash");
    let seed = seed::seed();
    let mut random = seed::random(seed);
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let options = options(&work, address);

    let mut load = Load::start(address, &work.join("load"), seed);
    let rounds = seed::rounds();
    for round in 1..=rounds {
        if random.random_ratio(1, 4) {
            let server = options.start_unready().expect("the server can be run");
            std::thread::sleep(seed::moment(&mut random, RECOVERY_KILL_DELAY_MS_MAX));
            server.kill().expect("a running server can be killed");
        }
        let server = options
            .start()
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(
            load.wait_for_progress(PROGRESS, PROGRESS_LIMIT),
            "round {round}: nothing was acknowledged, the server's log:\n{}",
            server.log()
        );
        std::thread::sleep(seed::moment(&mut random, KILL_DELAY_MS_MAX));
        server.kill().expect("a running server can be killed");
    }

    let server = options
        .start()
        .unwrap_or_else(|error| panic!("after the last kill: {error}"));
    let verdict = load.verdict();
    println!("{rounds} rounds: {}", verdict.report());
    assert!(
        verdict.violations.is_empty(),
        "seed {seed}: {}",
        verdict.report()
    );
    assert!(verdict.acknowledged as u64 >= rounds * PROGRESS as u64);
    assert!(
        verdict.consumed > 0 && verdict.followed > 0,
        "{}",
        verdict.report()
    );
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}

#[test]
fn clients_of_a_killed_server_see_one_order_and_one_holder() {
    let work = WorkDir::new("crash-history");
    let seed = seed::seed();
    let mut random = seed::random(seed);
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let options = options(&work, address);
    let mut server = options.start().expect("the server can be run");
    let plan = Plan::small(seed);
    let workload = Workload::start(&[address], plan.clone());
    for round in 1..=seed::rounds().min(HISTORY_ROUNDS_MAX) {
        std::thread::sleep(seed::moment(&mut random, KILL_DELAY_MS_MAX));
        let from = workload.recorder().now();
        server.kill().expect("a running server can be killed");
        server = options
            .start()
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        let accepted = workload.first_accepted(from, WRITES_WITHIN);
        assert_eq!(accepted.len(), plan.topics as usize, "round {round}");
        workload.note_fault("kill -9", &[1], from);
    }
    let node = Node {
        number: 1,
        kubemq: address,
        admin: server.admin(),
    };
    let history = workload
        .finish(&[node])
        .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", server.log()));
    let (broken, figures) = (check::check(&history), check::figures(&history));
    println!("{figures}; {} violations", broken.len());
    let shown: Vec<String> = broken.iter().take(20).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "seed {seed}: {shown:#?}");
    assert!(figures.acknowledged > 0 && figures.read > 0 && figures.settled > 0);
}
