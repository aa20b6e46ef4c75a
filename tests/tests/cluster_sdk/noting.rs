//! Processes that note what happens to them, and waiting for what they note.

use flotilla_tests::cluster::Fleet;
use flotilla_tests::python::{Script, Sdk};
use flotilla_tests::workdir::WorkDir;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const FINISH_LIMIT: Duration = Duration::from_secs(120);
/// For what goes on beside a death, which costs a few seconds.
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);
/// Of what each phase of a test must bring.
pub const PROGRESS: usize = 40;

/// A process that notes what happens to it.
pub struct Noting {
    script: Script,
    journal: PathBuf,
}

impl Noting {
    pub fn start(
        work: &WorkDir,
        sdk: Sdk,
        script: &str,
        name: &str,
        options: &[(&str, String)],
    ) -> Self {
        let journal = work.join(&format!("{name}.journal"));
        let mut arguments = vec!["--journal".to_owned(), journal.display().to_string()];
        for (option, value) in options {
            arguments.extend([(*option).to_owned(), value.clone()]);
        }
        let log = work.join(&format!("{name}.log"));
        let script = Script::start(sdk, script, &arguments, &log).expect("Python starts");
        Self { script, journal }
    }

    /// The lines of this kind, without it.
    pub fn lines(&self, kind: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.journal).unwrap_or_default();
        // What is being written has no end yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let of_kind = |line: &str| Some(line.strip_prefix(kind)?.strip_prefix(' ')?.to_owned());
        whole.lines().filter_map(of_kind).collect()
    }

    /// Ends it and gives the lines of a kind.
    pub fn finish(self, kind: &str) -> Vec<String> {
        let Self { script, journal } = self;
        script.finish(FINISH_LIMIT);
        let text = std::fs::read_to_string(journal).unwrap_or_default();
        let of_kind = |line: &str| Some(line.strip_prefix(kind)?.strip_prefix(' ')?.to_owned());
        text.lines().filter_map(of_kind).collect()
    }
}

pub fn all(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    texts.join(",")
}

pub fn wait_until(what: &str, fleet: &Fleet, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        let waited = began.elapsed();
        assert!(waited < PROGRESS_LIMIT, "{what}\n{}", fleet.describe());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{what}: after {:.1?}", began.elapsed());
}

/// Waits until each of these brings that many more lines of its kind; those in one slice bring them together.
pub fn wait_for_more(what: &str, fleet: &Fleet, more: usize, each: &[(&[Noting], &str)]) {
    let count = |(together, kind): &(&[Noting], &str)| -> usize {
        together.iter().map(|one| one.lines(kind).len()).sum()
    };
    let wanted: Vec<usize> = each.iter().map(|one| count(one) + more).collect();
    wait_until(what, fleet, || {
        std::iter::zip(each, &wanted).all(|(one, wanted)| count(one) >= *wanted)
    });
}
