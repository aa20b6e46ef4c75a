//! `flotilla bench`: becomes the program `flotilla-bench`, which is built beside this one and is not a
//! part of it, since it brings the clients of other brokers along. It measures this program unless the
//! command line names another one.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::DaemonError;

/// What the bench is called, beside this program or in the search path.
const PROGRAM: &str = "flotilla-bench";
/// Tells the bench which build of Flotilla is to be measured.
const SERVER_VARIABLE: &str = "FLOTILLA_BENCH_SERVER";

/// Runs the bench with these arguments, in the place of this process. Comes back only if that fails.
pub fn run(arguments: &[OsString]) -> Result<(), DaemonError> {
    let here = std::env::current_exe().map_err(|source| DaemonError::Bench {
        program: PathBuf::from(PROGRAM),
        source,
    })?;
    let program = find(&here);
    Err(become_bench(&program, &here, arguments))
}

/// The bench of the same build if there is one, or else whichever the search path has.
fn find(here: &Path) -> PathBuf {
    let beside = here.with_file_name(PROGRAM);
    if beside.is_file() {
        beside
    } else {
        PathBuf::from(PROGRAM)
    }
}

fn become_bench(program: &Path, here: &Path, arguments: &[OsString]) -> DaemonError {
    let source: io::Error = Command::new(program)
        .args(arguments)
        .env(SERVER_VARIABLE, here)
        .exec();
    DaemonError::Bench {
        program: program.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bench_of_the_same_build_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("flotilla");
        assert_eq!(find(&here), PathBuf::from(PROGRAM));
        let beside = folder.path().join(PROGRAM);
        std::fs::write(&beside, "").unwrap();
        assert_eq!(find(&here), beside);
    }

    #[test]
    fn a_bench_that_is_not_there_is_named_with_what_helps() {
        let nowhere = Path::new("/nowhere/flotilla-bench");
        let error = become_bench(nowhere, Path::new("/nowhere/flotilla"), &[]);
        let text = error.chain();
        assert!(text.contains("/nowhere/flotilla-bench"), "{text}");
        assert!(text.contains("make bench-build"), "{text}");
    }
}
