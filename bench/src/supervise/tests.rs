//! What is promised of processes.

use super::*;
use futures::future::{self, FutureExt};

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str, directory: &Path) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::start("a script", command, &directory.join("log")).expect("sh starts")
}

async fn gone(pid: u32) {
    let deadline = Instant::now() + SOON;
    while usage::runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_process_that_ends_before_it_is_ready_shows_its_log() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("echo the disk is on fire; exit 3", work.path());
    let error = process
        .wait_ready(SOON, |_| future::ready(false).boxed())
        .await;
    let error = error.expect_err("it has ended").to_string();
    assert!(error.contains("the disk is on fire"), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_succeed_in_time_is_an_error_and_is_killed() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let done = shell("exit 0", work.path()).wait_success(SOON).await;
    done.expect("it succeeds");
    let failed = shell("echo no such node; exit 1", work.path()).wait_success(SOON);
    let error = failed.await.expect_err("it fails").to_string();
    assert!(error.contains("no such node"), "{error}");
    let slow = shell("exec sleep 1000", work.path());
    let pid = slow.pid();
    let result = slow.wait_success(Duration::ZERO).await;
    assert!(
        matches!(result, Err(BenchError::TooSlow { .. })),
        "{result:?}"
    );
    gone(pid).await;
}

#[tokio::test]
async fn what_a_process_prints_can_make_it_ready() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("echo ready; exec sleep 1000", work.path());
    let ready = process.wait_ready(SOON, |process| {
        future::ready(process.log().contains("ready")).boxed()
    });
    ready.await.expect("it says so");
    let pid = process.pid();
    kill_all(vec![process]).await.expect("it ends");
    assert!(!usage::runs(pid));
}

#[tokio::test]
async fn who_is_asked_and_says_nothing_is_asked_again() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("exec sleep 1000", work.path());
    let mut asked = 0;
    let moment = Duration::from_millis(20);
    let ready = process.wait_ready_by_tries(SOON, moment, |_| {
        asked += 1;
        match asked {
            1 => future::pending().boxed(),
            _ => future::ready(true).boxed(),
        }
    });
    ready.await.expect("it answers the second time");
    assert_eq!(asked, 2);
}

#[tokio::test]
async fn children_in_groups_of_their_own_are_killed_too() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("setsid sleep 1000 & wait", work.path());
    let family = |pid| usage::family_of(&[pid]).expect("/proc is there");
    let ready = process.wait_ready(SOON, |process| {
        future::ready(family(process.pid()).len() > 1).boxed()
    });
    ready.await.expect("it has a child");
    let family = family(process.pid());
    kill_all(vec![process]).await.expect("they end");
    for pid in family {
        assert!(!usage::runs(pid));
    }
}

#[tokio::test]
async fn who_has_ended_before_it_is_killed_is_told_and_the_others_are_killed() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let ended = shell("echo out of memory; exit 3", work.path());
    gone(ended.pid()).await;
    let process = shell("exec sleep 1000", work.path());
    let pid = process.pid();
    let error = kill_all(vec![ended, process]).await;
    let error = error.expect_err("one was gone").to_string();
    assert!(error.contains("out of memory"), "{error}");
    assert!(!usage::runs(pid));
}

#[tokio::test]
async fn the_children_of_a_process_end_with_it() {
    let work = tempfile::tempdir().expect("a temporary directory");
    let mut process = shell("sleep 1000 & echo child $!; wait", work.path());
    let ready = process.wait_ready(SOON, |process| {
        future::ready(process.log().contains("child")).boxed()
    });
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
