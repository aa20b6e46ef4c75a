//! Directories that survive a power cut.
//!
//! A new directory is an entry of its parent, and durable only once the parent was synced. Whatever
//! is synced below a directory that vanishes is lost with it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Makes a directory, and its missing parents, for the owner only; durable on return.
///
/// The parents are synced even where nothing was missing: an earlier start may have been cut off
/// between making a directory and syncing it.
pub fn create_dir_durably(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<PathBuf> = path
        .ancestors()
        .take_while(|level| !level.exists())
        .map(Path::to_path_buf)
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    let made = if missing.is_empty() {
        std::slice::from_ref(&path)
    } else {
        &missing[..]
    };
    for level in made {
        if let Some(parent) = level.parent() {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parents_are_made_and_an_existing_directory_is_fine() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/c");
        create_dir_durably(&path).unwrap();
        create_dir_durably(&path).unwrap();
        assert!(path.is_dir());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(create_dir_durably(&file.join("below")).is_err());
    }
}
