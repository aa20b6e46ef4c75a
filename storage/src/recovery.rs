//! Opening the log: index and segments are brought to one state, whatever happened before.
//!
//! The index says how far it knows the log; the segments are scanned from there. Where a frame does
//! not check, one question decides: is it proven that these bytes were durable? A later frame that
//! says so ("durable up to"), a later segment or the index itself is such a proof, and a frame that was
//! written in whole is taken for one (`tear`). Proven bytes are damage: reported, stepped over, never cut.
//! Bytes without proof are a torn tail that nobody was told about: cut. The log then goes on in a new
//! segment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::applier::Applier;
use crate::checkpoint::Commits;
use crate::config::LogConfig;
use crate::damage::DamagedRange;
use crate::disk::Disk;
use crate::error::{Result, StorageError};
use crate::frame::{FrameHeader, Position};
use crate::group::{GroupTable, SegmentPreamble};
use crate::index::Index;
use crate::records::Indexed;
use crate::redo;
use crate::replay::Replay;
use crate::retention::Retention;
use crate::segment::{Scanned, Scanner, SegmentFile, SegmentKey, SegmentTable, TEMPORARY_SUFFIX};
use crate::{GroupId, SegmentId};

/// sled gives its lock back a little after the last handle is gone.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub segments: usize,
    /// Frames that were not in the index yet, or all of them when it was built anew.
    pub scanned_frames: u64,
    pub scanned_bytes: u64,
    /// Bytes behind the last whole round that were cut off; nobody had been told they were stored.
    pub cut_bytes: u64,
    /// A checkpoint that a crash interrupted was finished.
    pub redo_finished: bool,
    /// The database was missing or unusable; the log's index was built anew from the segments.
    pub index_rebuilt: bool,
    /// Groups whose state went with the database and cannot be replayed, since their log was purged.
    pub lost_groups: Vec<GroupId>,
    /// Found in this start; `NodeLog::damage` gives all.
    pub damage: Vec<DamagedRange>,
    pub elapsed: Duration,
}

/// All that a running log starts from.
pub(crate) struct Recovered {
    pub index: Arc<Index>,
    pub applier: Applier,
    pub retention: Arc<Mutex<Retention>>,
    pub segments: SegmentTable,
    pub commits: Commits,
    pub report: RecoveryReport,
    /// Where the log ends; all before is durable.
    pub end: Position,
    pub first_segment: SegmentId,
}

/// What the database holds, read and checked as a whole.
struct Loaded {
    index: Arc<Index>,
    groups: GroupTable,
    retention: Retention,
    commits: Commits,
    indexed: Option<Indexed>,
    damage: Vec<DamagedRange>,
    redo_finished: bool,
}

/// Snapshots that were on their way when the process ended: their senders begin anew.
fn remove_staged(config: &LogConfig, disk: &dyn Disk) -> Result<()> {
    let dir = config.staging_dir();
    let files = disk.list(&dir).map_err(StorageError::io("list", &dir))?;
    for (name, _) in files {
        let path = dir.join(name);
        disk.remove(&path)
            .map_err(StorageError::io("remove", &path))?;
    }
    Ok(())
}

pub(crate) fn recover(config: &LogConfig, disk: &dyn Disk) -> Result<Recovered> {
    let started = Instant::now();
    let log_dir = config.log_dir();
    for dir in [&config.dir, &log_dir, &config.staging_dir()] {
        disk.create_dir_all(dir)
            .map_err(StorageError::io("create", dir))?;
    }
    // First, for its lock: who had the log before may still be at work on the files.
    let (mut loaded, mut rebuilt) = match load(config, disk) {
        Ok(loaded) => (loaded, false),
        Err(error) if means_damaged_database(&error) => {
            tracing::error!(%error, "the index database is unusable and is built anew");
            set_aside(config, disk)?;
            (load(config, disk)?, true)
        }
        Err(error) => return Err(error),
    };
    remove_staged(config, disk)?;
    let files = find_segments(disk, &log_dir)?;
    let newest_preamble = files
        .values()
        .rev()
        .find_map(|file| preamble_of(file).transpose())
        .transpose()?;
    if !rebuilt && is_behind(&loaded, &files, newest_preamble.as_ref()) {
        tracing::error!("the index database has lost what was durable and is built anew");
        drop(loaded);
        set_aside(config, disk)?;
        loaded = load(config, disk)?;
        rebuilt = true;
    }
    rebuilt |= loaded.indexed.is_none() && !files.is_empty();
    if let Some((_, preamble)) = &newest_preamble {
        loaded.commits.raise_durable(preamble.commits);
    }

    let mut report = RecoveryReport {
        segments: files.len(),
        redo_finished: loaded.redo_finished,
        index_rebuilt: rebuilt,
        ..RecoveryReport::default()
    };
    let retention = Arc::new(Mutex::new(loaded.retention));
    let known_damage = loaded.damage.len();
    let mut applier = Applier::new(
        loaded.index.clone(),
        retention.clone(),
        loaded.groups,
        loaded.indexed.unwrap_or_default(),
        loaded.damage,
    );
    let mut replay = Replay {
        disk,
        index: &loaded.index,
        log_dir: &log_dir,
        applier: &mut applier,
        retention: &retention,
        commits: &loaded.commits,
        files,
        report: &mut report,
    };
    replay.drop_unused()?;
    replay.drop_orphans()?;
    replay.adopt_compacted()?;
    let end = replay.scan(loaded.indexed.map(|indexed| indexed.position))?;
    replay.report_missing()?;
    let segments = SegmentTable::default();
    for file in std::mem::take(&mut replay.files).into_values() {
        segments.insert(file);
    }

    applier.write()?;
    if rebuilt {
        report.lost_groups = mark_lost(&loaded.index, &loaded.commits, applier.groups())?;
    }
    loaded.index.flush()?;
    report.damage = applier.damage()[known_damage..].to_vec();
    report.elapsed = started.elapsed();
    for range in &report.damage {
        tracing::error!(
            segment = %range.segment, offset = range.offset, bytes = range.bytes,
            entries = ?range.entries, what = range.what, "stored data is damaged"
        );
    }
    Ok(Recovered {
        index: loaded.index,
        first_segment: applier.reached().position.segment,
        applier,
        retention,
        segments,
        commits: loaded.commits,
        report,
        end,
    })
}

