//! Who this node is: ids, start counter and its standing, kept in `node.identity` of the data directory.
//!
//! The file is a few lines of `key value`, replaced as a whole and synced, with the directory, before
//! anything is done in the node's name. The start counter tells what this life of the node does from
//! what an earlier one did, so a start that cannot be counted durably is no start.
//!
//! A node's number is given to the disk, not to the machine: a data directory that was emptied shows
//! another disk id, and comes back as a new node. It has forgotten what it voted and acknowledged, so it
//! must not speak for the old one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::{Decode, Encode};
use flotilla_model::format::FEATURE_LEVEL_FIRST;
use flotilla_model::ids::{DiskId, NodeId};
use flotilla_storage::{Disk, create_dir_durably};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::ClusterError;
use crate::forming::Plan;
use crate::packing;

const FILE_NAME: &str = "node.identity";
/// Raised when the data directory changes so that an older build must not touch it.
const FORMAT: u32 = 3;
/// Without a feature level: builds of the first level read it, and they have a way back to it as long as
/// the cluster is of that level.
const FORMAT_FIRST_LEVEL: u32 = 2;
/// Before nodes could meet: always a cluster of one, and no disk id.
const FORMAT_ALONE: u32 = 1;
/// Most shards a node can be asked for: each is a Raft group with its own tasks.
pub(crate) const SHARDS_MAX: u32 = 1_024;

/// The cluster that a node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
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

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// How often the node was started, this time included.
    pub incarnation: u64,
    /// Fixed when the cluster was formed: names are spread over the shards by it.
    pub shards: u32,
}

/// What a data directory is to clusters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// In none yet.
    Fresh,
    /// Promised to one that is being formed.
    Planned(Plan),
    /// A node of one.
    Member {
        cluster: ClusterId,
        node: NodeId,
        shards: u32,
        /// What it was formed by, until the metadata holds all of it.
        plan: Option<Plan>,
    },
}

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Passport {
    pub disk: DiskId,
    /// How often the node was started, this time included.
    pub incarnation: u64,
    pub standing: Standing,
    /// There is a log in the directory. One that is gone took votes and acknowledged entries along.
    pub has_log: bool,
    /// The highest feature level that its cluster was known to have.
    pub feature_level: u16,
}

impl Passport {
    fn new() -> Self {
        Self {
            disk: DiskId(rand::random()),
            incarnation: 1,
            standing: Standing::Fresh,
            has_log: false,
            feature_level: FEATURE_LEVEL_FIRST,
        }
    }

    /// The node, if it is one.
    pub fn identity(&self) -> Option<Identity> {
        match &self.standing {
            Standing::Member {
                cluster,
                node,
                shards,
                ..
            } => Some(Identity {
                cluster: *cluster,
                node: *node,
                incarnation: self.incarnation,
                shards: *shards,
            }),
            Standing::Fresh | Standing::Planned(_) => None,
        }
    }

