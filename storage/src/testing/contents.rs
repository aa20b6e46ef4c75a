//! What is in a file of a disk in memory, and what of that is durable.

/// What survives of writes that were not synced is decided for each sector of the file.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Contents {
    pub current: Vec<u8>,
    pub durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Contents {
    fn apply(bytes: &mut Vec<u8>, change: &Change, random: Option<&mut Random>) {
        match change {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Write {
                offset,
                bytes: written,
            } => {
                if bytes.len() < offset + written.len() {
                    bytes.resize(offset + written.len(), 0);
                }
                let target = &mut bytes[*offset..offset + written.len()];
                match random {
                    None => target.copy_from_slice(written),
                    Some(random) => {
                        // Up to where the first sector ends.
                        let first = offset.next_multiple_of(SECTOR_BYTES) - offset;
                        let first = first.min(written.len());
                        let (head, rest) = target.split_at_mut(first);
                        let (written_head, written_rest) = written.split_at(first);
                        let sectors = rest
                            .chunks_mut(SECTOR_BYTES)
                            .zip(written_rest.chunks(SECTOR_BYTES));
                        for (target, written) in sectors.chain([(head, written_head)]) {
                            if random.coin() {
                                target.copy_from_slice(written);
                            }
                        }
                    }
                }
            }
        }
    }

    pub fn change(&mut self, change: Change) {
        Contents::apply(&mut self.current, &change, None);
        self.unsynced.push(change);
    }

    pub fn make_durable(&mut self) {
        for change in self.unsynced.drain(..) {
            Contents::apply(&mut self.durable, &change, None);
        }
    }

    pub fn lose_unsynced(&mut self, random: Option<&mut Random>) {
        if let Some(random) = random {
            for change in self.unsynced.drain(..) {
                if random.coin() {
                    Contents::apply(&mut self.durable, &change, Some(random));
                }
            }
        }
        self.unsynced.clear();
        self.current = self.durable.clone();
    }
}

/// SplitMix64: enough for choosing which pieces survive.
pub(super) struct Random(pub u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
