//! Fields that only this protocol knows, as the broker carries them beside a message, unread.
//!
//! They are fields of the protocol's own messages, so that builds which know more or fewer of them
//! understand each other. A first byte tells them from what other protocols have carried.

use bytes::Bytes;
use prost::Message;

/// What begins what this protocol has carried.
const MARK: u8 = b'K';

/// A message with only these fields set, to be carried; empty if it has none.
pub fn pack<M: Message>(fields: &M) -> Bytes {
    let bytes = fields.encode_to_vec();
    if bytes.is_empty() {
        return Bytes::new();
    }
    [&[MARK], bytes.as_slice()].concat().into()
}

/// What was carried; nothing if it is of another protocol.
pub fn unpack<M: Message + Default>(packed: &Bytes) -> M {
    match packed.first() {
        Some(&MARK) => M::decode(packed.slice(1..)).unwrap_or_default(),
        _ => M::default(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kubemq::protocol::Request;

    #[test]
    fn nothing_is_carried_as_nothing_and_other_protocols_are_not_understood() {
        assert!(pack(&Request::default()).is_empty());
        let foreign = Bytes::from_static(b"\x40\x05");
        assert_eq!(unpack::<Request>(&foreign), Request::default());
    }

    proptest! {
        #[test]
        fn fields_survive(timeout in any::<i32>(), key in ".{0,20}", span in any::<Vec<u8>>()) {
            let fields = Request { timeout, cache_key: key, span: span.into(), ..Request::default() };
            prop_assert_eq!(unpack::<Request>(&pack(&fields)), fields);
        }

        /// Whatever another node says.
        #[test]
        fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
            unpack::<Request>(&bytes.into());
        }
    }
}
