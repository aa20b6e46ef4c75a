//! The protocol's messages as JSON: keys are the names of their fields.
//!
//! Out: fields with their zero value are left out, bytes are base64, enums are numbers, 64-bit numbers are
//! numbers. In: the case of keys does not matter, `null` is a field's zero value, unknown keys are passed
//! over. What is read is read straight into messages, and counted: a small body must not become a large
//! request in memory.

mod messages;
mod value;

#[cfg(test)]
mod json_test;

use serde::{Serialize, Serializer};

pub use self::value::Value;
use self::value::{Room, Shown};

/// Reads a message; an error says where what is wrong.
pub fn read<M: Value>(text: &[u8]) -> Result<M, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message = M::read(&mut deserializer, &Room::default())?;
    deserializer.end()?;
    Ok(message)
}

/// A message for whoever writes JSON.
pub fn shown<M: Value>(message: &M) -> impl Serialize {
    Shown(message)
}

/// Writes a message.
pub fn text<M: Value>(message: &M) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Shown(message))
}

impl<M: Value> Serialize for Shown<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}
