//! The optimised simulator, which `scripts/test-variants.sh` makes, beside the one that cargo makes.
//!
//! Cargo does not build it before tests run, so it may be older than what is to be tested. But cargo notes
//! which sources its own one is made of: if any of them is newer, the optimised one is refused.

use std::io;
use std::path::{Path, PathBuf};

/// The program, if it was built from the sources that are there now.
pub fn program() -> PathBuf {
    let plain = Path::new(env!("CARGO_BIN_EXE_flotilla-simulation"));
    let optimised = plain.with_file_name("variant").join("flotilla-simulation");
    match newer_source(&optimised, &plain.with_extension("d")) {
        Ok(None) => optimised,
        Ok(Some(source)) => panic!(
            "{} is older than {}: run scripts/test-variants.sh",
            optimised.display(),
            source.display()
        ),
        Err(error) => panic!(
            "{} is not there, or not comparable with its sources: run scripts/test-variants.sh ({error})",
            optimised.display()
        ),
    }
}

/// A source that has changed since a program was built, or is gone. `noted` is what cargo wrote about the
/// program that it builds from the same sources.
fn newer_source(program: &Path, noted: &Path) -> io::Result<Option<PathBuf>> {
    let built = program.metadata()?.modified()?;
    let target = noted.parent().unwrap_or(noted);
    for source in sources(&std::fs::read_to_string(noted)?) {
        // What build scripts write is written anew without any change.
        if source.starts_with(target) {
            continue;
        }
        let is_newer = match source.metadata() {
            Ok(metadata) => metadata.modified()? > built,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        if is_newer {
            return Ok(Some(source));
        }
    }
    Ok(None)
}

/// The files of a rule of make, `program: source source`, in which spaces of a name are escaped.
fn sources(rule: &str) -> Vec<PathBuf> {
    let names = rule.split_once(": ").map_or("", |(_, names)| names);
    let names = names.trim_end().replace("\\ ", "\0");
    names
        .split_whitespace()
        .map(|name| PathBuf::from(name.replace('\0', " ")))
        .collect()
}

mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_program_that_is_older_than_one_of_its_sources_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let now = SystemTime::now();
        let file = |path: &Path, age_s: u64| {
            let file = File::create(path).unwrap();
            file.set_modified(now - Duration::from_secs(age_s)).unwrap();
        };
        let [program, written] = ["program", "written.rs"].map(|name| target.join(name));
        let [source, spaced] = ["main.rs", "a name.rs"].map(|name| dir.path().join(name));
        file(&program, 60);
        file(&written, 0);
        file(&source, 90);
        file(&spaced, 90);
        let noted = target.join("program.d");
        let escaped = spaced.display().to_string().replace(' ', "\\ ");
        let [program_name, source_name, written_name] =
            [&program, &source, &written].map(|path| path.display());
        let rule = format!("{program_name}: {escaped} {source_name} {written_name}\n");
        std::fs::write(&noted, rule).unwrap();
        assert_eq!(newer_source(&program, &noted).unwrap(), None);
        file(&spaced, 30);
        assert_eq!(newer_source(&program, &noted).unwrap(), Some(spaced));
        file(&program, 10);
        assert_eq!(newer_source(&program, &noted).unwrap(), None);
        std::fs::remove_file(&source).unwrap();
        assert_eq!(newer_source(&program, &noted).unwrap(), Some(source));
        std::fs::remove_file(&program).unwrap();
        assert!(newer_source(&program, &noted).is_err());
    }
}
