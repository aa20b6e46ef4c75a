//! Commands while responders and nodes are killed.

use crate::noting::{Noting, PROGRESS, all, wait_for_more, wait_until};
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::Sdk;
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use std::time::Duration;

/// Of a command.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What the way there and back may add to it, on a machine of the usual speed that is busy with five processes.
const LATE_MAX: Duration = Duration::from_secs(2);

#[test]
fn commands_are_answered_or_fail_in_time_while_responders_and_nodes_are_killed() {
    let work = WorkDir::new("sdk-requests");
    let mut fleet = Fleet::form(&work, &Layout::of(3));
    let nodes = fleet.kubemq();
    let channel = ("--channel", "asked".to_owned());
    let respond = |name: &str, node: usize| {
        let options = [("--address", nodes[node].to_string()), channel.clone()];
        Noting::start(&work, Sdk::V4_1_5, "responder.py", name, &options)
    };
    let (first, second) = (respond("first", 0), respond("second", 1));
    let options = [
        ("--address", all(&nodes)),
        ("--home", "2".to_owned()),
        ("--timeout", TIMEOUT.as_secs().to_string()),
        channel.clone(),
    ];
    let asker = [Noting::start(
        &work,
        Sdk::V4_1_5,
        "asker.py",
        "asker",
        &options,
    )];
    let answered = |fleet: &Fleet, what: &str| {
        wait_for_more(what, fleet, PROGRESS, &[(&asker, "O")]);
        let oks = || {
            asker[0]
                .lines("O")
                .iter()
                .filter(|line| line.ends_with(" ok"))
                .count()
        };
        let wanted = oks() + PROGRESS;
        wait_until(what, fleet, || oks() >= wanted);
    };
    let takes_part = |fleet: &Fleet, one: &Noting| {
        wait_until("each member is asked", fleet, || !one.lines("T").is_empty());
    };
    takes_part(&fleet, &first);
    takes_part(&fleet, &second);
    answered(&fleet, "both answer");

    drop(first);
    answered(&fleet, "the second answers when the first is killed");
    let third = respond("third", 0);
    takes_part(&fleet, &third);
    fleet.node_mut(2).kill();
    answered(
        &fleet,
        "the third answers when the node of the second is killed",
    );
    let before = asker[0].lines("O").len();
    let server_said = |line: &String| line.ends_with(" ok") || line.contains("Error 301");
    let wrong: Vec<String> = asker[0].lines("O");
    let wrong: Vec<&String> = wrong.iter().filter(|line| !server_said(line)).collect();
    assert!(wrong.is_empty(), "the node that is asked lives: {wrong:?}");

    let had = second.lines("T").len();
    fleet.restart(2);
    wait_until(
        "the second is asked again when its node is back",
        &fleet,
        || second.lines("T").len() > had,
    );
    fleet.node_mut(3).kill();
    answered(&fleet, "it asks elsewhere when its own node is killed");
    let [asker] = asker;
    let outcomes = asker.finish("O");
    for line in &outcomes {
        let (ms, _) = line.split_once(' ').expect("two words");
        let took = Duration::from_millis(ms.parse().expect("milliseconds"));
        assert!(
            took <= TIMEOUT + seed::stretched(LATE_MAX),
            "a call took {took:?}: {line}"
        );
    }
    // A call that is lost with the node costs one error, and each try to go on there another one.
    println!(
        "{} outcomes, {before} before the asker's node was killed",
        outcomes.len()
    );
    second.finish("T");
    third.finish("T");
    fleet.restart(3);
    fleet.terminate();
}
