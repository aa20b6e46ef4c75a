//! Names of topics, queues, signals and requests, and the shard a name belongs to.

use std::fmt;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::ids::ShardId;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 65_535;
/// Longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 63;
/// The namespace of protocols that know none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a name names. The same bytes under two kinds are two different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Kind {
    /// A durable, append-only log.
    Topic,
    /// A durable queue of leased messages.
    Queue,
    /// Messages to whoever listens now; stores nothing.
    Signal,
    /// Asks whoever serves the name now for a reply; stores nothing.
    Request,
    /// The same, where a protocol keeps what is to be done apart from what is to be answered.
    Command,
}

impl Kind {
    /// Whether shards hold what bears such a name.
    pub fn is_stored(self) -> bool {
        match self {
            Self::Topic | Self::Queue => true,
            Self::Signal | Self::Request | Self::Command => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "topic",
            Self::Queue => "queue",
            Self::Signal => "signal",
            Self::Request => "request",
            Self::Command => "command",
        })
    }
}

/// A name as clients give it. Gateways build it once per batch and name; its clones, of which every
/// message of a batch has one, share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Name(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
struct Parts {
    namespace: String,
    kind: Kind,
    text: String,
}

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {kind} name must not be empty")]
    Empty {
        /// What was to be named.
        kind: Kind,
    },
    /// More bytes than allowed.
    #[error("a {kind} name has {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// What was to be named.
        kind: Kind,
        /// What was given.
        bytes: usize,
    },
    /// A namespace outside its alphabet or length.
    #[error(
        "namespace {namespace:?} must be 1 to {NAMESPACE_BYTES_MAX} of the characters a-z, 0-9, '-' and '_'"
    )]
    Namespace {
        /// What was given.
        namespace: String,
    },
}

impl Name {
    /// A name in a namespace. Protocols with stricter rules check those first.
    pub fn new(namespace: &str, kind: Kind, text: &str) -> Result<Self, NameError> {
        check(namespace, kind, text)?;
        Ok(Self(Arc::new(Parts {
            namespace: namespace.to_owned(),
            kind,
            text: text.to_owned(),
        })))
    }

    /// Whether the parts are within their limits: a name that was decoded has not been checked.
    pub fn check(&self) -> Result<(), NameError> {
        check(self.namespace(), self.kind(), self.text())
    }

    /// A topic of the default namespace.
    pub fn topic(text: &str) -> Result<Self, NameError> {
        Self::new(DEFAULT_NAMESPACE, Kind::Topic, text)
    }

    /// A queue of the default namespace.
    pub fn queue(text: &str) -> Result<Self, NameError> {
        Self::new(DEFAULT_NAMESPACE, Kind::Queue, text)
    }

    /// A signal of the default namespace.
    pub fn signal(text: &str) -> Result<Self, NameError> {
        Self::new(DEFAULT_NAMESPACE, Kind::Signal, text)
    }

    /// A request of the default namespace.
    pub fn request(text: &str) -> Result<Self, NameError> {
        Self::new(DEFAULT_NAMESPACE, Kind::Request, text)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// What is named.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The name itself.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// A digest of the whole name: the key under which a shard finds the object.
    pub fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.namespace().as_bytes());
        // The namespace cannot contain this byte, so that two different names never digest the same bytes.
        hasher.update(&[0xff, self.kind() as u8]);
        hasher.update(self.text().as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        digest
    }

    /// The shard that holds this name when there are `shard_count` of them.
    ///
    /// The high bits of the digest choose, evenly for any count.
    pub fn shard(&self, shard_count: u32) -> ShardId {
        let digest = self.digest();
        let high = u64::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
        ]);
        let slot = ((u128::from(high) * u128::from(shard_count)) >> 64) as u32;
        ShardId(slot + 1)
    }
}

fn check(namespace: &str, kind: Kind, text: &str) -> Result<(), NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    if namespace.is_empty()
        || namespace.len() > NAMESPACE_BYTES_MAX
        || !namespace.bytes().all(allowed)
    {
        return Err(NameError::Namespace {
            namespace: namespace.chars().take(NAMESPACE_BYTES_MAX).collect(),
        });
    }
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong {
            kind,
            bytes: text.len(),
        });
    }
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind(), self.namespace(), self.text())
    }
}
