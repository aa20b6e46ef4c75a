//! The typed records that a shard's state is made of, and their bytes.
//!
//! A record is small, so that reading, changing and storing one costs the same however much the
//! shard holds. The bytes are a version and the bincode of [`Record`]; the pages of messages, index
//! records and slots write their columns as differences, see their files.

mod attributes;
mod bag;
mod columns;
mod cursor;
mod dedup;
mod grave;
mod lease;
mod live;
mod meta;
mod metadata;
mod origin;
mod outbox;
mod queue;
mod queue_page;
mod session;
mod timer;
mod topic;
mod topic_page;
mod trie_node;

pub(crate) use attributes::{Attributes, AttributesEntry, AttributesId};
pub(crate) use bag::{BAG_PAGE_ITEMS, BagHead, BagItem, BagPage};
pub(crate) use cursor::CursorState;
pub(crate) use dedup::{DEDUP_PAGE_IDS, DedupEntry, DedupHead, DedupPage};
pub(crate) use grave::Grave;
pub(crate) use lease::{LeaseState, SequenceRange};
pub(crate) use live::{LIVE_PAGE_ENTRIES, LivePage, SlotSet};
pub(crate) use meta::ShardMeta;
pub(crate) use metadata::{ClusterState, Member, Placement};
pub(crate) use origin::{OriginSlot, OriginState};
pub(crate) use outbox::{OutboxHead, OutboxMessage};
pub(crate) use queue::Queue;
pub(crate) use queue_page::{NEVER, PAGE_MESSAGES, QueueMessage, QueuePage};
pub(crate) use session::{NodeSessions, SessionNodes, SessionState};
pub(crate) use timer::{Timer, TimerChunk};
pub(crate) use topic::Topic;
pub(crate) use topic_page::{PAGE_RECORDS, TopicPage, TopicRecord};
pub(crate) use trie_node::TrieNode;

use bincode::{Decode, Encode};

use crate::error::ModelError;
use crate::ids::{NodeId, ObjectId};
use crate::key::Key;

/// A value under a [`Key`]. The variants' order is the stored format: only ever append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// Under [`Key::Meta`].
    #[doc(hidden)]
    Meta(Box<ShardMeta>),
    /// Under [`Key::Name`].
    #[doc(hidden)]
    Name(ObjectId),
    /// Under [`Key::Object`].
    #[doc(hidden)]
    Topic(Box<Topic>),
    /// Under [`Key::Object`].
    #[doc(hidden)]
    Queue(Box<Queue>),
    /// Under [`Key::TopicPage`].
    #[doc(hidden)]
    TopicPage(TopicPage),
    /// Under [`Key::QueuePage`] and [`Key::Delayed`].
    #[doc(hidden)]
    QueuePage(QueuePage),
    /// Under [`Key::Trie`]: which of 64 children are there.
    #[doc(hidden)]
    Trie(TrieNode),
    /// Under [`Key::Timers`].
    #[doc(hidden)]
    Timers(TimerChunk),
    /// Under [`Key::Lease`].
    #[doc(hidden)]
    Lease(Box<LeaseState>),
    /// Under [`Key::Session`].
    #[doc(hidden)]
    Session(SessionState),
    /// Under [`Key::Node`].
    #[doc(hidden)]
    Node(NodeSessions),
    /// Under [`Key::Bag`].
    #[doc(hidden)]
    Bag(BagPage),
    /// Under [`Key::Cursor`].
    #[doc(hidden)]
    Cursor(Box<CursorState>),
    /// Under [`Key::Dedup`].
    #[doc(hidden)]
    Dedup(DedupEntry),
    /// Under [`Key::DedupLog`].
    #[doc(hidden)]
    DedupLog(DedupPage),
    /// Under [`Key::Origin`].
    #[doc(hidden)]
    Origin(OriginState),
    /// Under [`Key::OriginSlot`].
    #[doc(hidden)]
    OriginSlot(OriginSlot),
    /// Under [`Key::Attributes`].
    #[doc(hidden)]
    Attributes(AttributesEntry),
    /// Under [`Key::AttributesIndex`].
    #[doc(hidden)]
    AttributesIndex(AttributesId),
    /// Under [`Key::Outbox`].
    #[doc(hidden)]
    Outbox(OutboxHead),
    /// Under [`Key::OutboxItem`].
    #[doc(hidden)]
    OutboxItem(Box<OutboxMessage>),
    /// Under [`Key::Live`].
    #[doc(hidden)]
    Live(LivePage),
    /// Under [`Key::Grave`].
    #[doc(hidden)]
    Grave(Grave),
    /// Under [`Key::SessionNodes`].
    #[doc(hidden)]
    SessionNodes(SessionNodes),
    /// Under [`Key::Cluster`].
    #[doc(hidden)]
    Cluster(ClusterState),
    /// Under [`Key::Member`].
    #[doc(hidden)]
    Member(Box<Member>),
    /// Under [`Key::MemberDisk`].
    #[doc(hidden)]
    MemberDisk(NodeId),
    /// Under [`Key::Placement`].
    #[doc(hidden)]
    Placement(Placement),
}

