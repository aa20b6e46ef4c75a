//! The keys that a shard's records are stored under.
//!
//! All access is by exact key: nothing here is ever scanned, so that a record that is not in memory
//! can be asked for by name. Keys order as they are declared, and so do their bytes, which keeps
//! records that are used together in neighbouring places of the store.

use std::hash::{BuildHasherDefault, Hasher};

use bincode::config::{BigEndian, Configuration, Fixint};
use bincode::{Decode, Encode};

use crate::error::ModelError;
use crate::ids::{DedupId, DiskId, LeaseId, NodeId, ObjectId, SessionId, ShardId};

/// The place of one record. Variants and fields are the stored format: only ever append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Key {
    /// What the shard knows about itself.
    Meta,
    /// From the digest of a name to its object.
    Name([u8; 16]),
    /// A topic or queue.
    Object(ObjectId),
    /// Index records of a topic, by their number / page size.
    TopicPage(ObjectId, u64),
    /// Messages of a queue, by their sequence / page size.
    QueuePage(ObjectId, u64),
    /// Messages of a queue that are not due: (queue, time bucket, chunk).
    Delayed(ObjectId, u64, u32),
    /// A node of an ordered set of numbers: (which set, level above the leaves, prefix).
    Trie(TrieId, u8, u64),
    /// What is due in a time bucket: (bucket, chunk).
    Timers(u64, u32),
    /// A lease of a queue.
    Lease(ObjectId, LeaseId),
    /// What a session holds.
    Session(SessionId),
    /// The sessions of a node.
    Node(NodeId),
    /// Part of an unordered list.
    Bag(BagId, u64),
    /// A cursor of a topic, by the digest of its name.
    Cursor(ObjectId, [u8; 16]),
    /// A producer-given id that was seen.
    Dedup(ObjectId, DedupId),
    /// Producer-given ids in order of arrival, for forgetting them.
    DedupLog(ObjectId, u64),
    /// How far a sender's batches were applied.
    Origin(OriginKey),
    /// The outcomes of one of the last batches of a sender, by sequence modulo their number.
    OriginSlot(OriginKey, u8),
    /// Policy and origin that messages share.
    Attributes(u64),
    /// From the digest of attributes to their number.
    AttributesIndex([u8; 16]),
    /// How far the outbox to another shard has got.
    Outbox(ShardId),
    /// A message on its way to another shard.
    OutboxItem(ShardId, u64),
    /// Which slots of neighbouring entries are still needed.
    Live(u64),
    /// Something ended whose records are removed bit by bit.
    Grave(u64),
    /// Which nodes have sessions here.
    SessionNodes,
    /// Metadata: the cluster as a whole.
    Cluster,
    /// Metadata: a node of the cluster.
    Member(NodeId),
    /// Metadata: from a disk to its node.
    MemberDisk(DiskId),
    /// Metadata: which nodes keep a shard.
    Placement(ShardId),
}

/// The sets of numbers that are kept in tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum TrieId {
    /// Time buckets with timers.
    Timers,
    /// Ids of topics and queues.
    Objects,
    /// Pages of a queue with a message to lease.
    Available(ObjectId),
    /// Pages of a queue that exist.
    Pages(ObjectId),
    /// Time buckets with delayed messages of a queue.
    Delayed(ObjectId),
    /// Pages of a bag that exist.
    Bag(BagId),
    /// Metadata: ids of nodes.
    Members,
    /// Metadata: shards that were placed.
    Placements,
}

/// The unordered lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum BagId {
    /// Leases that a session holds.
    SessionLeases(SessionId),
    /// Sessions of a node that hold something.
    NodeSessions(NodeId),
    /// Cursors of a topic.
    Cursors(ObjectId),
}

/// An origin without its incarnation: a newer life of a node takes the place of the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum OriginKey {
    /// A node.
    Node(NodeId),
    /// The outbox of a shard.
    Shard(ShardId),
}

/// Fixed width and big-endian, so that the bytes order like the values.
const CONFIG: Configuration<BigEndian, Fixint> = bincode::config::standard()
    .with_big_endian()
    .with_fixed_int_encoding();

/// The variant number has four bytes of which only the last is ever used: the others are left out.
const TAG_ZEROS: usize = 3;

impl Key {
    /// No key has more bytes.
    pub const ENCODED_BYTES_MAX: usize = 64;

    /// The bytes of this key; they order as keys do.
    pub fn encode(&self) -> Vec<u8> {
        let mut buffer = [0; Self::ENCODED_BYTES_MAX + TAG_ZEROS];
        let length = bincode::encode_into_slice(self, &mut buffer, CONFIG)
            .expect("no key is longer than the buffer: a test encodes the longest");
        buffer[TAG_ZEROS..length].to_vec()
    }

