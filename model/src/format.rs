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
pub const FEATURE_LEVEL: u16 = 4;

/// Most bytes of a head.
pub const HEAD_BYTES_MAX: usize = 8 << 20;
/// Most memory that lists inside a head may claim while it is decoded: a damaged length must not
/// ask for more.
const HEAD_MEMORY_MAX: usize = 64 << 20;

/// Heads of the first level, which every build understands.
const VERSION_PLAIN: u8 = 1;
/// After the version comes the level that is needed to apply the entry.
const VERSION_LEVELLED: u8 = 2;
const WHAT: &str = "an entry head";

/// The bytes of a head.
pub fn encode_head(head: &EntryHead) -> Vec<u8> {
    let config = bincode::config::standard();
    let level = head.feature_level();
    let mut bytes = Vec::new();
    let encoded = if level == FEATURE_LEVEL_FIRST {
        bytes.push(VERSION_PLAIN);
        bincode::encode_into_std_write(head, &mut bytes, config)
    } else {
        bytes.push(VERSION_LEVELLED);
        bincode::encode_into_std_write((level, head), &mut bytes, config)
    };
    encoded.expect("writing to memory cannot fail and every head can be encoded");
    bytes
}

/// The head that these bytes are, on a node that follows levels up to `level_max`.
pub fn decode_head(bytes: &[u8], level_max: u16) -> Result<EntryHead, ModelError> {
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
    let (level, body) = match *version {
        VERSION_PLAIN => (FEATURE_LEVEL_FIRST, body),
        VERSION_LEVELLED => level_of(body)?,
        found => {
            return Err(ModelError::Version {
                what: WHAT,
                found,
                newest: VERSION_LEVELLED,
            });
        }
    };
    // Before the rest is looked at: it may be of kinds that are not known here.
    if level > level_max {
        return Err(ModelError::FeatureLevel {
            what: WHAT,
            needed: level,
            known: level_max,
        });
    }
    let config = bincode::config::standard().with_limit::<HEAD_MEMORY_MAX>();
    let (head, used): (EntryHead, usize) = bincode::decode_from_slice(body, config)
        .map_err(|error| ModelError::malformed(WHAT, error))?;
    if used != body.len() {
        return Err(ModelError::malformed(WHAT, "bytes are left over"));
    }
    if head.feature_level() != level {
        return Err(ModelError::malformed(
            WHAT,
            format!("it claims to be of feature level {level}"),
        ));
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

fn level_of(body: &[u8]) -> Result<(u16, &[u8]), ModelError> {
    let (level, used): (u16, usize) = bincode::decode_from_slice(body, bincode::config::standard())
        .map_err(|error| ModelError::malformed(WHAT, error))?;
    Ok((level, &body[used..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, Proposal, Selection, Settlement};
    use crate::ids::{LeaseId, NodeId, Origin, SessionId, ShardTime, WallTime};
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
        let bytes = encode_head(&head());
        assert_eq!(bytes[0], VERSION_PLAIN);
        assert_eq!(decode_head(&bytes, FEATURE_LEVEL_FIRST), Ok(head()));
    }

    #[test]
    fn an_entry_that_a_node_does_not_know_names_its_level() {
        let session = SessionId {
            node: NodeId(1),
            incarnation: 2,
            number: 3,
        };
        let settle = |how| Command::Settle {
            queue: Name::queue("q").unwrap(),
            session,
            lease: LeaseId(4),
            which: Selection::All,
            how,
        };
        let commands = [
            (2, Command::ForgetNode { node: NodeId(3) }),
            (2, Command::RaiseFeatureLevel { to: 2 }),
            (3, Command::RaiseFeatureLevel { to: 3 }),
            (3, settle(Settlement::Withdraw { pause_ms: 0 })),
            (3, settle(Settlement::Postpone { pause_ms: 9 })),
            (4, Command::WithdrawSession { session }),
        ];
        for (level, command) in commands {
            let mut head = head();
            head.proposals[0].commands.push(command);
            let bytes = encode_head(&head);
            assert_eq!(decode_head(&bytes, level), Ok(head));
            let known = level - 1;
            let error = decode_head(&bytes, known).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "an entry head is of feature level {level}, this node knows levels up to {known}"
                )
            );
        }
    }

    #[test]
    fn a_head_that_hides_its_level_is_refused() {
        let mut head = head();
        head.proposals[0].commands = vec![Command::ForgetNode { node: NodeId(3) }];
        let levelled = encode_head(&head);
        let mut plain = vec![VERSION_PLAIN];
        plain.extend(&levelled[2..]);
        assert!(matches!(
            decode_head(&plain, FEATURE_LEVEL),
            Err(ModelError::Malformed { .. })
        ));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = encode_head(&head());
        bytes[0] = VERSION_LEVELLED + 1;
        let error = decode_head(&bytes, FEATURE_LEVEL).unwrap_err();
        assert_eq!(
            error.to_string(),
            "an entry head has format version 3, this build knows up to 2"
        );
    }

    #[test]
    fn a_length_beyond_the_bytes_claims_no_memory() {
        // now 0, wall 0, and a list of 2^60 proposals.
        let mut bytes = vec![VERSION_PLAIN, 0, 0, 253];
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert!(matches!(
            decode_head(&bytes, FEATURE_LEVEL),
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
            let _ = decode_head(&bytes, FEATURE_LEVEL);
        }
    }
}
