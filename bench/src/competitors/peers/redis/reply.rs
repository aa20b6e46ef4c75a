//! What a read of a stream is answered with: an array of streams, each with its name and its entries, each
//! of which is an id and the fields. The bench writes one field and reads one stream.

use crate::BenchError;
use ::redis::Value;
use bytes::Bytes;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries {
    pub ids: Vec<Bytes>,
    pub bodies: Vec<Bytes>,
}

/// Takes the answer of XREADGROUP apart, without copying what is in it. No messages are answered with nil.
pub fn read_entries(reply: Value) -> Result<Entries, BenchError> {
    let mut entries = Entries::default();
    if reply == Value::Nil {
        return Ok(entries);
    }
    for stream in array(reply)? {
        let [_name, messages] = parts(stream)?;
        for message in array(messages)? {
            let [id, fields] = parts(message)?;
            let [_field, body] = parts(fields)?;
            entries.ids.push(bytes(id)?);
            entries.bodies.push(bytes(body)?);
        }
    }
    Ok(entries)
}

fn array(value: Value) -> Result<Vec<Value>, BenchError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(not_understood(&other)),
    }
}

fn parts<const COUNT: usize>(value: Value) -> Result<[Value; COUNT], BenchError> {
    array(value)?
        .try_into()
        .map_err(|values| not_understood(&Value::Array(values)))
}

fn bytes(value: Value) -> Result<Bytes, BenchError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        other => Err(not_understood(&other)),
    }
}

fn not_understood(value: &Value) -> BenchError {
    BenchError::Refused {
        doing: "reading a stream".to_owned(),
        text: format!("{value:.200?} was not expected in its answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn message(id: &str, body: &str) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text("b"), text(body)])])
    }

    #[test]
    fn ids_and_bodies_come_in_their_order() {
        let messages = Value::Array(vec![message("1-0", "x"), message("2-0", "y")]);
        let reply = Value::Array(vec![Value::Array(vec![text("topic"), messages])]);
        let entries = read_entries(reply).expect("it is well formed");
        assert_eq!(entries.ids, ["1-0", "2-0"]);
        assert_eq!(entries.bodies, ["x", "y"]);
    }

    #[test]
    fn no_messages_are_no_entries() {
        let entries = read_entries(Value::Nil).expect("it is well formed");
        assert_eq!(entries, Entries::default());
    }

    #[test]
    fn what_was_not_expected_is_an_error() {
        assert!(read_entries(Value::Okay).is_err());
        let reply = Value::Array(vec![Value::Array(vec![text("topic")])]);
        assert!(read_entries(reply).is_err());
    }
}
