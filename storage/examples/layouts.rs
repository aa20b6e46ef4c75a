//! Measures ways to store synced batches: plain file, payload in sled, and the node log.
//!
//! The ways take short turns, so that a disk that varies treats them alike. Each write
//! is one batch, made durable before the next. Prints MB/s, the bytes the process handed to the
//! disk per byte of payload, CPU per KiB, and the 99th percentile, then the ratios that count.
//!
//! Old data matters: where a file was removed, the next one is written into memory that is warm, and
//! on a virtual machine memory that was never used is slow to get. So the node log is compared with
//! a plain file twice: where both keep all they wrote, and where both remove it soon.
//!
//! `cargo run --release -p flotilla-storage --example layouts [TURNS] [DIR]`

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_storage::{
    CheckpointBatch, EntryBody, GroupId, LogConfig, LogEntry, NodeLog, PurgePoint, RealDisk,
    Released,
};

type AnyError = Box<dyn std::error::Error>;

const SEGMENT_BYTES: u64 = 64 << 20;
/// Messages in a batch, whatever its size.
const SLOTS: usize = 64;
const TURN: Duration = Duration::from_millis(200);

/// One way of making a batch durable.
trait Layout {
    fn name(&self) -> &'static str;
    fn write(&mut self, batch: &[Bytes]) -> Result<(), AnyError>;
    fn end(&mut self) -> Result<(), AnyError> {
        Ok(())
    }
}

/// How the space of a plain file is made.
#[derive(Clone, Copy)]
enum Space {
    /// Made by each write, and no file is ever removed.
    Kept,
    /// Made by each write.
    Growing,
    Reserved,
    Zeroed,
    Recycled,
}

struct Raw {
    dir: PathBuf,
    space: Space,
    file: File,
    offset: u64,
    number: u64,
}

impl Raw {
    fn new(dir: PathBuf, space: Space) -> io::Result<Raw> {
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

    fn next_file(dir: &Path, space: Space, number: u64) -> io::Result<File> {
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
            Space::Reserved => {
                flotilla_storage::Disk::open(&RealDisk, &path)?.allocate(SEGMENT_BYTES)?;
            }
            Space::Zeroed => zero(&file)?,
            Space::Recycled if known => {}
            Space::Recycled => zero(&file)?,
        }
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(file)
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
        let mut buffer = Vec::with_capacity(bytes);
        for part in batch {
            buffer.write_all(part)?;
        }
        self.file.write_all_at(&buffer, self.offset)?;
        self.file.sync_data()?;
        self.offset += bytes as u64;
        Ok(())
    }
}

/// Every message a value of one sled database, made durable as sled does it.
struct InSled {
    db: sled::Db,
    next: u64,
}

impl Layout for InSled {
    fn name(&self) -> &'static str {
        "payload in sled"
    }

    fn write(&mut self, batch: &[Bytes]) -> Result<(), AnyError> {
        let mut changes = sled::Batch::default();
        for part in batch {
            changes.insert(&self.next.to_be_bytes(), &part[..]);
            self.next += 1;
        }
        self.db.apply_batch(changes)?;
        self.db.flush()?;
        Ok(())
    }
}

const GROUP: GroupId = GroupId(1);

/// Takes the number of the last entry that is no longer needed, and drops old segments.
struct Dropper {
    last: Sender<u64>,
    thread: JoinHandle<Result<(), String>>,
}

struct Node {
    log: NodeLog,
    next: u64,
    unreported_bytes: u64,
    dropper: Option<Dropper>,
}

impl Node {
    fn new(dir: PathBuf, drop_of: Option<&[Bytes]>) -> Result<Node, AnyError> {
        let (log, _) = NodeLog::open(LogConfig::new(dir), Arc::new(RealDisk))?;
        let dropper = drop_of.map(|batch| {
            let (last, lasts) = channel();
            let log = log.clone();
            let bytes = batch.iter().map(|part| part.len() as u64).sum();
            let thread = std::thread::spawn(move || {
                let mut first = 1;
                for last in lasts {
                    drop_entries(&log, first, last, bytes).map_err(|error| error.to_string())?;
                    first = last + 1;
                }
                Ok(())
            });
            Dropper { last, thread }
        });
        Ok(Node {
            log,
            next: 1,
            unreported_bytes: 0,
            dropper,
        })
    }
}

/// What a checkpoint does when entries are no longer needed.
fn drop_entries(log: &NodeLog, first: u64, last: u64, bytes: u64) -> Result<(), AnyError> {
    let (sender, receiver) = channel();
    let upto = PurgePoint {
        index: last,
        term: 1,
        leader: 1,
    };
    let done = Box::new(move |outcome| {
        // The receiver waits below.
        let _ = sender.send(outcome);
    });
    log.purge(GROUP, upto, done);
    receiver.recv()??;
    let released = (first..=last).map(|index| Released {
        index,
        slots: 0..SLOTS as u32,
        bytes,
    });
    let batch = CheckpointBatch {
        released: released.collect(),
        ..CheckpointBatch::default()
    };
    log.checkpoints().commit(GROUP, batch)?;
    log.drop_dead_segments()?;
    Ok(())
}

