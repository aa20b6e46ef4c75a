//! The load of the crash and power-cut tests: SDK processes that send, consume, purge and follow
//! while servers are killed under them, and the verdict at the end.
//!
//! ```text
//!   writers    -> topic-0..3  -> 1 tail (follows all)
//!              -> queue-0..3  -> 2 consumers (queue-2, queue-3)
//!   1 purger   -> purged         sends and removes by itself
//! ```
//!
//! With several servers, each process goes to another one when a call fails.

use crate::checker::{self, Violation};
use crate::journal::{Attempt, Journal, Seen};
use crate::python::{Script, Sdk};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WRITERS: u32 = 8;
/// Comes after all writers.
const PURGER: u32 = 1000;
const CHANNELS: u32 = 4;
/// Queues from this one on have a consumer.
const CONSUMED_FROM: u32 = 2;
const PURGED: &str = "purged";
const WRITER: &str = "writer.py";
/// How long a process may take to end, with an operation under way.
const FINISH_LIMIT: Duration = Duration::from_secs(120);
const READ_BACK_LIMIT: Duration = Duration::from_secs(180);
/// Broken promises shown in a failure; the first ones tell the most.
const SHOWN_MAX: usize = 20;

fn topic(number: u32) -> String {
    format!("topic-{}", number % CHANNELS)
}

fn queue(number: u32) -> String {
    format!("queue-{}", number % CHANNELS)
}

/// The running load.
pub struct Load {
    scripts: Vec<Script>,
    /// Journal files and whose messages they speak of.
    journals: Vec<(PathBuf, u32)>,
    counters: Vec<Counter>,
    directory: PathBuf,
    /// Of all servers, separated by commas.
    addresses: String,
    seed: u64,
}

impl Load {
    /// Starts all processes. The server may come and go, but always at this address.
    pub fn start(address: SocketAddr, directory: &Path, seed: u64) -> Self {
        Self::start_with(WRITERS, &[address], directory, seed)
    }

    /// The same with another number of writers, and several servers.
    pub fn start_with(writers: u32, addresses: &[SocketAddr], directory: &Path, seed: u64) -> Self {
        std::fs::create_dir_all(directory).expect("the work directory takes new directories");
        let mut load = Self {
            scripts: Vec::new(),
            journals: Vec::new(),
            counters: Vec::new(),
            directory: directory.to_owned(),
            addresses: addresses
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
                .join(","),
            seed,
        };
        for producer in 1..=writers {
            let arguments = [
                ("--producer", producer.to_string()),
                ("--seed", seed.to_string()),
                ("--topic", topic(producer)),
                ("--queue", queue(producer)),
            ];
            load.spawn(
                WRITER,
                &format!("writer-{producer}"),
                producer,
                &arguments,
                &[],
            );
        }
        for number in CONSUMED_FROM..CHANNELS {
            let arguments = [("--queue", queue(number))];
            load.spawn(
                "consumer.py",
                &format!("consumer-{number}"),
                0,
                &arguments,
                &[],
            );
        }
        let arguments = [
            ("--producer", PURGER.to_string()),
            ("--seed", seed.to_string()),
            ("--queue", PURGED.to_owned()),
        ];
        load.spawn("purger.py", "purger", PURGER, &arguments, &[]);
        let topics: Vec<String> = (0..CHANNELS).map(topic).collect();
        load.spawn("tail.py", "tail", 0, &[], &topics);
        load
    }

    fn spawn(
        &mut self,
        script: &str,
        name: &str,
        producer: u32,
        options: &[(&str, String)],
        rest: &[String],
    ) {
        let journal = self.directory.join(format!("{name}.journal"));
        std::fs::write(&journal, "").expect("the work directory takes new files");
        let mut arguments = vec!["--address".to_owned(), self.addresses.clone()];
        for (option, value) in options {
            arguments.extend([(*option).to_owned(), value.clone()]);
        }
        arguments.extend(["--journal".to_owned(), journal.display().to_string()]);
        arguments.extend_from_slice(rest);
        let log = self.directory.join(format!("{name}.log"));
        if script == WRITER {
            let counter = Counter::new(&journal).expect("the journal was just made");
            self.counters.push(counter);
        }
        let script = Script::start(Sdk::V4_1_5, script, &arguments, &log).expect("Python starts");
        self.scripts.push(script);
        self.journals.push((journal, producer));
    }

    /// Acknowledgements noted so far by all writers.
    fn acknowledged(&mut self) -> usize {
        self.counters.iter_mut().map(Counter::count).sum()
    }

