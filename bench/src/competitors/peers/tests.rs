//! Every peer does for a moment what the bench will ask of it, and nothing is lost. They need what
//! `scripts/bench-deps.sh` installs: `cargo test -p flotilla-bench --features peers -- --ignored smoke`.

use super::all;
use crate::BenchError;
use crate::supervise::{cpu_seconds, resident_bytes};
use crate::target::{
    Competitor, Consumer, Family, Nodes, Outgoing, Place, Producer, Running, Source, Support,
};
use bytes::Bytes;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MESSAGES: usize = 2_000;
const IN_FLIGHT: usize = 256;
const BODY_BYTES: usize = 1_024;
/// For any one step.
const SOON: Duration = Duration::from_secs(120);
/// For a start, of nodes that each need most of a core for it.
const START_SOON: Duration = Duration::from_secs(300);

async fn soon<T>(what: &str, step: impl Future<Output = Result<T, BenchError>>) -> T {
    within(SOON, what, step).await
}

async fn within<T>(
    limit: Duration,
    what: &str,
    step: impl Future<Output = Result<T, BenchError>>,
) -> T {
    match tokio::time::timeout(limit, step).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{what}: {error}"),
        Err(_) => panic!("{what} took longer than {limit:?}"),
    }
}

fn names(what: &str, count: usize) -> Arc<[String]> {
    (0..count)
        .map(|number| format!("{what}-{number}"))
        .collect()
}

/// Sends messages with numbers from `first` on, to all names in turn; with `acked`, until all of them are acknowledged.
async fn send(
    producer: &mut dyn Producer,
    names: usize,
    first: usize,
    messages: usize,
    acked: bool,
) {
    let batch = producer.batch(IN_FLIGHT);
    assert!((1..=IN_FLIGHT).contains(&batch), "batches of {batch}");
    let (mut sent, mut done) = (0, 0);
    while sent < messages || (acked && done < messages) {
        let count = batch.min(messages - sent);
        if count > 0 && (!acked || sent - done + count <= IN_FLIGHT) {
            let outgoing: Vec<Outgoing> = (sent..sent + count)
                .map(|number| {
                    let mut body = vec![7; BODY_BYTES];
                    body[..8].copy_from_slice(&((first + number) as u64).to_le_bytes());
                    Outgoing {
                        name: number % names,
                        body: body.into(),
                    }
                })
                .collect();
            soon("sending", producer.send(&outgoing)).await;
            sent += count;
        } else {
            done += soon("an acknowledgement", producer.acked()).await;
        }
    }
    if acked {
        assert_eq!(done, messages, "more is acknowledged than was sent");
    }
}

fn numbers(bodies: &[Bytes]) -> impl Iterator<Item = u64> {
    bodies.iter().map(|body| {
        assert_eq!(body.len(), BODY_BYTES);
        u64::from_le_bytes(*body.first_chunk().expect("a body has 8 bytes"))
    })
}

/// Receives until as many have come, and checks that each is another one.
async fn receive(consumer: &mut dyn Consumer, messages: usize) -> Vec<u64> {
    let mut bodies = Vec::new();
    while bodies.len() < messages {
        soon("receiving", consumer.next(&mut bodies)).await;
        soon("acknowledging", consumer.ack()).await;
    }
    let received: Vec<u64> = numbers(&bodies).collect();
    let mut different = received.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), received.len(), "something came twice");
    received
}

async fn topics(running: &mut dyn Running, durability: &str) {
    let names = names("topic", 2);
    soon("preparing", running.prepare(Family::Topics, &names)).await;
    let producer = running.producer(Family::Topics, names.clone());
    let mut producer = soon("a producer", producer).await;
    send(&mut *producer, 2, 0, MESSAGES, true).await;
    let backlog = Source::Backlog {
        topic: &names[1],
        reader: "first",
    };
    let mut reader = soon("a reader", running.consumer(backlog)).await;
    let mut received = receive(&mut *reader, MESSAGES / 2).await;
    if durability.contains("any order") {
        received.sort_unstable();
    }
    let expected: Vec<u64> = (0..MESSAGES as u64)
        .filter(|number| number % 2 == 1)
        .collect();
    assert_eq!(received, expected, "a topic has an order");
    drop(reader);

    let mut stored = MESSAGES / 2;
    match running.consumer(Source::Live { topic: &names[1] }).await {
        Ok(mut live) => {
            send(&mut *producer, 2, MESSAGES, MESSAGES / 2, true).await;
            let received = receive(&mut *live, MESSAGES / 4).await;
            let later = |number: &u64| *number >= MESSAGES as u64;
            assert!(received.iter().all(later), "only what came later");
            assert_eq!(received.len(), MESSAGES / 4);
            stored += MESSAGES / 4;
        }
        Err(BenchError::NotMeasured(what)) => println!("  not measured: {what}"),
        Err(error) => panic!("a live reader: {error}"),
    }

    within(START_SOON, "starting again", running.kill_and_restart()).await;
    let backlog = Source::Backlog {
        topic: &names[0],
        reader: "after",
    };
    let mut reader = soon("a reader", running.consumer(backlog)).await;
    assert_eq!(receive(&mut *reader, stored).await.len(), stored);
    drop(reader);
    let backlog = Source::Backlog {
        topic: &names[0],
        reader: "again",
    };
    match running.consumer(backlog).await {
        Ok(mut again) => assert_eq!(receive(&mut *again, stored).await.len(), stored),
        // There is nothing left, and whoever waited for it would wait for ever.
        Err(BenchError::NotSupported(what)) => println!("  not supported: {what}"),
        Err(error) => panic!("another reader: {error}"),
    }
}

