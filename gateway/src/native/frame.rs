//! How much of what waits for a client is one frame.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;

/// Frames of records stay about this small, so that the first of them are soon with the client.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// As much of what waits as a frame should hold, at least one item.
pub fn take_frame<T>(waiting: &mut VecDeque<T>, bytes_of: impl Fn(&T) -> usize) -> Drain<'_, T> {
    let mut bytes = 0;
    let fit = waiting.iter().take_while(|item| {
        let has_room = bytes < FRAME_BYTES_MAX;
        bytes += bytes_of(item);
        has_room
    });
    let count = fit.count();
    waiting.drain(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_with_the_item_that_fills_it_and_is_never_empty() {
        let mut waiting = VecDeque::from([FRAME_BYTES_MAX - 1, 10, 2 * FRAME_BYTES_MAX, 0, 0]);
        let mut next = || take_frame(&mut waiting, |bytes| *bytes).collect::<Vec<_>>();
        assert_eq!(next(), [FRAME_BYTES_MAX - 1, 10]);
        assert_eq!(next(), [2 * FRAME_BYTES_MAX]);
        assert_eq!(next(), [0, 0]);
        assert!(next().is_empty());
    }
}
