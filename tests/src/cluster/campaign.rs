//! Faults one after another under load, and the verdict.

use super::fault::Fault;
use super::fleet::Fleet;
use super::node::Node;
use crate::checker::Violation;
use crate::disk_watch::DiskWatch;
use crate::history::Moment;
use crate::history::check::{self, Broken, Figures};
use crate::seed;
use crate::workload::{Plan, Workload, read_back};
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

/// On a machine of the usual speed longer is a failure, whatever happened, but for a disk that answers nobody.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(20);
/// What is promised for half of all faults.
const MEDIAN_MAX: Duration = Duration::from_secs(3);
/// So many losses of files cannot all have been of what nobody needs.
const LOSSES_MIN: usize = 10;
/// Broken promises shown in a failure; the first ones tell the most.
const SHOWN_MAX: usize = 20;

/// One fault that was survived.
#[derive(Clone, Debug)]
pub struct Survived {
    pub fault: Fault,
    pub nodes: Vec<u32>,
    /// Until each topic had taken a write.
    pub accepted_after: Duration,
    pub lasted: Duration,
    /// Replicas that were made anew for it.
    pub mended: u64,
}

/// A cluster under load.
pub struct Campaign {
    name: &'static str,
    // Ended before the servers are.
    workload: Workload,
    fleet: Fleet,
    random: StdRng,
    seed: u64,
    survived: Vec<Survived>,
    compares_replicas: bool,
    disk: DiskWatch,
}

impl Campaign {
    /// Puts a little load on a cluster. Until it has its feature level, what is promised of deliveries that
    /// nobody sees is less.
    pub fn start(name: &'static str, fleet: Fleet, seed: u64) -> Self {
        fleet.wait_until_levelled();
        let workload = Workload::start(&fleet.kubemq(), Plan::small(seed));
        Self {
            name,
            workload,
            fleet,
            random: seed::random(seed),
            seed,
            survived: Vec::new(),
            compares_replicas: false,
            disk: DiskWatch::start(),
        }
    }

    /// At the end reads topics while each node is away too, so that other replicas lead and what
    /// they hold is compared.
    pub fn compare_replicas(mut self) -> Self {
        self.compares_replicas = true;
        self
    }

    pub fn fleet(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    pub fn node(&mut self, number: u32) -> &mut Node {
        self.fleet.node_mut(number)
    }

    /// Asks a node to end, which it must do in time and well.
    pub fn terminate(&mut self, number: u32) {
        let ended = self.fleet.node_mut(number).terminate();
        let status = ended.unwrap_or_else(|error| panic!("node {number}: {error}"));
        assert!(status.success(), "node {number} ended with {status}");
    }

    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Waits until all nodes and all topics work.
    pub fn settle(&self) {
        self.fleet.wait_until_whole();
        self.accepted_after(self.workload.recorder().now());
    }

    /// Does something to nodes that their clients may notice, and waits until all works again.
    pub fn disturb(&mut self, what: &str, nodes: &[u32], action: impl FnOnce(&mut Self)) {
        let began = self.workload.recorder().now();
        action(self);
        self.settle();
        self.workload.note_fault(what, nodes, began);
    }

    /// Does one fault, waits for service, takes it back.
    pub fn round(&mut self, fault: Fault) {
        self.settle();
        let began = self.workload.recorder().now();
        let injected = fault.inject(&mut self.fleet, &mut self.random);
        let lasts_ms = fault.lasts_ms(&mut self.random, seed::is_torture());
        let mut since = self.workload.recorder().now();
        let mut mended = 0;
        if injected.stops_all {
            mended = injected.undo(&mut self.fleet);
            since = self.workload.recorder().now();
        }
        let accepted_after = self.accepted_after(since);
        let wanted = Duration::from_millis(lasts_ms);
        std::thread::sleep(wanted.saturating_sub(accepted_after));
        if !injected.stops_all {
            mended = injected.undo(&mut self.fleet);
        }
        self.workload
            .note_fault(&format!("{fault:?}"), &injected.nodes, began);
        let ended = self.workload.recorder().now();
        let survived = Survived {
            fault,
            nodes: injected.nodes,
            accepted_after,
            lasted: Duration::from_nanos(ended.0 - began.0),
            mended,
        };
        println!("{survived}");
        self.survived.push(survived);
    }

    fn accepted_after(&self, since: Moment) -> Duration {
        let began = Instant::now();
        let accepted_within = seed::stretched(ACCEPTED_WITHIN);
        let mut accepted = BTreeMap::new();
        let mut within = Duration::ZERO;
        let mut stood_still = Duration::ZERO;
        while within < accepted_within + stood_still && accepted.len() < self.workload.topics() {
            within = accepted_within + stood_still;
            let limit = within.saturating_sub(began.elapsed());
            accepted = self.workload.first_accepted(since, limit);
            stood_still = self.disk.stood_still_since(began);
        }
        if accepted.len() < self.workload.topics() {
            panic!(
                "seed {}: after {within:?} only {accepted:?} of {} topics took a write: {:?}\n{}",
                self.seed,
                self.workload.topics(),
                self.workload.failures().counts(),
                self.fleet.describe()
            );
        }
        accepted.into_values().max().unwrap_or_default()
    }

    /// Ends the load, reads everything back and checks it. Prints what was found, and appends it to
    /// the file that `FLOTILLA_TEST_REPORT` names.
    pub fn finish(self) {
        let seed = self.seed;
        self.settle();
        // By what the nodes themselves say of their disks, while entries are written.
        let running = self.fleet.running();
        self.fleet.expect_same_replicas(running[0]);
        let mut report = self.report();
        report.save();
        assert!(
            report.broken.is_empty(),
            "seed {seed}: {} broken promises, see above",
            report.broken.len()
        );
        if let Some(median) = report.median() {
            assert!(
                median <= seed::stretched(MEDIAN_MAX),
                "seed {seed}: half of the faults stopped writes for more than {median:?}"
            );
        }
        assert!(
            !losses_go_unnoticed(&report.survived),
            "seed {seed}: files were lost again and again, and nothing was ever mended"
        );
    }

    /// The same for servers that were made to break promises: at least one must be found that is
    /// of this kind.
    pub fn finish_broken(self, kind: impl Fn(&Violation) -> bool) {
        let seed = self.seed;
        let report = self.report();
        let mut violations = report.broken.iter().map(|broken| &broken.violation);
        assert!(
            violations.any(kind),
            "seed {seed}: nothing of the kind was found among {} broken promises",
            report.broken.len()
        );
    }

    fn report(mut self) -> Report {
        self.settle();
        if let Err(error) = self.read_back() {
            panic!("seed {}: {error}\n{}", self.seed, self.fleet.describe());
        }
        let failures = self.workload.failures().clone();
        let history = self.workload.into_history();
        self.fleet.terminate();
        let report = Report {
            name: self.name,
            seed: self.seed,
            survived: self.survived,
            figures: check::figures(&history),
            broken: check::check(&history),
        };
        for (reason, count) in failures.counts().iter() {
            println!("{count} sends failed with {reason:?}");
        }
        println!("{report}");
        for (kind, count) in report.kinds() {
            println!("{count} broken promises of the kind {kind}");
        }
        for broken in report.broken.iter().take(SHOWN_MAX) {
            println!("{broken}");
        }
        report
    }

    /// Ends the load and reads everything.
    fn read_back(&mut self) -> Result<(), String> {
        self.workload.stop()?;
        self.workload.read_topics(&self.nodes())?;
        let away = if self.compares_replicas {
            self.fleet.running()
        } else {
            Vec::new()
        };
        for away in away {
            self.fleet.node_mut(away).kill();
            self.workload.read_topics(&self.nodes()[..1])?;
            self.fleet.restart(away);
        }
        self.workload.drain_queues(&self.nodes())
    }

    /// The nodes that run.
    fn nodes(&self) -> Vec<read_back::Node> {
        let running = self.fleet.running().into_iter();
        running
            .map(|number| read_back::Node {
                number,
                kubemq: self.fleet.node(number).kubemq(),
                admin: self.fleet.node(number).admin(),
            })
            .collect()
    }
}

/// Whether files were lost so often that some were needed, and nothing was mended. A single one may have held
/// only what nobody needed any more.
fn losses_go_unnoticed(survived: &[Survived]) -> bool {
    let losses = survived
        .iter()
        .filter(|one| one.fault == Fault::LoseFilesOfOne);
    let (count, mended) = losses.fold((0, 0), |(count, mended), one| {
        (count + 1, mended + one.mended)
    });
    count >= LOSSES_MIN && mended == 0
}

impl fmt::Display for Survived {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} of {:?}: writes to every topic after {} ms, over after {} ms",
            self.fault,
            self.nodes,
            self.accepted_after.as_millis(),
            self.lasted.as_millis()
        )
    }
}

