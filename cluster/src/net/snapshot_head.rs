//! What a snapshot transfer begins with.

use std::io;

use bytes::Bytes;
use flotilla_storage::{GroupId, SnapshotManifest};
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::replica::AppliedMark;
use crate::types::{SnapshotMeta, Vote};

#[derive(Serialize, Deserialize)]
struct Encoded {
    vote: Vote,
    manifest: Vec<u8>,
}

/// Who sends it, and of what.
pub(super) struct SnapshotHead {
    pub vote: Vote,
    pub manifest: SnapshotManifest,
}

impl SnapshotHead {
    pub fn encode(&self) -> io::Result<Bytes> {
        codec::encode(&Encoded {
            vote: self.vote,
            manifest: self.manifest.encode().to_vec(),
        })
    }

    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let encoded: Encoded = codec::decode("head of a snapshot", bytes)?;
        let manifest = SnapshotManifest::decode(&encoded.manifest).map_err(io::Error::other)?;
        Ok(Self {
            vote: encoded.vote,
            manifest,
        })
    }

    /// What Raft knows the snapshot by, which is what its checkpoint says of itself.
    pub fn meta(&self, group: GroupId) -> io::Result<SnapshotMeta> {
        let mark: AppliedMark = codec::decode("applied mark", &self.manifest.applied)?;
        let upto = mark.log_id.map(|log_id| log_id.index);
        if self.manifest.group != group || upto != Some(self.manifest.upto.index) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the parts of the snapshot's head contradict each other",
            ));
        }
        Ok(SnapshotMeta {
            last_log_id: mark.log_id,
            last_membership: mark.membership,
        })
    }
}
