//! A disk in memory that fails, fills up and loses power on command, for tests of whoever uses the
//! log.

mod contents;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::contents::{Change, Contents, Random};
use crate::disk::{Disk, DiskFile};

/// Making a segment ahead takes milliseconds on a disk in memory.
const PREPARATION_MAX: Duration = Duration::from_secs(10);

/// Files live in memory; what was not synced is forgotten by [`FaultyDisk::cut_power`]. Clones are
/// the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, SharedContents>,
    durable_names: BTreeMap<PathBuf, SharedContents>,
    /// Raised by a power cut: handles from before it are dead.
    boot: u64,
    writes: u64,
    syncs: u64,
    fail_write_at: Option<u64>,
    fail_sync_at: Option<u64>,
    cut_power_at: Option<u64>,
    panic_at: Option<u64>,
    steps: u64,
    syncs_lie: bool,
    sync_delay: Duration,
    capacity_bytes: Option<u64>,
}

/// How a life of the machine ended, for [`FaultyDisk::survivor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfLife {
    /// The process is gone, the kernel has its writes.
    Kill,
    PowerCut {
        torn_seed: Option<u64>,
    },
}

/// Names and open files share what is in a file.
type SharedContents = Arc<Mutex<Contents>>;

impl std::fmt::Debug for FaultyDisk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FaultyDisk")
    }
}

impl FaultyDisk {
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    /// The `number`-th write from now (0 is the next) fails after half of it.
    pub fn fail_write(&self, number: u64) {
        let mut state = self.state.lock();
        state.fail_write_at = Some(state.writes + number);
    }

    /// The `number`-th sync from now (0 is the next) fails.
    pub fn fail_sync(&self, number: u64) {
        let mut state = self.state.lock();
        state.fail_sync_at = Some(state.syncs + number);
    }

    /// Just before the `number`-th step from now (write, sync, create, rename, remove, resize,
    /// directory sync) the disk goes dead: this and all later steps fail until
    /// [`FaultyDisk::cut_power`].
    pub fn die_at_step(&self, number: u64) {
        let mut state = self.state.lock();
        state.cut_power_at = Some(state.steps + number);
    }

    /// Whoever takes the `number`-th step from now panics.
    pub fn panic_at_step(&self, number: u64) {
        let mut state = self.state.lock();
        state.panic_at = Some(state.steps + number);
    }

    /// Syncs return at once and make nothing durable.
    pub fn lie_about_syncs(&self) {
        self.state.lock().syncs_lie = true;
    }

    pub fn delay_syncs(&self, delay: Duration) {
        self.state.lock().sync_delay = delay;
    }

    /// What the files take.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Limits the sum of all file lengths; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Files and steps counted so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Forgets what was not synced. With a seed, a random part of it survives, piece by piece.
    /// All open files are dead afterwards; planned faults are lifted.
    pub fn cut_power(&self, torn_seed: Option<u64>) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.fail_write_at = None;
        state.fail_sync_at = None;
        state.cut_power_at = None;
        state.panic_at = None;
        state.names = state.durable_names.clone();
        let mut random = torn_seed.map(Random);
        for contents in state.names.values() {
            contents.lock().lose_unsynced(random.as_mut());
        }
    }

    /// The disk as the next life of its machine finds it, and with a directory under another name: this one
    /// stays with the threads of the present life, which may not know yet that they are dead.
    ///
    /// After a kill all that was written is there; after a power cut what was synced, and with
    /// a seed a random part of the rest.
    pub fn survivor(&self, from: &Path, to: &Path, end: EndOfLife) -> FaultyDisk {
        let state = self.state.lock();
        let mut random = match end {
            EndOfLife::PowerCut { torn_seed } => torn_seed.map(Random),
            EndOfLife::Kill => None,
        };
        // One file may be known under an old name that is durable and a new one that is not.
        let mut files: Vec<(SharedContents, SharedContents)> = Vec::new();
        let mut survive = |names: &BTreeMap<PathBuf, SharedContents>| {
            let mut survivors = BTreeMap::new();
            for (name, contents) in names {
                let known = files.iter().find(|(old, _)| Arc::ptr_eq(old, contents));
                let survivor = match known {
                    Some((_, survivor)) => survivor.clone(),
                    None => {
                        let mut survivor = contents.lock().clone();
                        if let EndOfLife::PowerCut { .. } = end {
                            survivor.lose_unsynced(random.as_mut());
                        }
                        let survivor = Arc::new(Mutex::new(survivor));
                        files.push((contents.clone(), survivor.clone()));
                        survivor
                    }
                };
                let name = match name.strip_prefix(from) {
                    Ok(below) => to.join(below),
                    Err(_) => name.clone(),
                };
                survivors.insert(name, survivor);
            }
            survivors
        };
        let durable_names = survive(&state.durable_names);
        let names = match end {
            EndOfLife::Kill => survive(&state.names),
            EndOfLife::PowerCut { .. } => durable_names.clone(),
        };
        FaultyDisk {
            state: Arc::new(Mutex::new(State {
                names,
                durable_names,
                syncs_lie: state.syncs_lie,
                sync_delay: state.sync_delay,
                capacity_bytes: state.capacity_bytes,
                ..State::default()
            })),
        }
    }

    /// Waits until a segment has been made ahead of need beside the open one. From then on only the
    /// writer syncs, until it needs the next: a fault that is set meets the writer, not the helper.
    ///
    /// Panics after ten seconds.
    pub fn wait_until_prepared(&self) {
        let deadline = Instant::now() + PREPARATION_MAX;
        while self.state.lock().durable_names.len() < 2 {
            assert!(Instant::now() < deadline, "no segment was made ahead");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    pub fn file_len(&self, path: &Path) -> u64 {
        let state = self.state.lock();
        state
            .names
            .get(path)
            .map_or(0, |contents| contents.lock().current.len() as u64)
    }

    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        Some(state.names.get(path)?.lock().current.clone())
    }

    /// Flips the bits of `mask` in one byte, durably.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        self.change(path, |bytes| {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= mask;
            }
        });
    }

    /// Cuts a file, durably.
    pub fn cut_file(&self, path: &Path, bytes: u64) {
        self.change(path, |contents| contents.truncate(bytes as usize));
    }

    fn change(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let state = self.state.lock();
        if let Some(contents) = state.names.get(path) {
            let mut contents = contents.lock();
            change(&mut contents.current);
            change(&mut contents.durable);
        }
    }

    fn file(&self, contents: SharedContents, boot: u64) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile {
            disk: self.clone(),
            contents,
            boot,
        })
    }
}

