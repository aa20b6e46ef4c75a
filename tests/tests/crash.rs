//! `kill -9` at random moments under load: nothing acknowledged is lost, doubled or out of order.

use flotilla_tests::load::Load;
use flotilla_tests::seed;
use flotilla_tests::server::{self, Options};
use flotilla_tests::workdir::WorkDir;
use rand::Rng;
use std::net::SocketAddr;
use std::time::Duration;

/// Acknowledgements before a kill, so that every round has something to lose.
const PROGRESS: usize = 20;
const PROGRESS_LIMIT: Duration = Duration::from_secs(30);
const KILL_DELAY_MS_MAX: u64 = 1000;
/// A quarter of the rounds begin with a kill within this time after a start.
const RECOVERY_KILL_DELAY_MS_MAX: u64 = 200;

#[test]
fn acknowledged_messages_survive_kill_9() {
    let work = WorkDir::new("crash");
    let seed = seed::seed();
    let mut random = seed::random(seed);
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let log_path = work.join("server.log");
    // Small segments and frequent checkpoints, so that kills hit their changes too.
    let options = Options::new(&work.join("data"), &log_path)
        .set("FLOTILLA_LISTEN_KUBEMQ", address.to_string())
        .set("FLOTILLA_STORAGE_SEGMENT_SIZE", "1MiB")
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB")
        .set("FLOTILLA_STORAGE_CHECKPOINT_INTERVAL", "500ms");

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
