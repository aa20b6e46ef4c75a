//! Messages that tell who sent them, and whether they are what was sent.

use crate::checker::Name;
use bytes::Bytes;

const NOISE_BYTES_MAX: u64 = 1000;

/// The body of a message: its name, and noise that only the name decides.
pub fn body(name: Name) -> Bytes {
    let mut state = (u64::from(name.producer) << 32) ^ name.number ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut body = format!("{} {} ", name.producer, name.number).into_bytes();
    for _ in 0..next() % (NOISE_BYTES_MAX / 8) {
        body.extend_from_slice(&next().to_le_bytes());
    }
    body.into()
}

/// Who sent a body, and whether it is whole. A body that names nobody is producer 0's message 0.
pub fn read(found: &[u8]) -> (Name, bool) {
    let mut words = found.splitn(3, |byte| *byte == b' ');
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
    let name = || {
        let producer = u32::try_from(number()?).ok()?;
        let number = number()?;
        Some(Name { producer, number })
    };
    let mut name = name;
    match name() {
        Some(name) => (name, body(name) == found),
        None => {
            let nobody = Name {
                producer: 0,
                number: 0,
            };
            (nobody, false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_name_and_any_changed_byte() {
        for number in 0..200 {
            let name = Name {
                producer: 7,
                number,
            };
            let mut bytes = body(name).to_vec();
            assert_eq!(read(&bytes), (name, true));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert!(!read(&bytes).1, "message {number}");
            assert!(!read(&bytes[..last]).1, "message {number}");
        }
        assert!(!read(b"nobody").1);
    }
}
