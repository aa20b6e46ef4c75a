//! Whole benches against a competitor that lives in this process.

use super::*;
use crate::competitors::BASE;
use crate::machine::Machine;
use crate::report::Report;
use crate::target::{Family, Nodes};
use crate::testing::{Behaviour, Fake};
use crate::workload::{Backlog, Pace, Publish, QueueCycle, Requests, Signals, Workload};
use std::time::Duration;

const TIMING: Timing = Timing {
    warm_up: Duration::from_millis(20),
    run: Duration::from_millis(100),
};
const MESSAGE_BYTES: usize = 64;

fn workload(id: &str, kind: Kind) -> Workload {
    Workload {
        id: id.to_owned(),
        title: format!("The workload {id}"),
        nodes: Nodes::One,
        kind,
    }
}

fn publish() -> Workload {
    let publish = Publish {
        message_bytes: MESSAGE_BYTES,
        in_flight: 16,
        topics: 3,
        producers: 2,
    };
    workload("publish", Kind::Publish(publish))
}

async fn bench(
    workloads: Vec<Workload>,
    competitors: Vec<Fake>,
    rounds: usize,
) -> (Plan, Vec<Run>) {
    let work = tempfile::tempdir().expect("a temporary directory");
    let competitors = competitors.into_iter();
    let plan = Plan {
        workloads,
        competitors: competitors
            .map(|fake| Arc::new(fake) as Arc<dyn Competitor>)
            .collect(),
        rounds,
        timing: TIMING,
        directory: work.path().to_owned(),
    };
    let runs = run(&plan, |_| {}).await;
    let left: Vec<_> = std::fs::read_dir(work.path())
        .expect("the directory is there")
        .collect();
    assert!(left.is_empty(), "a run left something: {left:?}");
    (plan, runs)
}

fn sample(run: &Run) -> &Sample {
    match &run.outcome {
        Outcome::Measured(sample) => sample,
        other => panic!("{} of {}: {other:?}", run.workload, run.competitor),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competitors_take_turns_within_each_round_and_in_being_the_first() {
    let fakes = vec![
        Fake::new(BASE, Behaviour::Works),
        Fake::new("other", Behaviour::Works),
    ];
    let (_, runs) = bench(vec![publish()], fakes, 3).await;
    let order: Vec<(usize, &str)> = runs.iter().map(|run| (run.round, run.competitor)).collect();
    let round = |number, [first, second]: [_; 2]| [(number, first), (number, second)];
    let expected = [
        round(0, [BASE, "other"]),
        round(1, ["other", BASE]),
        round(2, [BASE, "other"]),
    ];
    assert_eq!(order, expected.concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_workload_counts_what_was_done() {
    let message_bytes = MESSAGE_BYTES;
    let backlog = Backlog {
        message_bytes,
        messages: 1_000,
    };
    let queue = QueueCycle {
        message_bytes,
        in_flight: 8,
        workers: 2,
    };
    let pace = Pace {
        family: Family::Topics,
        message_bytes,
        per_second: 2_000,
    };
    let signals = Signals {
        message_bytes,
        listeners: 3,
    };
    let requests = Requests {
        message_bytes,
        in_flight: 4,
    };
    let workloads = vec![
        publish(),
        workload("backlog", Kind::Backlog(backlog)),
        workload("queue", Kind::QueueCycle(queue)),
        workload("pace", Kind::Pace(pace)),
        workload("signals", Kind::Signals(signals)),
        workload("requests", Kind::Requests(requests)),
    ];
    let fakes = vec![Fake::new(BASE, Behaviour::Works)];
    let (_, runs) = bench(workloads, fakes, 1).await;
    for run in &runs {
        let sample = sample(run);
        assert!(sample.messages > 0, "{run:?}");
        assert_eq!(sample.lost, 0, "{run:?}");
    }
    let of = |id: &str| sample(runs.iter().find(|run| run.workload == id).expect("it ran"));
    assert!(of("publish").latency.is_some());
    // An open loop sends what is due, no more and no less.
    assert_eq!(of("pace").messages, 200);
    assert!(of("backlog").messages >= 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_is_gone_when_it_was_read_is_measured_over_the_time_that_took() {
    let backlog = workload(
        "backlog",
        Kind::Backlog(Backlog {
            message_bytes: MESSAGE_BYTES,
            messages: 100,
        }),
    );
    let fakes = vec![Fake::new(BASE, Behaviour::ForgetsWhatIsRead)];
    let (_, runs) = bench(vec![backlog], fakes, 1).await;
    let sample = sample(&runs[0]);
    assert_eq!(sample.messages, 100);
    assert!(sample.seconds < TIMING.run.as_secs_f64(), "{sample:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_twice_is_not_tried_again_and_holds_up_nobody() {
    let fakes = vec![
        Fake::new(BASE, Behaviour::Works),
        Fake::new("broken", Behaviour::RefusesMessages),
    ];
    let (_, runs) = bench(vec![publish()], fakes, 4).await;
    let count = |name| runs.iter().filter(|run| run.competitor == name).count();
    assert_eq!((count(BASE), count("broken")), (4, 2));
    let broken = runs.iter().find(|run| run.competitor == "broken");
    let Outcome::Failed(text) = &broken.expect("it ran").outcome else {
        panic!("{broken:?}");
    };
    assert!(text.contains("no space"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_which_nothing_was_done_is_a_failure_and_no_figure() {
    let fakes = vec![Fake::new(BASE, Behaviour::NeverAnswers)];
    let (_, runs) = bench(vec![publish()], fakes, 1).await;
    let Outcome::Failed(text) = &runs[0].outcome else {
        panic!("{runs:?}");
    };
    assert!(text.contains("no message"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_tells_what_was_measured_what_failed_and_what_is_not_there() {
    let fakes = vec![
        Fake::new(BASE, Behaviour::Works),
        Fake::new("broken", Behaviour::RefusesMessages),
        Fake::new("small", Behaviour::SupportsNothing),
        Fake::new("shy", Behaviour::IsNotMeasured),
    ];
    let (plan, runs) = bench(vec![publish()], fakes, 2).await;
    let report = Report::new(&plan, Machine::look(&plan.directory), runs);
    assert_eq!(report.count_failed(), 2);
    let markdown = report.markdown();
    assert!(markdown.contains("The workload publish"), "{markdown}");
    assert!(markdown.contains("1.00 × (1.00 to 1.00)"), "{markdown}");
    assert!(
        markdown.contains("| small | in memory | not supported"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| shy | in memory | not measured"),
        "{markdown}"
    );
    assert!(
        markdown.contains("failed: the server refused"),
        "{markdown}"
    );
    assert!(report.chart().contains("The workload publish"));
}