/// The newest version of a record's bytes.
const VERSION: u8 = 1;

/// More than any record takes; a length inside damaged bytes cannot ask for more memory than this.
const DECODE_BYTES_MAX: usize = 64 << 20;

const WHAT: &str = "a state record";

impl Record {
    /// The bytes of this record.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bincode::encode_into_std_write(self, &mut bytes, bincode::config::standard())
            .expect("writing to memory cannot fail and every record can be encoded");
        bytes
    }

    /// The record that these bytes are, which must be of the kind that its key is for.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Self, ModelError> {
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
        let config = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();
        let (record, used): (Self, usize) = bincode::decode_from_slice(body, config)
            .map_err(|error| ModelError::malformed(WHAT, error))?;
        if used != body.len() {
            return Err(ModelError::malformed(WHAT, "bytes are left over"));
        }
        if !record.belongs_under(key) {
            return Err(ModelError::malformed(
                WHAT,
                format!("its kind does not belong under {key:?}"),
            ));
        }
        Ok(record)
    }

    /// About how many bytes of memory this record takes, for bounding a cache.
    pub fn weight(&self) -> usize {
        const SHARED: usize = size_of::<Record>() + 2 * size_of::<usize>();
        SHARED
            + match self {
                Self::Meta(_) => size_of::<ShardMeta>() + 256,
                Self::Topic(topic) => size_of::<Topic>() + 256 + topic.name.text().len(),
                Self::Queue(queue) => size_of::<Queue>() + 256 + queue.name.text().len(),
                Self::TopicPage(page) => page.weight(),
                Self::QueuePage(page) => page.weight(),
                Self::Timers(chunk) => chunk.weight(),
                Self::Lease(lease) => lease.weight(),
                Self::Bag(page) => page.weight(),
                Self::Cursor(cursor) => cursor.weight(),
                Self::DedupLog(page) => page.weight(),
                Self::OriginSlot(slot) => slot.weight(),
                Self::Attributes(entry) => entry.weight(),
                Self::OutboxItem(message) => message.weight(),
                Self::Live(page) => page.weight(),
                Self::Grave(grave) => grave.weight(),
                Self::SessionNodes(nodes) => nodes.weight(),
                Self::Member(member) => member.weight(),
                Self::Placement(placement) => placement.weight(),
                Self::Name(_)
                | Self::Trie(_)
                | Self::Session(_)
                | Self::Node(_)
                | Self::Dedup(_)
                | Self::Origin(_)
                | Self::AttributesIndex(_)
                | Self::Outbox(_)
                | Self::Cluster(_)
                | Self::MemberDisk(_) => 0,
            }
    }

    fn belongs_under(&self, key: &Key) -> bool {
        matches!(
            (self, key),
            (Self::Meta(_), Key::Meta)
                | (Self::Name(_), Key::Name(_))
                | (Self::Topic(_) | Self::Queue(_), Key::Object(_))
                | (Self::TopicPage(_), Key::TopicPage(..))
                | (Self::QueuePage(_), Key::QueuePage(..) | Key::Delayed(..))
                | (Self::Trie(_), Key::Trie(..))
                | (Self::Timers(_), Key::Timers(..))
                | (Self::Lease(_), Key::Lease(..))
                | (Self::Session(_), Key::Session(_))
                | (Self::Node(_), Key::Node(_))
                | (Self::Bag(_), Key::Bag(..))
                | (Self::Cursor(_), Key::Cursor(..))
                | (Self::Dedup(_), Key::Dedup(..))
                | (Self::DedupLog(_), Key::DedupLog(..))
                | (Self::Origin(_), Key::Origin(_))
                | (Self::OriginSlot(_), Key::OriginSlot(..))
                | (Self::Attributes(_), Key::Attributes(_))
                | (Self::AttributesIndex(_), Key::AttributesIndex(_))
                | (Self::Outbox(_), Key::Outbox(_))
                | (Self::OutboxItem(_), Key::OutboxItem(..))
                | (Self::Live(_), Key::Live(_))
                | (Self::Grave(_), Key::Grave(_))
                | (Self::SessionNodes(_), Key::SessionNodes)
                | (Self::Cluster(_), Key::Cluster)
                | (Self::Member(_), Key::Member(_))
                | (Self::MemberDisk(_), Key::MemberDisk(_))
                | (Self::Placement(_), Key::Placement(_))
        )
    }
}

