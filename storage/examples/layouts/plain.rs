//! Plain files of one segment's size each, with their space made in several ways.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_storage::{Disk, DiskFile, RealDisk};

use super::{AnyError, Layout, SEGMENT_BYTES};

/// How the space of a plain file is made.
#[derive(Clone, Copy)]
pub enum Space {
    /// Made by each write, and no file is ever removed.
    Kept,
    /// Made by each write.
    Growing,
    Reserved,
    Zeroed,
    Recycled,
}

pub struct Raw {
    dir: PathBuf,
    space: Space,
    file: Arc<dyn DiskFile>,
    offset: u64,
    number: u64,
}

impl Raw {
    pub fn new(dir: PathBuf, space: Space) -> io::Result<Raw> {
        fs::create_dir_all(&dir)?;
        let file = Raw::next_file(&dir, space, 0)?;
        Ok(Raw {
            dir,
            space,
            file,
            offset: 0,
            number: 0,
        })
    }

    fn next_file(dir: &Path, space: Space, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        // A recycled file is one of two that are written in turn.
        let name = match space {
            Space::Recycled => number % 2,
            _ => number,
        };
        let path = dir.join(format!("{name}.data"));
        let known = path.exists();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)?;
        match space {
            Space::Kept | Space::Growing => {}
            Space::Reserved => RealDisk.open(&path)?.allocate(SEGMENT_BYTES)?,
            Space::Zeroed => zero(&file)?,
            Space::Recycled if known => {}
            Space::Recycled => zero(&file)?,
        }
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        RealDisk.open(&path)
    }
}

fn zero(file: &File) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    for at in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    Ok(())
}

impl Layout for Raw {
    fn name(&self) -> &'static str {
        match self.space {
            Space::Kept => "plain file, all kept",
            Space::Growing => "plain file, old ones removed",
            Space::Reserved => "plain file, space reserved",
            Space::Zeroed => "plain file, zeroed before",
            Space::Recycled => "plain file, written over",
        }
    }

    fn write(&mut self, batch: &[Bytes]) -> Result<(), AnyError> {
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        if self.offset + bytes as u64 > SEGMENT_BYTES {
            self.number += 1;
            let old = self.number.checked_sub(2);
            self.file = Raw::next_file(&self.dir, self.space, self.number)?;
            self.offset = 0;
            if let (Some(old), false) = (old, matches!(self.space, Space::Kept | Space::Recycled)) {
                fs::remove_file(self.dir.join(format!("{old}.data")))?;
            }
        }
        // The batch is written from where it lies, as the log does.
        let parts: Vec<IoSlice<'_>> = batch.iter().map(|part| IoSlice::new(part)).collect();
        self.file.write_at(self.offset, &parts)?;
        self.file.sync_data()?;
        self.offset += bytes as u64;
        Ok(())
    }
}
