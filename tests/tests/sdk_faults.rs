//! What threads of the SDKs' own clients notice when their server is restarted under them.

use flotilla_tests::python::{Script, Sdk};
use flotilla_tests::server::{self, Options};
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::Calls;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Acknowledgements between two restarts.
const PROGRESS: usize = 80;
const PROGRESS_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the script waits for its threads.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// Time in which something that is there twice would show.
const QUIET: Duration = Duration::from_millis(500);
const CHANNEL: &str = "stored";

fn acknowledged(journal: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(journal).unwrap_or_default();
    let names = text.lines().filter_map(|line| line.strip_prefix("A "));
    names.map(str::to_owned).collect()
}

fn wait_for_progress(journal: &Path, script: &mut Script, log: &Path) {
    let wanted = acknowledged(journal).len() + PROGRESS;
    let deadline = Instant::now() + PROGRESS_LIMIT;
    while acknowledged(journal).len() < wanted {
        script.expect_running();
        assert!(
            Instant::now() < deadline,
            "nothing is acknowledged:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every call comes back with an acknowledgement or an error, or the script would fail; and what was
/// acknowledged is there, once.
fn stores_through_restarts(sdk: Sdk) {
    let work = WorkDir::new("restarts");
    let address = SocketAddr::from(([127, 0, 0, 1], server::free_port()));
    let options = Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_LISTEN_KUBEMQ", address.to_string())
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
    let start = || options.start().unwrap_or_else(|error| panic!("{error}"));
    let mut server = start();
    let (journal, log) = (work.join("journal"), work.join("threads.log"));
    let arguments = [
        ("--address", address.to_string()),
        ("--channel", CHANNEL.to_owned()),
        ("--journal", journal.display().to_string()),
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect();
    let mut script =
        Script::start(sdk, "store_threads.py", &arguments, &log).expect("Python starts");
    for gracefully in [true, false] {
        wait_for_progress(&journal, &mut script, &log);
        if gracefully {
            let ended = server.terminate().expect("a graceful end");
            assert!(ended.success(), "the server ended with {ended}");
        } else {
            server.kill().expect("a running server can be killed");
        }
        server = start();
    }
    wait_for_progress(&journal, &mut script, &log);
    script.finish(FINISH_LIMIT);

    let mut missing = acknowledged(&journal);
    let mut seen = BTreeSet::new();
    let calls = Calls::default();
    let listener = calls.listen(address, CHANNEL, "", true);
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
        missing.remove(&name);
        assert!(seen.insert(name.clone()), "{name} is there twice");
    }
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let ended = server.terminate().expect("a graceful end");
    assert!(ended.success(), "the server ended with {ended}");
}

#[test]
fn threads_of_kubemq_2_4_0_that_store_events_come_back_from_restarts_and_nothing_is_lost() {
    stores_through_restarts(Sdk::V2_4_0);
}

#[test]
fn threads_of_kubemq_4_1_5_that_store_events_come_back_from_restarts_and_nothing_is_lost() {
    stores_through_restarts(Sdk::V4_1_5);
}
