//! What a seed stands for: hosts, network, load, and what goes wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flotilla_cluster::ClusterConfig;
use flotilla_model::command::QueuePolicy;
use flotilla_model::name::Name;
use tokio::task::JoinSet;

use crate::clients::{Consumer, Producer, Queue, Reader, Target};
use crate::clock::HostClock;
use crate::faults::Faults;
use crate::finish;
use crate::host::{Host, Setup};
use crate::machine::Random;
use crate::network::{Port, Weather, Wires};
use crate::options::Defect;
use crate::world::World;

const HOUR_MS: i64 = 3_600_000;
const RECEIVE_COUNT_MAX: u32 = 3;
/// For forming a cluster, among hosts that nothing happens to yet.
const FORMING_MAX: Duration = Duration::from_secs(60);

/// Runs one scenario from its beginning to its verdict.
pub async fn run(seed: u64, root: &Path, defect: Option<Defect>, prints: bool) -> World {
    let mut random = Random::new(seed ^ 0x005E_EDED);
    let weather = weather(&mut random);
    let wires = Wires::new(random.split(), weather);
    let hosts = hosts(&mut random, root, &wires, defect);
    let world = World::new(hosts, wires, prints);
    let count = world.host_count();
    world.tell(&format!("seed {seed}: {count} hosts, {weather:?}"));
    world.hosts().for_each(|mut host| host.start());
    if !finish::wait_until_ready(&world, FORMING_MAX).await {
        world.violate("the hosts formed no cluster in time".to_owned());
        return world;
    }
    world.tell("the cluster is formed");
    let queues = queues();
    let topics = topics();
    let mut clients = load(&world, &mut random, &topics, &queues, defect);
    let faults = Faults::new(world.clone(), random.split(), weather, defect);
    faults.run().await;
    world.end_load();
    while clients.join_next().await.is_some() {}
    finish::finish(&world, &topics, &queues).await;
    world
}

/// Topics, with names that lie on different shards.
fn topics() -> Vec<Name> {
    names(&["orders", "events"], Name::topic)
}

fn names<E>(texts: &[&str], name: impl Fn(&str) -> Result<Name, E>) -> Vec<Name> {
    texts.iter().filter_map(|text| name(text).ok()).collect()
}

/// A plain queue, and one whose messages become dead letters in a third.
fn queues() -> Vec<Queue> {
    let mut queues: Vec<Queue> = names(&["jobs", "tries", "dead"], Name::queue)
        .into_iter()
        .map(|name| Queue {
            name,
            policy: QueuePolicy::default(),
        })
        .collect();
    let dead_letter = queues[2].name.clone();
    queues[1].policy = QueuePolicy {
        receive_count_max: RECEIVE_COUNT_MAX,
        dead_letter: Some(dead_letter),
        ..QueuePolicy::default()
    };
    queues
}

fn weather(random: &mut Random) -> Weather {
    let (latency_min_us, spread_us) = match random.below(4) {
        0 => (20, 200),
        1 => (200, 2_000),
        2 => (500, 10_000),
        _ => (50, 30_000),
    };
    Weather {
        latency_min: Duration::from_micros(latency_min_us),
        latency_max: Duration::from_micros(latency_min_us + spread_us),
        loss_odds: [1 << 40, 2_000, 300][random.below(3) as usize],
        refusal_odds: [1 << 40, 20][random.below(2) as usize],
    }
}

fn hosts(random: &mut Random, root: &Path, wires: &Wires, defect: Option<Defect>) -> Vec<Host> {
    let count: u32 = if random.once_in(12) { 5 } else { 3 };
    let setup = Arc::new(Setup {
        root: root.to_owned(),
        wires: wires.clone(),
        config: config(random, count),
        syncs_lie: defect == Some(Defect::NoSync),
    });
    (1..=count)
        .map(|number| {
            // Crystals are off by less than 100 in a million; wall clocks by what people do to them.
            let gain = random.below(200) as i64 - 100;
            let shift_ms = match random.once_in(4) {
                true => random.below(4 * HOUR_MS as u64) as i64 - 2 * HOUR_MS,
                false => random.below(100) as i64,
            };
            let clock = HostClock::new(gain, shift_ms);
            Host::new(number, setup.clone(), clock, random.split())
        })
        .collect()
}

fn config(random: &mut Random, count: u32) -> ClusterConfig {
    // The parts that differ from host to host are set by the host.
    let mut config = ClusterConfig::new("/");
    config.shards = 2;
    config.expect = count;
    config.seeds = (1..=count).map(Port::address_of).collect();
    config.log.segment_bytes = [64 << 10, 256 << 10, 1 << 20][random.below(3) as usize];
    config.log.reserve_bytes = Some(1 << 20);
    config.log.index_cache_bytes = 4 << 20;
    config.log.tail_cache_bytes = [16 << 10, 1 << 20][random.below(2) as usize];
    config.state_cache_bytes = [32 << 10, 4 << 20][random.below(2) as usize];
    config.checkpoint.interval = Duration::from_millis(random.between(500, 6_000));
    config.checkpoint.log_bytes = [32 << 10, 1 << 20][random.below(2) as usize];
    // With little log kept, who was away needs a snapshot.
    config.checkpoint.log_keep_bytes = [8 << 10, 1 << 20][random.below(2) as usize];
    config
}

fn load(
    world: &World,
    random: &mut Random,
    topics: &[Name],
    queues: &[Queue],
    defect: Option<Defect>,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let mut number = 0;
    let topic_targets = topics.iter().cloned().map(Target::Topic);
    let queue_targets = queues[..2].iter().cloned().map(Target::Queue);
    let pause_ms_max = random.between(40, 300);
    for target in topic_targets.chain(queue_targets) {
        for _ in 0..2 {
            number += 1;
            let producer = Producer {
                world: world.clone(),
                number,
                target: target.clone(),
                random: random.split(),
                pause_ms_max,
                repeats_blindly: defect == Some(Defect::BlindRepeats),
            };
            clients.spawn(producer.run());
        }
    }
    for topic in topics {
        let reader = Reader {
            world: world.clone(),
            topic: topic.clone(),
            random: random.split(),
        };
        clients.spawn(reader.run());
    }
    for queue in queues {
        // Dead letters are left for the end.
        let consumers = if queue.name.text() == "dead" { 0 } else { 2 };
        let mut history = world.recorder().history();
        let of_queue = history.queue(queue.name.text());
        if queue.policy.receive_count_max > 0 {
            of_queue.receive_count_max = Some(queue.policy.receive_count_max);
        }
        of_queue.dead_letter = queue
            .policy
            .dead_letter
            .as_ref()
            .map(|name| name.text().to_owned());
        drop(history);
        for _ in 0..consumers {
            number += 1;
            let consumer = Consumer {
                world: world.clone(),
                number,
                queue: queue.name.clone(),
                random: random.split(),
            };
            clients.spawn(consumer.run());
        }
    }
    clients
}