/// A kind of record. Which kind is under which key was checked when the record was decoded.
pub(crate) trait Stored: Clone {
    /// As a record.
    fn wrap(self) -> Record;
    /// Out of a record, if it is of this kind.
    fn try_peel(record: &Record) -> Option<&Self>;
    /// Out of a record.
    fn peel(record: &Record) -> &Self;
    /// Out of a record, for changing it.
    fn peel_mut(record: &mut Record) -> &mut Self;
}

/// One line per kind of record.
macro_rules! stored {
    ($($variant:ident($kind:ty) $(as $boxed:ident)?),* $(,)?) => {$(
        impl Stored for $kind {
            fn wrap(self) -> Record {
                Record::$variant(stored!(@wrap self $($boxed)?))
            }

            fn try_peel(record: &Record) -> Option<&Self> {
                match record {
                    Record::$variant(inner) => Some(inner),
                    _ => None,
                }
            }

            fn peel(record: &Record) -> &Self {
                Self::try_peel(record).unwrap_or_else(|| wrong_kind(record, stringify!($variant)))
            }

            fn peel_mut(record: &mut Record) -> &mut Self {
                match record {
                    Record::$variant(inner) => inner,
                    other => wrong_kind(other, stringify!($variant)),
                }
            }
        }
    )*};
    (@wrap $value:ident) => { $value };
    (@wrap $value:ident boxed) => { Box::new($value) };
}

stored! {
    Meta(ShardMeta) as boxed,
    Topic(Topic) as boxed,
    Queue(Queue) as boxed,
    TopicPage(TopicPage),
    QueuePage(QueuePage),
    Name(ObjectId),
    Trie(TrieNode),
    Timers(TimerChunk),
    Lease(LeaseState) as boxed,
    Session(SessionState),
    Node(NodeSessions),
    Bag(BagPage),
    Cursor(CursorState) as boxed,
    Dedup(DedupEntry),
    DedupLog(DedupPage),
    Origin(OriginState),
    OriginSlot(OriginSlot),
    Attributes(AttributesEntry),
    AttributesIndex(AttributesId),
    Outbox(OutboxHead),
    OutboxItem(OutboxMessage) as boxed,
    Live(LivePage),
    Grave(Grave),
    SessionNodes(SessionNodes),
    Cluster(ClusterState),
    Member(Member) as boxed,
    MemberDisk(NodeId),
    Placement(Placement),
}

/// A record of a wrong kind passed the check of its key, which is a mistake in this crate: going on
/// would make replicas differ.
#[cold]
fn wrong_kind(record: &Record, wanted: &str) -> ! {
    panic!("a record under a key for {wanted} is {record:?}")
}
