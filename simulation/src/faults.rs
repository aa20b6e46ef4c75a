//! What goes wrong in a scenario, one thing after the other or at the same time.

use std::time::Duration;

use flotilla_tests::history::Fault;
use tokio::task::JoinSet;

use crate::host::End;
use crate::machine::{self, Random};
use crate::network::Weather;
use crate::options::Defect;
use crate::world::World;

const HOUR_MS: i64 = 3_600_000;
const KINDS: [Kind; 14] = [
    Kind::Kill,
    Kind::KillAll,
    Kind::PowerCut,
    Kind::PowerCutOfMost,
    Kind::PowerCutOfAll,
    Kind::Isolate,
    Kind::OneWay,
    Kind::Pair,
    Kind::Freeze,
    Kind::WallClock,
    Kind::SlowDisk,
    Kind::FailedSync,
    Kind::Storm,
    Kind::Restart,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    KillAll,
    PowerCut,
    PowerCutOfMost,
    PowerCutOfAll,
    Isolate,
    OneWay,
    Pair,
    Freeze,
    WallClock,
    SlowDisk,
    FailedSync,
    Storm,
    Restart,
}

pub struct Faults {
    world: World,
    random: Random,
    weather: Weather,
    kinds: Vec<Kind>,
}

impl Faults {
    /// A scenario has some of the kinds only: what one of them does must not always be covered up by
    /// the others.
    pub fn new(world: World, mut random: Random, weather: Weather, defect: Option<Defect>) -> Self {
        let mut kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.once_in(3)).collect();
        if kinds.is_empty() {
            kinds = vec![KINDS[random.below(KINDS.len() as u64) as usize]];
        }
        // What it takes to see them at all.
        match defect {
            Some(Defect::NoSync) => kinds.push(Kind::PowerCutOfAll),
            Some(Defect::BlindRepeats) => kinds.extend([Kind::Kill, Kind::Isolate, Kind::Freeze]),
            None => {}
        }
        world.tell(&format!("faults: {kinds:?}"));
        Self {
            world,
            random,
            weather,
            kinds,
        }
    }

    /// Until all has happened; at the end every host is where it was, or is about to be.
    pub async fn run(mut self) {
        let from = self.world.recorder().now();
        let mut running = JoinSet::new();
        let count = self.random.between(2, 7);
        for _ in 0..count {
            self.wait(100, 2_000).await;
            let kind = self.kinds[self.random.below(self.kinds.len() as u64) as usize];
            let fault = OneFault {
                world: self.world.clone(),
                random: self.random.split(),
                weather: self.weather,
            };
            running.spawn(fault.happen(kind));
            // What follows may come while this one lasts.
            if self.random.once_in(2) {
                while running.join_next().await.is_some() {}
            }
        }
        while running.join_next().await.is_some() {}
        self.wait(500, 1_500).await;
        let until = self.world.recorder().now();
        self.world.recorder().history().faults.push(Fault {
            what: format!("{:?}", self.kinds),
            nodes: (1..=self.world.host_count()).collect(),
            from,
            until: until.plus(Duration::from_secs(60)),
        });
    }

    async fn wait(&mut self, ms_min: u64, ms_max: u64) {
        let ms = self.random.between(ms_min, ms_max);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

struct OneFault {
    world: World,
    random: Random,
    weather: Weather,
}

impl OneFault {
    async fn happen(mut self, kind: Kind) {
        let host = self.any_host();
        let other = self.other_than(host);
        self.world.tell(&format!(
            "fault: {kind:?}, host {host} first, host {other} next"
        ));
        let torn = !self.random.once_in(3);
        let cut = End::PowerCut { torn };
        match kind {
            Kind::Kill => self.end(&[host], End::Kill).await,
            Kind::KillAll => self.end(&self.all(), End::Kill).await,
            Kind::PowerCut => self.end(&[host], cut).await,
            Kind::PowerCutOfMost => {
                let mut most = self.all();
                most.retain(|spared| *spared != host);
                self.end(&most, cut).await;
            }
            Kind::PowerCutOfAll => self.end(&self.all(), cut).await,
            Kind::Isolate => {
                for peer in self.all() {
                    self.world.wires().cut(host, peer);
                    self.world.wires().cut(peer, host);
                }
                self.mend().await;
            }
            Kind::OneWay => {
                for peer in self.all() {
                    self.world.wires().cut(host, peer);
                }
                self.mend().await;
            }
            Kind::Pair => {
                self.world.wires().cut(host, other);
                self.world.wires().cut(other, host);
                self.mend().await;
            }
            Kind::Freeze => {
                let ms = self.random.between(100, 8_000);
                machine::freeze(host, Duration::from_millis(ms));
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Kind::WallClock => {
                let shift_ms = self.random.below(48 * HOUR_MS as u64) as i64 - 24 * HOUR_MS;
                self.world.host(host).clock().shift_ms(shift_ms);
            }
            Kind::SlowDisk => {
                let ms = self.random.between(5, 400);
                self.world
                    .host(host)
                    .disk()
                    .delay_syncs(Duration::from_millis(ms));
                self.wait(500, 4_000).await;
                self.world.host(host).disk().delay_syncs(Duration::ZERO);
            }
            Kind::FailedSync => {
                let number = self.random.below(20);
                if !self.world.host(host).is_up() {
                    return;
                }
                self.world.host(host).disk().fail_sync(number);
                self.wait(500, 3_000).await;
                // Its log has stopped for good.
                self.end(&[host], End::Kill).await;
            }
            Kind::Storm => self.storm(host, other).await,
            Kind::Restart => self.restart(host).await,
        }
    }

    fn all(&self) -> Vec<u32> {
        (1..=self.world.host_count()).collect()
    }

    fn any_host(&mut self) -> u32 {
        1 + self.random.below(u64::from(self.world.host_count())) as u32
    }

    fn other_than(&mut self, host: u32) -> u32 {
        loop {
            let other = self.any_host();
            if other != host {
                return other;
            }
        }
    }

    async fn wait(&mut self, ms_min: u64, ms_max: u64) {
        let ms = self.random.between(ms_min, ms_max);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn end(&mut self, hosts: &[u32], end: End) {
        for host in hosts {
            self.world.host(*host).end(end);
        }
        self.world.tell(&format!("{hosts:?} are down: {end:?}"));
        let mut hosts = hosts.to_vec();
        // Not in the same order each time, and not all at once.
        while !hosts.is_empty() {
            self.wait(50, 2_000).await;
            let place = self.random.below(hosts.len() as u64) as usize;
            let host = hosts.remove(place);
            self.start(host);
        }
    }

    fn start(&self, number: u32) {
        let mut host = self.world.host(number);
        if !host.is_up() {
            host.start();
            self.world.tell(&format!("host {number} is started"));
        }
    }

    async fn mend(&mut self) {
        self.wait(300, 7_000).await;
        self.world.wires().mend();
        self.world.tell("the network is whole");
    }

    async fn storm(&mut self, host: u32, other: u32) {
        self.world.wires().set_weather(Weather {
            latency_max: self.weather.latency_max * 4,
            loss_odds: 20,
            refusal_odds: 4,
            ..self.weather
        });
        for _ in 0..self.random.between(1, 8) {
            self.world.wires().reset(host, other);
            self.wait(50, 500).await;
        }
        self.world.wires().set_weather(self.weather);
    }

    async fn restart(&mut self, number: u32) {
        // The host is free for others while it shuts down.
        let ended = self.world.host(number).shut_down();
        ended.await;
        self.world.host(number).has_left();
        self.world.tell(&format!("host {number} has shut down"));
        self.wait(20, 500).await;
        self.start(number);
    }
}