    /// Waits until `more` acknowledgements have been noted; false if that took too long.
    pub fn wait_for_progress(&mut self, more: usize, limit: Duration) -> bool {
        let wanted = self.acknowledged() + more;
        let deadline = Instant::now() + limit;
        while self.acknowledged() < wanted {
            if Instant::now() > deadline {
                return false;
            }
            for script in &mut self.scripts {
                script.expect_running();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Ends all processes, reads everything back from the server, which must be running, and checks
    /// it against what was promised.
    pub fn verdict(mut self) -> Verdict {
        for script in &mut self.scripts {
            script.stop();
        }
        for script in self.scripts.drain(..) {
            script.finish(FINISH_LIMIT);
        }
        let read_back = self.read_back();
        let journals: Vec<Journal> = self
            .journals
            .iter()
            .map(|(path, producer)| Journal::read(path, *producer).expect("a journal is readable"))
            .collect();
        judge(&journals, &read_back)
    }

    fn read_back(&self) -> Journal {
        let journal = self.directory.join("readback.journal");
        let mut arguments: Vec<String> = [
            ("--address", self.addresses.clone()),
            ("--journal", journal.display().to_string()),
            ("--seed", self.seed.to_string()),
            ("--marker", "1".to_owned()),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect();
        for number in 0..CHANNELS {
            arguments.extend(["--topic".to_owned(), topic(number)]);
            arguments.extend(["--queue".to_owned(), queue(number)]);
        }
        arguments.extend(["--queue".to_owned(), PURGED.to_owned()]);
        let log = self.directory.join("readback.log");
        Script::start(Sdk::V4_1_5, "readback.py", &arguments, &log)
            .expect("Python starts")
            .finish(READ_BACK_LIMIT);
        Journal::read(&journal, 0).expect("a journal is readable")
    }
}

/// Counts acknowledgements in a journal that grows, reading each byte once.
struct Counter {
    file: File,
    at_line_start: bool,
    count: usize,
}

impl Counter {
    fn new(journal: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(journal)?,
            at_line_start: true,
            count: 0,
        })
    }

    fn count(&mut self) -> usize {
        let mut bytes = Vec::new();
        self.file
            .read_to_end(&mut bytes)
            .expect("a journal is readable");
        for byte in bytes {
            self.count += usize::from(self.at_line_start && byte == b'A');
            self.at_line_start = byte == b'\n';
        }
        self.count
    }
}

/// What the load did, and which promises were broken.
pub struct Verdict {
    pub acknowledged: usize,
    pub unknown: usize,
    pub read: usize,
    pub consumed: usize,
    pub followed: usize,
    pub violations: Vec<(String, Violation)>,
}

impl Verdict {
    pub fn count_lost(&self) -> usize {
        let lost = |(_, violation): &&(String, Violation)| matches!(violation, Violation::Lost(_));
        self.violations.iter().filter(lost).count()
    }

    /// The figures and the first broken promises.
    pub fn report(&self) -> String {
        let mut text = format!(
            "{} messages acknowledged, {} unknown; {} read back, {} consumed, {} followed; {} violations",
            self.acknowledged,
            self.unknown,
            self.read,
            self.consumed,
            self.followed,
            self.violations.len()
        );
        for (channel, violation) in self.violations.iter().take(SHOWN_MAX) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {channel}: {violation}");
        }
        text
    }
}

/// Compares the notes of all processes with what was read back at the end.
fn judge(journals: &[Journal], read_back: &Journal) -> Verdict {
    let mut attempts: BTreeMap<&str, Vec<Attempt>> = BTreeMap::new();
    for (channel, sent) in journals
        .iter()
        .chain([read_back])
        .flat_map(|journal| &journal.attempts)
    {
        attempts.entry(channel).or_default().extend_from_slice(sent);
    }
    let mut verdict = Verdict {
        acknowledged: attempts
            .values()
            .flatten()
            .filter(|attempt| attempt.acknowledged)
            .count(),
        unknown: attempts
            .values()
            .flatten()
            .filter(|attempt| !attempt.acknowledged)
            .count(),
        read: 0,
        consumed: 0,
        followed: 0,
        violations: Vec::new(),
    };
    for (channel, sent) in &attempts {
        let read = read_back.received(channel);
        verdict.read += read.len();
        let violations = if channel.starts_with("topic") {
            let tail: Vec<Seen> = journals
                .iter()
                .flat_map(|journal| journal.received(channel))
                .collect();
            verdict.followed += tail.len();
            let starts = read_back
                .starts
                .get(*channel)
                .map_or(&[][..], Vec::as_slice);
            let mut violations = checker::check_topic(sent, &read);
            violations.extend(checker::check_tail(&tail, &read));
            violations.extend(checker::check_starts(starts, read.len() as u64));
            violations
        } else if let Some(removed) = find(journals, |journal| journal.removed.get(*channel)) {
            let up_to = find(journals, |journal| journal.purged_up_to.get(*channel));
            let own: Vec<Attempt> = sent
                .iter()
                .filter(|attempt| attempt.producer == PURGER)
                .copied()
                .collect();
            let read: Vec<Seen> = read
                .iter()
                .filter(|seen| seen.producer != 0)
                .copied()
                .collect();
            checker::check_purged_queue(&own, removed, up_to.copied().unwrap_or(0), &read)
        } else if let Some(consumed) = find(journals, |journal| journal.consumed.get(*channel)) {
            verdict.consumed += consumed.len();
            checker::check_consumed_queue(sent, consumed, &read)
        } else {
            checker::check_untouched_queue(sent, &read)
        };
        let named = violations
            .into_iter()
            .map(|violation| ((*channel).to_owned(), violation));
        verdict.violations.extend(named);
    }
    verdict
}

fn find<'a, T>(
    journals: &'a [Journal],
    part: impl Fn(&'a Journal) -> Option<&'a T>,
) -> Option<&'a T> {
    journals.iter().find_map(part)
}
