//! This crate's own messages and files as bytes.
//!
//! Each begins with a format byte, so that another build can tell that it cannot read what this one wrote.

use std::io;

use bincode::{Decode, Encode};
use bytes::Bytes;

const FORMAT: u8 = 1;
/// Lengths inside are not believed beyond what such a thing can be.
const BYTES_MAX: usize = 16 << 20;

pub(crate) fn pack<T: Encode>(value: &T) -> io::Result<Bytes> {
    let mut bytes = vec![FORMAT];
    bincode::encode_into_std_write(value, &mut bytes, bincode::config::standard())
        .map_err(io::Error::other)?;
    Ok(Bytes::from(bytes))
}

pub(crate) fn unpack<T: Decode<()>>(what: &str, bytes: &[u8]) -> io::Result<T> {
    let invalid = |complaint: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {complaint}"))
    };
    match bytes.split_first() {
        Some((&FORMAT, rest)) => {
            let config = bincode::config::standard().with_limit::<BYTES_MAX>();
            bincode::decode_from_slice(rest, config)
                .map(|(value, _)| value)
                .map_err(|error| invalid(error.to_string()))
        }
        Some((version, _)) => Err(invalid(format!(
            "format {version} is not known, this build knows {FORMAT}"
        ))),
        None => Err(invalid("it is empty".to_owned())),
    }
}
