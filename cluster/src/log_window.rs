//! How many bytes of log lie between two entries, roughly: what a group keeps for followers that were
//! away is bounded by bytes, while Raft counts entries.

use std::collections::VecDeque;

/// Entries are summed up until they make this much.
const GRAIN_BYTES: u64 = 1 << 20;
/// Into how many parts the log found at a start is divided.
const SEED_PARTS: u64 = 16;

/// The newest part of a group's log, in pieces of about a MiB.
#[derive(Debug)]
pub(crate) struct LogWindow {
    /// Oldest first: the last entry of a piece, and the bytes up to its end.
    pieces: VecDeque<Piece>,
    /// Bytes up to the beginning of the first piece.
    begin: u64,
    end: u64,
    /// The newest entry that was noted.
    newest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    last: u64,
    end: u64,
}

impl LogWindow {
    /// For a log whose entries behind `purged` up to `covered` are there, and nobody remembers how large
    /// they are: they are taken for as many bytes as may be kept.
    pub fn new(purged: u64, covered: u64, keep_bytes: u64) -> Self {
        let mut window = Self {
            pieces: VecDeque::new(),
            begin: 0,
            end: 0,
            newest: covered,
        };
        let count = covered.saturating_sub(purged);
        for part in 1..=SEED_PARTS.min(count) {
            let last = purged + count * part / SEED_PARTS.min(count);
            window.end = keep_bytes / SEED_PARTS.min(count) * part;
            let end = window.end;
            window.pieces.push_back(Piece { last, end });
        }
        window
    }

    /// An entry was applied. One that was applied before, and now again after a restart, is known.
    pub fn note(&mut self, index: u64, bytes: u64) {
        if index <= self.newest {
            return;
        }
        let end = self.end;
        self.newest = index;
        self.end += bytes;
        let begin = self
            .pieces
            .len()
            .checked_sub(2)
            .map_or(self.begin, |before| self.pieces[before].end);
        match self.pieces.back_mut() {
            Some(piece) if end - begin < GRAIN_BYTES => {
                piece.last = index;
                piece.end = self.end;
            }
            _ => self.pieces.push_back(Piece {
                last: index,
                end: self.end,
            }),
        }
    }

    /// The entry up to which the log can go so that what is left has at most so many bytes, or is the newest
    /// piece: all of it goes only if nothing is to be kept.
    pub fn beyond(&self, keep_bytes: u64) -> Option<u64> {
        if self.end - self.begin <= keep_bytes {
            return None;
        }
        let newest = usize::from(keep_bytes > 0);
        let older = self.pieces.len().saturating_sub(newest);
        let mut pieces = self.pieces.iter().take(older);
        let kept = |piece: &&Piece| self.end - piece.end <= keep_bytes;
        let beyond = pieces.clone().find(kept).or_else(|| pieces.next_back());
        beyond.map(|piece| piece.last)
    }

    /// The log up to an entry is gone.
    pub fn forget(&mut self, upto: u64) {
        while let Some(piece) = self.pieces.front()
            && piece.last <= upto
        {
            self.begin = piece.end;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Never more than asked for is kept beyond a piece, never less than asked for without a piece, and never
        /// nothing unless that was asked for.
        #[test]
        fn what_is_kept_is_what_was_asked_for(
            sizes in prop::collection::vec(0..3 * GRAIN_BYTES, 1..200),
            keep_bytes in prop_oneof![0..2 * GRAIN_BYTES, 0..100 * GRAIN_BYTES],
            purge_at in 0..200_usize,
        ) {
            let mut window = LogWindow::new(0, 0, keep_bytes);
            let mut gone = 0;
            for (place, bytes) in sizes.iter().enumerate() {
                window.note(place as u64 + 1, *bytes);
                // A replay.
                window.note(place as u64, 1 << 40);
                if place == purge_at {
                    gone = window.beyond(keep_bytes).unwrap_or(0);
                    window.forget(gone);
                    // A replay of what is gone.
                    window.note(gone, 1 << 40);
                }
            }
            let bytes_behind = |index: usize| sizes[index..].iter().sum::<u64>();
            // Less than a grain, and an entry.
            let piece_max = 4 * GRAIN_BYTES;
            let keep_max = if keep_bytes == 0 { 0 } else { keep_bytes.max(piece_max) };
            match window.beyond(keep_bytes) {
                None => prop_assert!(bytes_behind(gone as usize) <= keep_max),
                Some(upto) => {
                    let kept = bytes_behind(upto as usize);
                    prop_assert!(kept <= keep_max, "{kept} of {keep_bytes}");
                    prop_assert!(kept + 2 * piece_max >= keep_bytes, "{kept} of {keep_bytes}");
                    prop_assert!(keep_bytes == 0 || (upto as usize) < sizes.len());
                }
            }
        }
    }

    #[test]
    fn a_log_found_at_a_start_goes_bit_by_bit() {
        let mut window = LogWindow::new(100, 260, 16 << 20);
        assert_eq!(window.beyond(16 << 20), None);
        window.note(261, 3 << 20);
        assert_eq!(window.beyond(16 << 20), Some(130));
        window.forget(130);
        assert_eq!(window.beyond(16 << 20), None);
        window.note(262, 100 << 20);
        assert_eq!(window.beyond(16 << 20), Some(261));
        window.forget(261);
        assert_eq!(window.beyond(16 << 20), None);
        assert_eq!(window.beyond(0), Some(262));
        assert_eq!(LogWindow::new(7, 7, 1 << 20).beyond(0), None);
    }
}