    /// The key that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<Self, ModelError> {
        let mut buffer = [0; Self::ENCODED_BYTES_MAX + TAG_ZEROS];
        let Some(room) = buffer.get_mut(TAG_ZEROS..TAG_ZEROS + bytes.len()) else {
            return Err(ModelError::TooLarge {
                what: "a record key",
                bytes: bytes.len(),
                bytes_max: Self::ENCODED_BYTES_MAX,
            });
        };
        room.copy_from_slice(bytes);
        let length = TAG_ZEROS + bytes.len();
        let (key, used) = bincode::decode_from_slice(&buffer[..length], CONFIG)
            .map_err(|error| ModelError::malformed("a record key", error))?;
        if used != length {
            return Err(ModelError::malformed("a record key", "bytes are left over"));
        }
        Ok(key)
    }
}

/// A map by key that hashes fast and alike on every node. Its order must still not decide anything.
pub type KeyMap<V> = std::collections::HashMap<Key, V, BuildHasherDefault<KeyHasher>>;

/// A multiplying hasher: keys are numbers and digests that nobody outside chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        // Tables take the low bits, a product's best bits are the high ones.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(MULTIPLIER);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trie_id() -> impl Strategy<Value = TrieId> {
        prop_oneof![
            Just(TrieId::Timers),
            Just(TrieId::Objects),
            any::<u64>().prop_map(|id| TrieId::Available(ObjectId(id))),
            any::<u64>().prop_map(|id| TrieId::Pages(ObjectId(id))),
            bag_id().prop_map(TrieId::Bag),
        ]
    }

    fn bag_id() -> impl Strategy<Value = BagId> {
        prop_oneof![
            any::<(u64, u64, u64)>().prop_map(|(node, incarnation, number)| {
                BagId::SessionLeases(SessionId {
                    node: NodeId(node),
                    incarnation,
                    number,
                })
            }),
            any::<u64>().prop_map(|id| BagId::Cursors(ObjectId(id))),
        ]
    }

    fn key() -> impl Strategy<Value = Key> {
        prop_oneof![
            Just(Key::Meta),
            any::<[u8; 16]>().prop_map(Key::Name),
            (0u64..600).prop_map(|id| Key::Object(ObjectId(id))),
            (0u64..4, any::<u64>()).prop_map(|(id, page)| Key::TopicPage(ObjectId(id), page)),
            (0u64..4, 0u64..600).prop_map(|(id, page)| Key::QueuePage(ObjectId(id), page)),
            (0u64..4, 0u64..600, 0u32..3).prop_map(|(id, bucket, chunk)| Key::Delayed(
                ObjectId(id),
                bucket,
                chunk
            )),
            (trie_id(), 0u8..3, any::<u64>())
                .prop_map(|(id, level, prefix)| Key::Trie(id, level, prefix)),
            (bag_id(), any::<u64>()).prop_map(|(id, page)| Key::Bag(id, page)),
            any::<(u64, [u8; 16])>().prop_map(|(id, d)| Key::Dedup(ObjectId(id), DedupId(d))),
            any::<(u32, u64)>().prop_map(|(id, item)| Key::OutboxItem(ShardId(id), item)),
            any::<(u32, u8)>()
                .prop_map(|(id, n)| Key::OriginSlot(OriginKey::Shard(ShardId(id)), n)),
            Just(Key::SessionNodes),
            (0u64..600).prop_map(|id| Key::Member(NodeId(id))),
            any::<[u8; 16]>().prop_map(|disk| Key::MemberDisk(DiskId(disk))),
            (0u32..600).prop_map(|shard| Key::Placement(ShardId(shard))),
        ]
    }

    proptest! {
        #[test]
        fn keys_survive_encoding_and_order_like_their_bytes(one in key(), other in key()) {
            let (one_bytes, other_bytes) = (one.encode(), other.encode());
            prop_assert!(one_bytes.len() <= Key::ENCODED_BYTES_MAX);
            prop_assert_eq!(Key::decode(&one_bytes), Ok(one));
            prop_assert_eq!(one.cmp(&other), one_bytes.cmp(&other_bytes));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let session = SessionId {
            node: NodeId(u64::MAX),
            incarnation: u64::MAX,
            number: u64::MAX,
        };
        let longest = Key::Trie(
            TrieId::Bag(BagId::SessionLeases(session)),
            u8::MAX,
            u64::MAX,
        );
        assert!(longest.encode().len() <= Key::ENCODED_BYTES_MAX);
    }
}