/// The newest generation of every segment. Older ones and unfinished files are removed.
fn find_segments(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<SegmentId, Arc<SegmentFile>>> {
    let mut newest: BTreeMap<SegmentId, SegmentKey> = BTreeMap::new();
    let mut unneeded = Vec::new();
    let listed = disk.list(dir).map_err(StorageError::io("list", dir))?;
    for (name, _) in listed {
        if name.ends_with(TEMPORARY_SUFFIX) {
            unneeded.push(name);
        } else if let Some(key) = SegmentKey::parse(&name)
            && let Some(older) = newest.insert(key.id, key)
        {
            // Names are sorted, so a later one has the higher generation: compaction gave it this
            // name when it was complete and durable.
            unneeded.push(older.file_name());
        }
    }
    for name in &unneeded {
        let path = dir.join(name);
        disk.remove(&path)
            .map_err(StorageError::io("remove", &path))?;
    }
    if !unneeded.is_empty() {
        disk.sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    }
    newest
        .into_iter()
        .map(|(id, key)| {
            let path = key.path(dir);
            let file = disk.open(&path).map_err(StorageError::io("open", &path))?;
            Ok((id, Arc::new(SegmentFile { key, path, file })))
        })
        .collect()
}

/// The first frame of a segment, if it is whole.
pub(crate) fn preamble_of(
    file: &Arc<SegmentFile>,
) -> Result<Option<(FrameHeader, SegmentPreamble)>> {
    let mut scanner = Scanner::new(file.clone(), file.len()?);
    match scanner.frame(0)? {
        Scanned::Frame {
            header,
            content: crate::frame::Content::Preamble(body),
        } => Ok(Some((header, SegmentPreamble::decode(&body)?))),
        _ => Ok(None),
    }
}

fn load(config: &LogConfig, disk: &dyn Disk) -> Result<Loaded> {
    let index = Arc::new(open_index(config)?);
    let redo_finished = redo::finish(config, disk, &index)?;
    let mut retention = index.retention()?;
    let commits = Commits::load(&index, &mut retention)?;
    Ok(Loaded {
        groups: index.groups()?,
        indexed: index.indexed()?,
        damage: index.damage()?,
        retention,
        commits,
        redo_finished,
        index,
    })
}

fn open_index(config: &LogConfig) -> Result<Index> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match Index::open(&config.index_dir(), config.index_cache_bytes) {
            Err(error) if is_locked(&error) && Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            outcome => return outcome,
        }
    }
}

fn is_locked(error: &StorageError) -> bool {
    matches!(error, StorageError::Index { source: sled::Error::Io(source), .. }
        if source.kind() == std::io::ErrorKind::WouldBlock
            || source.to_string().contains("could not acquire lock"))
}

/// Errors that a new database would cure, as opposed to a full disk or a lock.
fn means_damaged_database(error: &StorageError) -> bool {
    match error {
        StorageError::IndexPanicked { .. } | StorageError::InvalidRecord { .. } => true,
        StorageError::Index { source, .. } => match source {
            sled::Error::Io(source) => matches!(
                source.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::InvalidInput
            ),
            _ => true,
        },
        _ => false,
    }
}

/// Keeps the unusable database for whoever wants to look at it; a later one takes its place.
fn set_aside(config: &LogConfig, disk: &dyn Disk) -> Result<()> {
    let dir = config.index_dir();
    let aside = config.dir.join("index.damaged");
    // sled's own directory is not behind the `Disk` seam.
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::io("remove", &aside)(error));
        }
        _ => {}
    }
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match std::fs::rename(&dir, &aside) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            Err(error) => return Err(StorageError::io("rename", &dir)(error)),
        }
    }
    // A checkpoint that was decided but not applied belonged to the old database.
    let redo = config.dir.join("redo");
    match disk.remove(&redo) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::io("remove", &redo)(error));
        }
        _ => {}
    }
    disk.sync_dir(&config.dir)
        .map_err(StorageError::io("sync", &config.dir))
}

/// Whether the database is from before something that is known to have been durable in it.
fn is_behind(
    loaded: &Loaded,
    files: &BTreeMap<SegmentId, Arc<SegmentFile>>,
    newest_preamble: Option<&(FrameHeader, SegmentPreamble)>,
) -> bool {
    let Some(indexed) = loaded.indexed else {
        return false;
    };
    // Segments are removed only when the index has passed them.
    let oldest = files.keys().next();
    let passed_by_files = oldest.is_some_and(|oldest| *oldest > indexed.position.segment)
        && oldest.is_some_and(|oldest| oldest.0 > indexed.position.segment.0 + 1);
    let fewer_commits =
        newest_preamble.is_some_and(|(_, preamble)| preamble.commits > loaded.commits.durable());
    passed_by_files || fewer_commits
}

fn mark_lost(index: &Index, commits: &Commits, groups: &GroupTable) -> Result<Vec<GroupId>> {
    let mut lost = Vec::new();
    for (group, meta) in groups.iter() {
        if let Some(purged) = meta.purged {
            commits.mark_lost(index, group, purged.index)?;
            lost.push(group);
            tracing::error!(%group, purged = purged.index, "the state of a group is lost");
        }
    }
    Ok(lost)
}
