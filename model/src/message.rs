//! What is in a slot: a message as its producer gave it.
//!
//! ```text
//!  version │ id │ source │ metadata │ tag count │ (key │ value)* │ body: all that is left
//!   1 byte   length (varint) and bytes, each
//! ```
//!
//! Decoding copies nothing: texts and body are views of the slot's bytes.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ModelError;

/// The newest version of a message's bytes.
const VERSION: u8 = 1;
/// Fewer bytes than this cannot hold a tag: a damaged count claims no memory beyond the bytes.
const TAG_BYTES_MIN: usize = 2;
const WHAT: &str = "a stored message";

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The producer's id of it; need not be unique.
    pub id: Text,
    /// Who sent it: the client's id.
    pub source: Text,
    /// What the producer says about it.
    pub metadata: Text,
    /// Keys and values, in the order given.
    pub tags: Vec<(Text, Text)>,
    /// The payload.
    pub body: Bytes,
}

impl Message {
    /// Writes the bytes of this message.
    pub fn encode(&self, buffer: &mut impl BufMut) {
        buffer.put_u8(VERSION);
        for text in [&self.id, &self.source, &self.metadata] {
            put_text(buffer, text);
        }
        put_varint(buffer, self.tags.len() as u64);
        for (key, value) in &self.tags {
            put_text(buffer, key);
            put_text(buffer, value);
        }
        buffer.put_slice(&self.body);
    }

    /// How many bytes [`Self::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let text = |text: &Text| varint_len(text.len() as u64) + text.len();
        let tags: usize = self.tags.iter().map(|(k, v)| text(k) + text(v)).sum();
        1 + text(&self.id)
            + text(&self.source)
            + text(&self.metadata)
            + varint_len(self.tags.len() as u64)
            + tags
            + self.body.len()
    }

    /// The bytes of this message, in a buffer of their own.
    pub fn to_bytes(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut buffer);
        buffer.freeze()
    }

    /// The message that these bytes are.
    pub fn decode(bytes: Bytes) -> Result<Self, ModelError> {
        let mut rest = Reader(bytes);
        let version = rest.byte()?;
        if version != VERSION {
            return Err(ModelError::Version {
                what: WHAT,
                found: version,
                newest: VERSION,
            });
        }
        let (id, source, metadata) = (rest.text()?, rest.text()?, rest.text()?);
        let count = rest.length()?;
        if count > rest.0.len() / TAG_BYTES_MIN {
            return Err(cut_short());
        }
        let mut tags = Vec::with_capacity(count);
        for _ in 0..count {
            tags.push((rest.text()?, rest.text()?));
        }
        Ok(Self {
            id,
            source,
            metadata,
            tags,
            body: rest.0,
        })
    }
}

/// UTF-8 text in shared bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Bytes);

impl Text {
    /// Text that lives as long as the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when it was made and never changed since; checking again costs little for the
        // short texts of a message, and spares this crate its only unsafe line.
        std::str::from_utf8(&self.0).expect("the bytes of a text are UTF-8")
    }

    /// The bytes of the text.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = ModelError;

    fn try_from(bytes: Bytes) -> Result<Self, ModelError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(error) => Err(ModelError::malformed("a text", error)),
        }
    }
}

/// What is left of a message's bytes.
struct Reader(Bytes);

impl Reader {
    fn byte(&mut self) -> Result<u8, ModelError> {
        if self.0.is_empty() {
            return Err(cut_short());
        }
        Ok(self.0.split_to(1)[0])
    }

    fn length(&mut self) -> Result<usize, ModelError> {
        let mut value: u64 = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| cut_short());
            }
        }
        Err(ModelError::malformed(WHAT, "a length does not end"))
    }

    fn text(&mut self) -> Result<Text, ModelError> {
        let length = self.length()?;
        if length > self.0.len() {
            return Err(cut_short());
        }
        Text::try_from(self.0.split_to(length))
    }
}

fn cut_short() -> ModelError {
    ModelError::malformed(WHAT, "it is cut short")
}

fn put_text(buffer: &mut impl BufMut, text: &Text) {
    put_varint(buffer, text.len() as u64);
    buffer.put_slice(&text.0);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_varint(buffer: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Text> {
        prop_oneof![
            "\\PC{0,12}".prop_map(Text::from),
            (0usize..400).prop_map(|length| Text::from("ü".repeat(length))),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let tags = proptest::collection::vec((text(), text()), 0..5);
        let body = proptest::collection::vec(any::<u8>(), 0..300);
        (text(), text(), text(), tags, body).prop_map(|(id, source, metadata, tags, body)| {
            Message {
                id,
                source,
                metadata,
                tags,
                body: body.into(),
            }
        })
    }

    proptest! {
        #[test]
        fn a_message_survives_encoding(message in message()) {
            let bytes = message.to_bytes();
            prop_assert_eq!(bytes.len(), message.encoded_len());
            prop_assert_eq!(Message::decode(bytes), Ok(message));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(Bytes::from(bytes.clone()));
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = Message::decode(versioned.into());
        }

        #[test]
        fn damaged_messages_never_panic(
            message in message(),
            flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
            cut in any::<usize>(),
        ) {
            let mut bytes = message.to_bytes().to_vec();
            for (at, bits) in flips {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
            bytes.truncate(cut % (bytes.len() + 1));
            let _ = Message::decode(bytes.into());
        }
    }

    #[test]
    fn decoding_shares_the_bytes() {
        let bytes = Message {
            body: Bytes::from_static(b"body"),
            ..Message::default()
        }
        .to_bytes();
        let decoded = Message::decode(bytes.clone()).unwrap();
        assert!(bytes.as_ptr_range().contains(&decoded.body.as_ptr()));
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused() {
        let mut bytes = Message {
            id: Text::from_static("abc"),
            ..Message::default()
        }
        .to_bytes()
        .to_vec();
        bytes[3] = 0xff;
        assert!(Message::decode(bytes.into()).is_err());
    }
}
