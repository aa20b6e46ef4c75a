//! What is promised of processes.

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str, directory: &Path) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::start("a script", command, &directory.join("log")).expect("sh starts")
}

/// Whether a process is there and has not ended.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

async fn gone(pid: u32) {
    let deadline = Instant::now() + SOON;
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_process_that_ends_before_it_is_ready_shows_its_log() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("echo the disk is on fire; exit 3", work.path());
    let error = process.wait_ready(SOON, async |_| false).await;
    let error = error.expect_err("it has ended").to_string();
    assert!(error.contains("the disk is on fire"), "{error}");
}

#[tokio::test]
async fn what_a_process_prints_can_make_it_ready() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("echo ready; exec sleep 1000", work.path());
    let ready = process.wait_ready(SOON, async |process| process.log().contains("ready"));
    ready.await.expect("it says so");
    let pid = process.pid();
    process.stop(libc::SIGTERM, SOON).await.expect("it ends");
    gone(pid).await;
}

#[tokio::test]
async fn the_children_of_a_process_end_with_it() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("sleep 1000 & echo child $!; wait", work.path());
    let ready = process.wait_ready(SOON, async |process| process.log().contains("child"));
    ready.await.expect("it says so");
    let log = process.log();
    let child = log.trim().strip_prefix("child ").expect("its id follows");
    let child = child.parse().expect("an id is a number");
    drop(process);
    gone(child).await;
}

#[test]
fn free_ports_are_different_ones() {
    let [a, b, c] = free_ports().expect("there are free ports");
    assert!(a != b && b != c && a != c);
}
