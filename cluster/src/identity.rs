//! Who this node is: ids, start counter and shard count, kept in `node.identity` of the data directory.
//!
//! The file is a few lines of `key value`, replaced as a whole and synced, with the directory, before
//! anything is done in the node's name. The start counter tells what this life of the node does from
//! what an earlier one did, so a start that cannot be counted durably is no start.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flotilla_model::ids::NodeId;
use flotilla_storage::create_dir_durably;

use crate::error::ClusterError;

const FILE_NAME: &str = "node.identity";
/// Raised when the data directory changes so that an older build must not touch it.
const FORMAT: u32 = 1;
/// Most shards a node can be asked for: each is a Raft group with its own tasks.
pub(crate) const SHARDS_MAX: u32 = 1_024;

/// The cluster that a node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// How often the node was started, this time included.
    pub incarnation: u64,
    /// Fixed at the first start: names are spread over the shards by it.
    pub shards: u32,
}

impl Identity {
    /// Reads the identity, or makes one in an empty directory, and counts this start.
    pub fn start(data_dir: &Path, shards: u32) -> Result<Self, ClusterError> {
        create_dir_durably(data_dir)
            .map_err(ClusterError::io(format!("create {}", data_dir.display())))?;
        let path = data_dir.join(FILE_NAME);
        let identity = match fs::read_to_string(&path) {
            Ok(text) => {
                let mut identity = Self::parse(&text).map_err(|what| ClusterError::Identity {
                    what: format!("{}: {what}", path.display()),
                })?;
                identity.incarnation += 1;
                identity
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_orphaned_log(data_dir)?;
                Self {
                    cluster: ClusterId(rand::random()),
                    node: NodeId(1),
                    incarnation: 1,
                    shards,
                }
            }
            Err(error) => return Err(ClusterError::io(format!("read {}", path.display()))(error)),
        };
        identity.store(data_dir, &path)?;
        Ok(identity)
    }

    fn store(&self, data_dir: &Path, path: &Path) -> Result<(), ClusterError> {
        let temporary: PathBuf = data_dir.join(format!("{FILE_NAME}.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            // The name must survive a power cut as well as the bytes.
            File::open(data_dir)?.sync_all()
        };
        write().map_err(ClusterError::io(format!("write {}", path.display())))
    }

    fn to_text(&self) -> String {
        format!(
            "format {FORMAT}\ncluster {}\nnode {}\nincarnation {}\nshards {}\n",
            self.cluster, self.node, self.incarnation, self.shards
        )
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The format comes first and is read alone: nothing else is known of a newer one.
        let format: u32 = number(text, "format")?;
        if format > FORMAT {
            return Err(format!(
                "the data directory has format {format}, this build knows up to {FORMAT}: use a newer build"
            ));
        }
        let identity = Self {
            cluster: ClusterId(parse_hex(field(text, "cluster")?)?),
            node: NodeId(number(text, "node")?),
            incarnation: number(text, "incarnation")?,
            shards: number(text, "shards")?,
        };
        if identity.shards == 0 || identity.shards > SHARDS_MAX {
            return Err(format!(
                "shards {} is not in 1 to {SHARDS_MAX}",
                identity.shards
            ));
        }
        Ok(identity)
    }
}

/// A log without an identity was left by a lost file: starting over on it would mix two nodes.
fn refuse_orphaned_log(data_dir: &Path) -> Result<(), ClusterError> {
    let log = data_dir.join(crate::config::LOG_DIR);
    let holds_something = match fs::read_dir(&log) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(ClusterError::io(format!("read {}", log.display()))(error)),
    };
    if holds_something {
        return Err(ClusterError::Identity {
            what: format!(
                "{} holds a log but {FILE_NAME} is missing: restore that file or use an empty directory",
                data_dir.display()
            ),
        });
    }
    Ok(())
}

fn field<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key))
        .map(|(_, value)| value)
        .ok_or_else(|| format!("{key} is missing"))
}

fn number<T: std::str::FromStr>(text: &str, key: &str) -> Result<T, String> {
    let value = field(text, key)?;
    value
        .parse()
        .map_err(|_| format!("{key} {value:?} is not a number"))
}

fn parse_hex(text: &str) -> Result<[u8; 16], String> {
    let complaint = || format!("cluster {text:?} is not 32 hexadecimal digits");
    if text.len() != 32 || !text.is_ascii() {
        return Err(complaint());
    }
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).map_err(|_| complaint())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_kept_and_every_start_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::start(dir.path(), 4).unwrap();
        // A later setting of the shard count changes nothing: names are already spread.
        let second = Identity::start(dir.path(), 16).unwrap();
        assert_eq!((first.incarnation, second.incarnation), (1, 2));
        assert_eq!((second.cluster, second.node), (first.cluster, first.node));
        assert_eq!(second.shards, 4);
    }

    #[test]
    fn a_newer_data_directory_is_refused_with_both_versions_named() {
        let dir = tempfile::tempdir().unwrap();
        Identity::start(dir.path(), 4).unwrap();
        let path = dir.path().join(FILE_NAME);
        let newer = fs::read_to_string(&path)
            .unwrap()
            .replace("format 1", "format 9");
        fs::write(&path, newer).unwrap();
        let error = Identity::start(dir.path(), 4).unwrap_err().to_string();
        assert!(
            error.contains("format 9") && error.contains("up to 1"),
            "{error}"
        );
    }

    #[test]
    fn a_log_without_its_identity_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(crate::config::LOG_DIR).join("0001.data")).unwrap();
        let error = Identity::start(dir.path(), 4).unwrap_err().to_string();
        assert!(error.contains(FILE_NAME), "{error}");
    }

    #[test]
    fn damage_names_the_field() {
        for (key, bad) in [
            ("node", "node x"),
            ("cluster", "cluster zz"),
            ("shards", "shards 0"),
        ] {
            let text = "format 1\ncluster 00112233445566778899aabbccddeeff\nnode 1\nincarnation 3\nshards 4\n";
            let damaged: String = text
                .lines()
                .map(|line| if line.starts_with(key) { bad } else { line })
                .map(|line| format!("{line}\n"))
                .collect();
            let complaint = Identity::parse(&damaged).unwrap_err();
            assert!(complaint.contains(key), "{complaint}");
        }
    }
}