impl State {
    /// Counts a step; fails when the disk is dead.
    fn step(&mut self) -> io::Result<()> {
        if self.cut_power_at.is_some_and(|at| self.steps >= at) {
            return Err(io::Error::other("the disk is dead"));
        }
        self.steps += 1;
        assert!(
            self.panic_at != Some(self.steps - 1),
            "this step was to panic"
        );
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|contents| contents.lock().current.len() as u64)
            .sum()
    }

    fn take_space(&self, more: u64) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if more > 0 && self.used_bytes() + more > capacity => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        // As on a real disk, whoever has the old file open shares what becomes of it.
        let contents = state.names.entry(path.to_owned()).or_default().clone();
        contents.lock().change(Change::Length(0));
        Ok(self.file(contents, state.boot))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let contents = state
            .names
            .get(path)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(contents, state.boot))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        let contents = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.step()?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        if state.syncs_lie {
            return Ok(());
        }
        state
            .durable_names
            .retain(|name, _| name.parent() != Some(path));
        let synced: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path))
            .map(|(name, contents)| (name.clone(), contents.clone()))
            .collect();
        state.durable_names.extend(synced);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // sled's directory lies beside and is real.
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, u64)>> {
        let state = self.state.lock();
        Ok(state
            .names
            .iter()
            .filter(|(name, _)| name.parent() == Some(path))
            .filter_map(|(name, contents)| {
                let name = name.file_name()?.to_string_lossy().into_owned();
                Some((name, contents.lock().current.len() as u64))
            })
            .collect())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.capacity_bytes.map_or(1 << 40, |capacity| {
            capacity.saturating_sub(state.used_bytes())
        }))
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    contents: SharedContents,
    boot: u64,
}

impl FaultyFile {
    fn check_alive(&self, state: &State) -> io::Result<()> {
        if state.boot != self.boot {
            return Err(io::Error::other("the file was open across a power cut"));
        }
        Ok(())
    }

    fn resize(&self, length: usize, only_grow: bool) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.check_alive(&state)?;
        state.step()?;
        let current = self.contents.lock().current.len();
        if only_grow && current >= length {
            return Ok(());
        }
        state.take_space(length.saturating_sub(current) as u64)?;
        self.contents.lock().change(Change::Length(length));
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.check_alive(&state)?;
        state.step()?;
        let number = state.writes;
        state.writes += 1;
        let mut bytes = Vec::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let fails = state.fail_write_at == Some(number);
        if fails {
            bytes.truncate(bytes.len() / 2);
        }
        let offset = offset as usize;
        let current = self.contents.lock().current.len();
        let grows_by = (offset + bytes.len()).saturating_sub(current) as u64;
        state.take_space(grows_by)?;
        self.contents.lock().change(Change::Write { offset, bytes });
        if fails {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.check_alive(&self.disk.state.lock())?;
        let contents = self.contents.lock();
        let start = (offset as usize).min(contents.current.len());
        let count = buffer.len().min(contents.current.len() - start);
        buffer[..count].copy_from_slice(&contents.current[start..start + count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (lies, delay) = {
            let mut state = self.disk.state.lock();
            self.check_alive(&state)?;
            state.step()?;
            let number = state.syncs;
            state.syncs += 1;
            if state.fail_sync_at == Some(number) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            (state.syncs_lie, state.sync_delay)
        };
        if !delay.is_zero() {
            std::thread::sleep(delay);
            // The power may have been cut meanwhile.
            self.check_alive(&self.disk.state.lock())?;
        }
        if !lies {
            self.contents.lock().make_durable();
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes as usize, false)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes as usize, true)
    }

    fn size(&self) -> io::Result<u64> {
        self.check_alive(&self.disk.state.lock())?;
        Ok(self.contents.lock().current.len() as u64)
    }
}