    fn to_text(&self) -> io::Result<String> {
        let mut text = match self.feature_level {
            FEATURE_LEVEL_FIRST => format!("format {FORMAT_FIRST_LEVEL}\n"),
            level => format!("format {FORMAT}\nlevel {level}\n"),
        };
        text.push_str(&format!(
            "disk {}\nincarnation {}\nlog {}\n",
            self.disk, self.incarnation, self.has_log
        ));
        let plan = match &self.standing {
            Standing::Fresh => None,
            Standing::Planned(plan) => Some(plan),
            Standing::Member {
                cluster,
                node,
                shards,
                plan,
            } => {
                text.push_str(&format!(
                    "cluster {cluster}\nnode {node}\nshards {shards}\n"
                ));
                plan.as_ref()
            }
        };
        if let Some(plan) = plan {
            let bytes = packing::pack(plan)?;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("plan {digits}\n"));
        }
        Ok(text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The format comes first and is read alone: nothing else is known of a newer one.
        let format: u32 = number(text, "format")?;
        if format > FORMAT {
            return Err(format!(
                "the data directory has format {format}, this build knows up to {FORMAT}: use a newer build"
            ));
        }
        let plan = match optional(text, "plan") {
            Some(digits) => {
                let bytes = parse_hex(digits).ok_or("the plan is not hexadecimal")?;
                Some(packing::unpack::<Plan>("plan", &bytes).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let standing = match (optional(text, "cluster"), plan) {
            (None, None) => Standing::Fresh,
            (None, Some(plan)) => Standing::Planned(plan),
            (Some(cluster), plan) => Standing::Member {
                cluster: ClusterId(parse_id("cluster", cluster)?),
                node: NodeId(number(text, "node")?),
                shards: check_shards(number(text, "shards")?)?,
                plan,
            },
        };
        if format == FORMAT_ALONE {
            if standing == Standing::Fresh {
                return Err("cluster is missing".to_owned());
            }
            return Ok(Self {
                disk: DiskId(rand::random()),
                incarnation: number(text, "incarnation")?,
                standing,
                // Not told by that format; the next start finds out.
                has_log: false,
                feature_level: FEATURE_LEVEL_FIRST,
            });
        }
        Ok(Self {
            disk: DiskId(parse_id("disk", field(text, "disk")?)?),
            incarnation: number(text, "incarnation")?,
            standing,
            has_log: field(text, "log")? == "true",
            feature_level: match format {
                FORMAT_FIRST_LEVEL => FEATURE_LEVEL_FIRST,
                _ => number(text, "level")?,
            },
        })
    }
}

/// Keeps the passport of a data directory: what it says is on disk. Clones are the same one.
#[derive(Clone)]
pub(crate) struct PassportOffice {
    inner: Arc<Office>,
}

struct Office {
    data_dir: PathBuf,
    /// Held while the file is written.
    writing: Mutex<()>,
    passport: watch::Sender<Passport>,
}

impl PassportOffice {
    /// Reads the passport, or makes one in an empty directory, and counts this start.
    pub fn open(data_dir: &Path, disk: &dyn Disk) -> Result<Self, ClusterError> {
        create_dir_durably(data_dir)
            .map_err(ClusterError::io(format!("create {}", data_dir.display())))?;
        let path = data_dir.join(FILE_NAME);
        let holds_log = holds_log(data_dir, disk)?;
        let passport = match fs::read_to_string(&path) {
            Ok(text) => {
                let refuse = |what: String| ClusterError::Identity {
                    what: format!("{}: {what}", path.display()),
                };
                let mut passport = Passport::parse(&text).map_err(refuse)?;
                if passport.has_log && !holds_log {
                    return Err(refuse(
                        "the log of this node is gone, and with it what it promised: empty the whole data \
                         directory to come back as a new node"
                            .to_owned(),
                    ));
                }
                passport.has_log = holds_log;
                passport.incarnation += 1;
                passport
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if holds_log {
                    return Err(orphaned_log(data_dir));
                }
                Passport::new()
            }
            Err(error) => return Err(ClusterError::io(format!("read {}", path.display()))(error)),
        };
        store(data_dir, &passport)?;
        Ok(Self {
            inner: Arc::new(Office {
                data_dir: data_dir.to_owned(),
                writing: Mutex::new(()),
                passport: watch::Sender::new(passport),
            }),
        })
    }

    pub fn passport(&self) -> Passport {
        self.inner.passport.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Passport> {
        self.inner.passport.subscribe()
    }

    /// Changes the passport, on disk first. The change may refuse by giving `None`; then nothing is
    /// written. Answers with what stands now, and whether it was changed.
    pub async fn update(
        &self,
        change: impl FnOnce(&Passport) -> Option<Passport> + Send + 'static,
    ) -> Result<(Passport, bool), ClusterError> {
        let office = self.inner.clone();
        let write = move || {
            let _one_at_a_time = office.writing.lock();
            let present = office.passport.borrow().clone();
            match change(&present) {
                Some(next) if next != present => {
                    store(&office.data_dir, &next)?;
                    office.passport.send_replace(next.clone());
                    Ok((next, true))
                }
                Some(_) => Ok((present, true)),
                None => Ok((present, false)),
            }
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|_| ClusterError::Stopped)?
    }
}

fn store(data_dir: &Path, passport: &Passport) -> Result<(), ClusterError> {
    let path = data_dir.join(FILE_NAME);
    let temporary: PathBuf = data_dir.join(format!("{FILE_NAME}.new"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(passport.to_text()?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        // The name must survive a power cut as well as the bytes.
        File::open(data_dir)?.sync_all()
    };
    write().map_err(ClusterError::io(format!("write {}", path.display())))
}

fn holds_log(data_dir: &Path, disk: &dyn Disk) -> Result<bool, ClusterError> {
    let log = data_dir.join(crate::config::LOG_DIR);
    match disk.list(&log) {
        Ok(files) => Ok(!files.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ClusterError::io(format!("read {}", log.display()))(error)),
    }
}

/// A log without an identity was left by a lost file: starting over on it would mix two nodes.
fn orphaned_log(data_dir: &Path) -> ClusterError {
    ClusterError::Identity {
        what: format!(
            "{} holds a log but {FILE_NAME} is missing: restore that file or use an empty directory",
            data_dir.display()
        ),
    }
}

fn check_shards(shards: u32) -> Result<u32, String> {
    if shards == 0 || shards > SHARDS_MAX {
        return Err(format!("shards {shards} is not in 1 to {SHARDS_MAX}"));
    }
    Ok(shards)
}

fn optional<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key))
        .map(|(_, value)| value)
}

fn field<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    optional(text, key).ok_or_else(|| format!("{key} is missing"))
}

fn number<T: std::str::FromStr>(text: &str, key: &str) -> Result<T, String> {
    let value = field(text, key)?;
    value
        .parse()
        .map_err(|_| format!("{key} {value:?} is not a number"))
}

fn parse_id(key: &str, text: &str) -> Result<[u8; 16], String> {
    parse_hex(text)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{key} {text:?} is not 32 hexadecimal digits"))
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2)
        .map(|place| u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).ok())
        .collect()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