impl Layout for Node {
    fn name(&self) -> &'static str {
        match self.dropper {
            None => "node log, all kept",
            Some(_) => "node log, old ones dropped",
        }
    }

    fn write(&mut self, batch: &[Bytes]) -> Result<(), AnyError> {
        let body = EntryBody::builder().slots(batch.iter().cloned()).build()?;
        self.unreported_bytes += body.len() as u64;
        let entry = LogEntry {
            index: self.next,
            term: 1,
            leader: 1,
            kind: 0,
            body,
        };
        let (sender, receiver) = channel();
        let done = Box::new(move |outcome| {
            // The receiver waits below.
            let _ = sender.send(outcome);
        });
        self.log.append(GROUP, vec![entry], done);
        receiver.recv()??;
        if self.unreported_bytes >= SEGMENT_BYTES {
            self.unreported_bytes = 0;
            if let Some(dropper) = &self.dropper {
                dropper.last.send(self.next)?;
            }
        }
        self.next += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), AnyError> {
        if let Some(dropper) = self.dropper.take() {
            drop(dropper.last);
            let outcome = dropper.thread.join();
            outcome.map_err(|_| "the dropping thread panicked")??;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Figures {
    bytes: u64,
    elapsed: Duration,
    cpu: Duration,
    written: u64,
    latencies: Vec<Duration>,
    /// MB/s of each turn.
    rates: Vec<f64>,
}

impl Figures {
    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    fn print(&mut self, name: &str) {
        self.latencies.sort();
        let p99 = self
            .latencies
            .get(self.latencies.len() * 99 / 100)
            .copied()
            .unwrap_or_default();
        println!(
            "  {name:28} {:8.0} MB/s   written x{:5.2}   {:6.2} us CPU/KiB   p99 {:8.2} ms",
            self.megabytes_per_second(),
            self.written as f64 / self.bytes as f64,
            self.cpu.as_secs_f64() * 1e6 / (self.bytes as f64 / 1024.0),
            p99.as_secs_f64() * 1e3,
        );
    }
}

/// Processor time of the whole process.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` lives across the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes the process has sent towards the disk.
fn written_bytes() -> u64 {
    fs::read_to_string("/proc/self/io")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("write_bytes"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

fn turn(layout: &mut dyn Layout, batch: &[Bytes], figures: &mut Figures) -> Result<(), AnyError> {
    let (started, cpu, written) = (Instant::now(), cpu_time(), written_bytes());
    let bytes: usize = batch.iter().map(Bytes::len).sum();
    let mut turn_bytes = 0;
    while started.elapsed() < TURN {
        let before = Instant::now();
        layout.write(batch)?;
        figures.latencies.push(before.elapsed());
        turn_bytes += bytes as u64;
    }
    let elapsed = started.elapsed();
    figures
        .rates
        .push(turn_bytes as f64 / 1e6 / elapsed.as_secs_f64());
    figures.bytes += turn_bytes;
    figures.elapsed += elapsed;
    figures.cpu += cpu_time() - cpu;
    figures.written += written_bytes() - written;
    Ok(())
}

fn print_ratio(node: &Figures, plain: &Figures, what: &str) {
    let mut ratios: Vec<f64> = node
        .rates
        .iter()
        .zip(&plain.rates)
        .map(|(node, plain)| node / plain)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |quarter: usize| ratios[(ratios.len() - 1) * quarter / 4];
    println!(
        "  node log / plain file, {what}: {:.2} (turn by turn: median {:.2}, quartiles {:.2} and {:.2})",
        node.megabytes_per_second() / plain.megabytes_per_second(),
        at(2),
        at(1),
        at(3),
    );
}

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let rounds: u32 = arguments.next().map_or(Ok(20), |text| text.parse())?.max(1);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for batch_bytes in [64 << 10, 1 << 20] {
        let dir = parent.join(format!("flotilla-layouts-{}", std::process::id()));
        println!(
            "{} KiB a sync, {rounds} turns of {TURN:?} each:",
            batch_bytes >> 10
        );
        // Not compressible, and not the same in every slot.
        let batch: Vec<Bytes> = (0..SLOTS)
            .map(|slot| {
                let mut state = slot as u64 + 1;
                (0..batch_bytes / SLOTS)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        (state >> 56) as u8
                    })
                    .collect()
            })
            .collect();
        let mut layouts: Vec<Box<dyn Layout>> = vec![
            Box::new(Raw::new(dir.join("kept"), Space::Kept)?),
            Box::new(Node::new(dir.join("node-kept"), None)?),
            Box::new(Raw::new(dir.join("growing"), Space::Growing)?),
            Box::new(Node::new(dir.join("node"), Some(&batch))?),
            Box::new(Raw::new(dir.join("reserved"), Space::Reserved)?),
            Box::new(Raw::new(dir.join("zeroed"), Space::Zeroed)?),
            Box::new(Raw::new(dir.join("recycled"), Space::Recycled)?),
            Box::new(InSled {
                db: sled::Config::new()
                    .path(dir.join("sled"))
                    .cache_capacity(64 << 20)
                    .flush_every_ms(None)
                    .open()?,
                next: 0,
            }),
        ];
        let mut figures: Vec<Figures> = layouts.iter().map(|_| Figures::default()).collect();
        let mut order: Vec<usize> = (0..layouts.len()).collect();
        for _ in 0..rounds {
            for place in &order {
                turn(layouts[*place].as_mut(), &batch, &mut figures[*place])?;
            }
            // What one leaves to the next, each gets from both sides.
            order.reverse();
        }
        for (layout, figures) in layouts.iter_mut().zip(&mut figures) {
            figures.print(layout.name());
            layout.end()?;
        }
        print_ratio(&figures[1], &figures[0], "all kept");
        print_ratio(&figures[3], &figures[2], "old ones removed");
        drop(layouts);
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}
