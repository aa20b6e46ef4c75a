//! A directory of one test, removed at the end unless the test failed.

use std::path::{Path, PathBuf};

pub struct WorkDir {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl WorkDir {
    pub fn new(test: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix(&format!("flotilla-{test}-"))
            .tempdir()
            .expect("the temporary directory takes new directories");
        let path = directory.path().to_owned();
        Self {
            directory: Some(directory),
            path,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!(
                "the failed test's files are in {}",
                directory.keep().display()
            );
        }
    }
}
