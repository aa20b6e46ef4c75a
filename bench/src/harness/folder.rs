//! The folder of the run that is under way: made anew for each, and removed after it. All that is in it
//! is removed with it, so it is one that this program has made: it holds a mark that says so.
//!
//! ```text
//!   --directory/flotilla-bench-run/MARK     removed last
//!                                 /data/    what a run may use
//! ```

use crate::BenchError;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const NAME: &str = "flotilla-bench-run";
const MARK: &str = "made-by-flotilla-bench";
const DATA: &str = "data";

pub struct RunFolder {
    parent: PathBuf,
    own: PathBuf,
}

impl RunFolder {
    /// In a directory that is there. It makes nothing yet.
    pub fn within(parent: &Path) -> Self {
        Self {
            parent: parent.to_owned(),
            own: parent.join(NAME),
        }
    }

    /// Makes it, without what an interrupted run has left. Says where the data of a run go.
    pub fn make(&self) -> Result<PathBuf, BenchError> {
        self.clear()?;
        let data = self.own.join(DATA);
        let made = std::fs::create_dir(&self.own)
            .and_then(|()| File::create(self.own.join(MARK)))
            .and_then(|_| std::fs::create_dir(&data));
        made.map_err(BenchError::io(format!("make {}", data.display())))?;
        Ok(data)
    }

    /// Removes it if it is there, and waits until the disk is at rest, so that the next run does not pay
    /// for it. A folder without the mark is somebody's own and stays.
    pub fn clear(&self) -> Result<(), BenchError> {
        if self.own.join(MARK).exists() {
            self.remove()
        } else {
            // Empty where the bench was interrupted between two steps: then it goes, else it stays.
            present(std::fs::remove_dir(&self.own)).map_err(|_| BenchError::NotOurs {
                folder: self.own.clone(),
            })
        }?;
        if let Ok(parent) = File::open(&self.parent) {
            // SAFETY: the descriptor is open. An error says that something else could not be written, and
            // changes nothing here.
            unsafe {
                libc::syncfs(parent.as_raw_fd());
            }
        }
        Ok(())
    }

    /// The data first: as long as some of them are there, the mark is too.
    fn remove(&self) -> Result<(), BenchError> {
        present(std::fs::remove_dir_all(self.own.join(DATA)))
            .and_then(|()| std::fs::remove_file(self.own.join(MARK)))
            .and_then(|()| std::fs::remove_dir(&self.own))
            .map_err(BenchError::io(format!("remove {}", self.own.display())))
    }
}

/// What is not there needs not be removed.
fn present(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).expect("it is there");
        entries
            .map(|entry| entry.expect("it is read").path())
            .collect()
    }

    #[test]
    fn what_an_interrupted_run_has_left_is_removed() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let folder = RunFolder::within(work.path());
        let data = folder.make().expect("it is new");
        std::fs::write(data.join("log"), "half").expect("it is ours");
        assert_eq!(folder.make().expect("it is made anew"), data);
        assert!(names(&data).is_empty());
        folder.clear().expect("it is removed");
        assert!(names(work.path()).is_empty());
        std::fs::create_dir(work.path().join(NAME)).expect("it is ours");
        folder.clear().expect("it is removed, since it is empty");
        assert!(names(work.path()).is_empty());
    }

    #[test]
    fn a_folder_that_the_bench_has_not_made_is_left_alone() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let theirs = work.path().join(NAME).join(DATA);
        std::fs::create_dir_all(&theirs).expect("it is theirs");
        std::fs::write(theirs.join("thesis"), "dear").expect("it is theirs");
        let error = RunFolder::within(work.path()).make();
        let error = error.expect_err("it is not ours").to_string();
        assert!(
            error.contains(NAME) && error.contains("--directory"),
            "{error}"
        );
        let kept = std::fs::read_to_string(theirs.join("thesis"));
        assert_eq!(kept.expect("it is there"), "dear");
    }
}