/// What a campaign found.
struct Report {
    name: &'static str,
    seed: u64,
    survived: Vec<Survived>,
    figures: Figures,
    broken: Vec<Broken>,
}

impl Report {
    fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for broken in &self.broken {
            *kinds.entry(broken.violation.kind()).or_default() += 1;
        }
        kinds
    }

    fn median(&mut self) -> Option<Duration> {
        self.survived.sort_by_key(|one| one.accepted_after);
        let middle = self.survived.len() / 2;
        self.survived.get(middle).map(|one| one.accepted_after)
    }

    fn save(&self) {
        let Some(path) = std::env::var_os("FLOTILLA_TEST_REPORT") else {
            return;
        };
        let mut options = std::fs::OpenOptions::new();
        let written = options
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| writeln!(file, "{self}"));
        written.expect("the report can be written");
    }
}

impl fmt::Display for Report {
    /// A section in Markdown.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "## {}\n\nSeed {}: {}; {} broken promises.\n",
            self.name,
            self.seed,
            self.figures,
            self.broken.len()
        )?;
        writeln!(
            formatter,
            "| fault | rounds | writes to every topic again after, median | longest |\n|---|---|---|---|"
        )?;
        let mut by_fault: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
        for one in &self.survived {
            let times = by_fault.entry(one.fault).or_default();
            times.push(one.accepted_after);
        }
        for (fault, mut times) in by_fault {
            times.sort();
            writeln!(
                formatter,
                "| {fault:?} | {} | {} ms | {} ms |",
                times.len(),
                times[times.len() / 2].as_millis(),
                times[times.len() - 1].as_millis()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(mended: impl IntoIterator<Item = u64>) -> Vec<Survived> {
        let survived = mended.into_iter().map(|mended| Survived {
            fault: Fault::LoseFilesOfOne,
            nodes: vec![1],
            accepted_after: Duration::ZERO,
            lasted: Duration::ZERO,
            mended,
        });
        survived.collect()
    }

    #[test]
    fn many_losses_of_files_without_any_mending_are_noticed() {
        let none_mended = losses([0; LOSSES_MIN]);
        assert!(losses_go_unnoticed(&none_mended));
        assert!(!losses_go_unnoticed(&none_mended[1..]));
        let one_mended = losses([0; LOSSES_MIN].into_iter().chain([1]));
        assert!(!losses_go_unnoticed(&one_mended));
        let mut others = none_mended;
        others.iter_mut().for_each(|one| one.fault = Fault::KillOne);
        assert!(!losses_go_unnoticed(&others));
    }
}