async fn queues(running: &mut dyn Running) {
    let names = names("queue", 1);
    soon("preparing", running.prepare(Family::Queues, &names)).await;
    let producer = running.producer(Family::Queues, names.clone());
    let mut producer = soon("a producer", producer).await;
    let queue = Source::Queue { queue: &names[0] };
    let mut one = soon("a worker", running.consumer(queue)).await;
    let mut other = soon("a worker", running.consumer(queue)).await;
    send(&mut *producer, 1, 0, MESSAGES, true).await;
    let (mut bodies, mut others) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + SOON;
    while bodies.len() + others.len() < MESSAGES {
        assert!(
            Instant::now() < deadline,
            "{} came",
            bodies.len() + others.len()
        );
        let moment = Duration::from_millis(100);
        for (worker, bodies) in [(&mut one, &mut bodies), (&mut other, &mut others)] {
            match tokio::time::timeout(moment, worker.next(bodies)).await {
                Ok(received) => received.expect("a worker receives"),
                Err(_) => continue,
            }
            soon("acknowledging", worker.ack()).await;
        }
    }
    bodies.extend(others);
    let mut received: Vec<u64> = numbers(&bodies).collect();
    received.sort_unstable();
    assert_eq!(received, (0..MESSAGES as u64).collect::<Vec<_>>());
}

async fn signals(running: &mut dyn Running) {
    let names = names("signal", 1);
    soon("preparing", running.prepare(Family::Signals, &names)).await;
    let signals = Source::Signals { name: &names[0] };
    let mut one = soon("a listener", running.consumer(signals)).await;
    let mut other = soon("a listener", running.consumer(signals)).await;
    let producer = running.producer(Family::Signals, names.clone());
    let mut producer = soon("a producer", producer).await;
    send(&mut *producer, 1, 0, MESSAGES, false).await;
    for listener in [&mut one, &mut other] {
        assert_eq!(receive(&mut **listener, MESSAGES).await.len(), MESSAGES);
    }
}

async fn requests(running: &mut dyn Running) {
    let names = names("request", 1);
    soon("preparing", running.prepare(Family::Requests, &names)).await;
    let mut responder = soon("a responder", running.responder(&names[0])).await;
    let serving = tokio::spawn(async move { responder.serve().await });
    let producer = running.producer(Family::Requests, names.clone());
    let mut producer = soon("a requester", producer).await;
    send(&mut *producer, 1, 0, MESSAGES, true).await;
    serving.abort();
}

async fn smoke(competitor: &dyn Competitor, nodes: Nodes) {
    let name = competitor.name();
    println!(
        "{name} {} on {nodes:?}",
        competitor.version().expect("it is installed")
    );
    for family in [
        Family::Topics,
        Family::Queues,
        Family::Signals,
        Family::Requests,
    ] {
        let support = competitor.supports(family, nodes);
        if support != Support::Measured {
            println!("  {family:?}: {support:?}");
            continue;
        }
        let work = tempfile::tempdir().expect("a temporary directory");
        // PostgreSQL runs as another user.
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(work.path(), everybody).expect("it is ours");
        let place = Place {
            nodes,
            directory: work.path().to_owned(),
        };
        let begun = Instant::now();
        let mut running = within(START_SOON, "starting", competitor.start(place)).await;
        let started = begun.elapsed();
        match family {
            Family::Topics => topics(&mut *running, competitor.durability(family, nodes)).await,
            Family::Queues => queues(&mut *running).await,
            Family::Signals => signals(&mut *running).await,
            Family::Requests => requests(&mut *running).await,
        }
        let processes = running.processes();
        let used_cpu_seconds = cpu_seconds(&processes).expect("/proc is there");
        let used_bytes = resident_bytes(&processes).expect("/proc is there");
        assert!(used_bytes > 0);
        soon("stopping", running.stop()).await;
        println!(
            "  {family:?}: ok; {}; started in {:.1} s, {:.1} s in all, {:.1} CPU seconds, {} MB",
            competitor.durability(family, nodes),
            started.as_secs_f64(),
            begun.elapsed().as_secs_f64(),
            used_cpu_seconds,
            used_bytes >> 20,
        );
    }
}

async fn smoke_all(name: &str) {
    for competitor in all().iter().filter(|one| one.name().starts_with(name)) {
        for nodes in [Nodes::One, Nodes::Three] {
            smoke(&**competitor, nodes).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs scripts/bench-deps.sh"]
async fn smoke_nats() {
    smoke_all("nats").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs scripts/bench-deps.sh"]
async fn smoke_redis() {
    smoke_all("redis").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs scripts/bench-deps.sh"]
async fn smoke_rabbitmq() {
    smoke_all("rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs scripts/bench-deps.sh"]
async fn smoke_postgres() {
    smoke_all("postgres").await;
}
