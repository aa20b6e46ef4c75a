//! How much of what waits for a client is one frame.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;

use flotilla_model::message::Message;

/// Frames of records stay about this small, so that the first of them are soon with the client.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// What surrounds a message in a frame, and each of its tags, at most.
const MESSAGE_BYTES: usize = 64;
const TAG_BYTES: usize = 16;

/// What a message takes in a frame, at most.
pub fn message_bytes(message: &Message) -> usize {
    message.encoded_len() + message.tags.len() * TAG_BYTES + MESSAGE_BYTES
}

/// As much of what waits as a frame should hold, at least one item. What is larger than frames should be
/// is a frame of its own: a client that can read the item can read the frame.
pub fn take_frame<T>(waiting: &mut VecDeque<T>, bytes_of: impl Fn(&T) -> usize) -> Drain<'_, T> {
    let mut bytes = 0;
    let fit = waiting.iter().enumerate().take_while(|(place, item)| {
        bytes += bytes_of(item);
        *place == 0 || bytes <= FRAME_BYTES_MAX
    });
    let count = fit.count();
    waiting.drain(..count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_what_fits_and_what_is_larger_is_alone() {
        let large = 2 * FRAME_BYTES_MAX;
        let mut waiting = VecDeque::from([FRAME_BYTES_MAX - 9, 9, 1, large, large, 0, 7]);
        let mut next = || take_frame(&mut waiting, |bytes| *bytes).collect::<Vec<_>>();
        assert_eq!(next(), [FRAME_BYTES_MAX - 9, 9]);
        assert_eq!(next(), [1]);
        assert_eq!(next(), [large]);
        assert_eq!(next(), [large]);
        assert_eq!(next(), [0, 7]);
        assert!(next().is_empty());
    }
}
