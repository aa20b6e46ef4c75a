//! The bytes of an entry's head, and where versions are decided.
//!
//! Two things are versioned. The *format* of bytes: every head, record and message begins with a
//! version, and a build refuses one that it does not know. The *behaviour* of `apply`: a feature
//! level in the shard's state, the same on every replica, which is raised by a command only once
//! every node knows it, so that builds of different age never come to different states.

use crate::command::{ENTRY_COMMANDS_MAX, EntryHead};
use crate::error::ModelError;

/// The level that a new shard has.
pub const FEATURE_LEVEL_FIRST: u16 = 1;
/// The highest level that this build can follow.
pub const FEATURE_LEVEL: u16 = 1;

/// Most bytes of a head.
pub const HEAD_BYTES_MAX: usize = 8 << 20;
/// Most memory that lists inside a head may claim while it is decoded: a damaged length must not
/// ask for more.
const HEAD_MEMORY_MAX: usize = 64 << 20;

/// The newest version of a head's bytes.
const VERSION: u8 = 1;
const WHAT: &str = "an entry head";

/// The bytes of a head.
pub fn encode_head(head: &EntryHead) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bincode::encode_into_std_write(head, &mut bytes, bincode::config::standard())
        .expect("writing to memory cannot fail and every head can be encoded");
    bytes
}

/// The head that these bytes are.
pub fn decode_head(bytes: &[u8]) -> Result<EntryHead, ModelError> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(ModelError::TooLarge {
            what: WHAT,
            bytes: bytes.len(),
            bytes_max: HEAD_BYTES_MAX,
        });
    }
    let Some((version, body)) = bytes.split_first() else {
        return Err(ModelError::malformed(WHAT, "it is empty"));
    };
    if *version != VERSION {
        return Err(ModelError::Version {
            what: WHAT,
            found: *version,
            newest: VERSION,
        });
    }
    let config = bincode::config::standard().with_limit::<HEAD_MEMORY_MAX>();
    let (head, used): (EntryHead, usize) = bincode::decode_from_slice(body, config)
        .map_err(|error| ModelError::malformed(WHAT, error))?;
    if used != body.len() {
        return Err(ModelError::malformed(WHAT, "bytes are left over"));
    }
    let commands: usize = head.proposals.iter().map(|p| p.commands.len()).sum();
    if commands > ENTRY_COMMANDS_MAX {
        return Err(ModelError::malformed(
            WHAT,
            format!("it has {commands} commands, at most {ENTRY_COMMANDS_MAX} are allowed"),
        ));
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Proposal};
    use crate::ids::{NodeId, Origin, ShardTime, WallTime};
    use crate::name::Name;

    fn head() -> EntryHead {
        EntryHead {
            now: ShardTime(7),
            wall: WallTime(8),
            proposals: vec![Proposal {
                origin: Origin::Node {
                    node: NodeId(1),
                    incarnation: 2,
                },
                sequence: 3,
                first_slot: 0,
                commands: vec![Command::Append {
                    topic: Name::topic("t").unwrap(),
                    count: 4,
                    dedup: Vec::new(),
                }],
            }],
        }
    }

    #[test]
    fn a_head_survives_encoding() {
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode_head(&head());
        bytes[0] = VERSION + 1;
        let error = decode_head(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an entry head has format version 2, this build knows up to 1"
        );
    }

    #[test]
    fn a_length_beyond_the_bytes_claims_no_memory() {
        // now 0, wall 0, and a list of 2^60 proposals.
        let mut bytes = vec![VERSION, 0, 0, 253];
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert!(matches!(
            decode_head(&bytes),
            Err(ModelError::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6), cut in any::<usize>()) {
            let mut bytes = encode_head(&head());
            for (at, bits) in flips {
                let at = at % bytes.len();
                bytes[at] ^= bits;
            }
            bytes.truncate(cut % (bytes.len() + 1));
            let _ = decode_head(&bytes);
        }
    }
}
