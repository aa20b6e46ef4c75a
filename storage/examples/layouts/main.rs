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

mod figures;
mod node;
mod plain;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use figures::{Figures, print_ratio, turn};
use node::Node;
use plain::{Raw, Space};

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
