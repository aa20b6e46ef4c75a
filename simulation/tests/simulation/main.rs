//! The simulation as part of every run: it finds nothing, it could, and what it finds it finds again.
//! What a seed stands for changes with every build.

use std::process::{Command, Output};

/// How many, or as many as the variable says.
const SEEDS: &str = "100";
const SEEDS_VARIABLE: &str = "FLOTILLA_TEST_SEEDS";

fn simulate(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_flotilla-simulation");
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("could not run {program}: {error}"))
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn promises_are_kept_under_all_faults_of_many_seeds() {
    // Every change makes them other lives.
    let seeds = std::env::var(SEEDS_VARIABLE).unwrap_or_else(|_| SEEDS.to_owned());
    let output = simulate(&["--seeds", &seeds]);
    print!("{}", text(&output));
    assert!(output.status.success(), "a seed failed, see above");
}

#[test]
fn a_seed_is_the_same_life_every_time() {
    let run = || text(&simulate(&["--seed", "7"]));
    let first = run();
    assert!(first.contains("digest"), "{first}");
    assert!(first == run(), "two runs of one seed differ");
}

/// Whether some of a few seeds fail with a defect, and say so in these words.
fn is_found(defect: &str, words: &str) -> bool {
    let output = simulate(&["--seeds", "10", "--defect", defect]);
    let text = text(&output);
    print!("{text}");
    let mut lines = text.lines();
    !output.status.success() && lines.any(|line| line.contains("VIOLATED") && line.contains(words))
}

/// What was acknowledged is gone, or even that there was a log.
#[test]
fn disks_that_do_not_sync_are_found() {
    assert!(is_found("no-sync", "not every host serves") || is_found("no-sync", "is not there"));
}

#[test]
fn batches_that_are_repeated_without_their_number_are_found() {
    assert!(is_found("blind-repeats", "is there 2 times"));
}
