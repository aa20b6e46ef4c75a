//! Files and directories with a volatile and a durable side, and the power cut.

use super::content::Content;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// The number of a file or directory, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// The top directory.
pub const ROOT: Inode = Inode(1);

/// What the disk does when asked to make something durable.
#[derive(Clone, Copy, Debug)]
pub enum SyncBehaviour {
    Honest,
    /// Says yes and does nothing for files whose names the function picks: what a server without
    /// those syncs looks like.
    Ignores(fn(&str) -> bool),
    /// Says yes to everything, directories too, and does nothing.
    IgnoresAll,
    /// Fails every file sync, and keeps what was written volatile: what a dying disk does.
    Fails,
}

/// What a power cut leaves of the changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    /// A random part: single pages of files, and whole directories either before or after.
    Torn,
}

/// Why an operation was refused; the mount turns it into an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    #[error("no such file or directory")]
    NotFound,
    #[error("the name is taken")]
    Exists,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    #[error("directory is not empty")]
    NotEmpty,
    #[error("the power is off")]
    PowerOff,
    #[error("the sync failed")]
    SyncFailed,
}

type Names = BTreeMap<OsString, Inode>;

#[derive(Clone)]
enum Node {
    File {
        volatile: Content,
        durable: Content,
        dirty: BTreeSet<u64>,
    },
    Directory {
        volatile: Names,
        durable: Names,
    },
}

/// A disk in memory. Nodes are removed only by [`Disk::after_power_cut`]: a name that is gone may
/// still be durable, and a file without a name may still be open.
pub struct Disk {
    nodes: BTreeMap<Inode, Node>,
    next_inode: u64,
    power: bool,
    syncs: SyncBehaviour,
    sync_delay: Duration,
    sync_count: u64,
}

impl Disk {
    pub fn new(syncs: SyncBehaviour) -> Self {
        let root = Node::Directory {
            volatile: Names::new(),
            durable: Names::new(),
        };
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_inode: ROOT.0 + 1,
            power: true,
            syncs,
            sync_delay: Duration::ZERO,
            sync_count: 0,
        }
    }

    /// From now on every operation fails: nothing more can be acknowledged as durable.
    pub fn cut_power(&mut self) {
        self.power = false;
    }

    pub fn set_syncs(&mut self, syncs: SyncBehaviour) {
        self.syncs = syncs;
    }

    /// Makes every sync take at least this long.
    pub fn set_sync_delay(&mut self, delay: Duration) {
        self.sync_delay = delay;
    }

    pub fn sync_delay(&self) -> Duration {
        self.sync_delay
    }

    /// Syncs of files asked for so far, also ignored ones.
    pub fn sync_count(&self) -> u64 {
        self.sync_count
    }

    /// The disk as it is found when power comes back.
    pub fn after_power_cut(&self, survival: Survival, random: &mut impl Rng) -> Disk {
        // Nearly all kept and nearly all lost find other mistakes than half of each.
        let chance = [0.1, 0.5, 0.9][random.random_range(0..3)];
        let mut kept = || survival == Survival::Torn && random.random_bool(chance);
        let mut nodes: BTreeMap<Inode, Node> = BTreeMap::new();
        for (inode, node) in &self.nodes {
            let survivor = match node {
                Node::Directory { volatile, durable } => {
                    let names = if kept() { volatile } else { durable };
                    Node::Directory {
                        volatile: names.clone(),
                        durable: names.clone(),
                    }
                }
                Node::File {
                    volatile,
                    durable,
                    dirty,
                } => {
                    let mut content = durable.clone();
                    // The length first: it may survive without the bytes, which then are zeros.
                    if kept() {
                        content.copy_len(volatile);
                    }
                    for page in dirty {
                        if kept() && page * super::PAGE_BYTES < content.len() {
                            content.copy_page(volatile, *page);
                        }
                    }
                    let len = content.len();
                    content.set_len(len);
                    Node::File {
                        volatile: content.clone(),
                        durable: content,
                        dirty: BTreeSet::new(),
                    }
                }
            };
            nodes.insert(*inode, survivor);
        }
        let mut disk = Disk {
            nodes,
            power: true,
            sync_delay: Duration::ZERO,
            sync_count: 0,
            ..*self
        };
        disk.drop_unreachable();
        disk
    }

    fn drop_unreachable(&mut self) {
        let mut reachable = BTreeMap::new();
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            if let Some(node) = self.nodes.remove(&inode) {
                if let Node::Directory { volatile, .. } = &node {
                    waiting.extend(volatile.values().copied());
                }
                reachable.insert(inode, node);
            }
        }
        self.nodes = reachable;
    }

    pub fn used_bytes(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| match node {
                Node::File { volatile, .. } => volatile.allocated_bytes(),
                Node::Directory { .. } => 0,
            })
            .sum()
    }

    pub fn lookup(&self, parent: Inode, name: &OsStr) -> Result<Inode, DiskError> {
        self.names(parent)?
            .get(name)
            .copied()
            .ok_or(DiskError::NotFound)
    }

    /// The length of a file, or none for a directory.
    pub fn file_len(&self, inode: Inode) -> Result<Option<u64>, DiskError> {
        match self.node(inode)? {
            Node::File { volatile, .. } => Ok(Some(volatile.len())),
            Node::Directory { .. } => Ok(None),
        }
    }

    pub fn list(&self, directory: Inode) -> Result<Vec<(OsString, Inode, bool)>, DiskError> {
        let names = self.names(directory)?.iter();
        Ok(names
            .map(|(name, inode)| {
                let is_directory = matches!(self.nodes.get(inode), Some(Node::Directory { .. }));
                (name.clone(), *inode, is_directory)
            })
            .collect())
    }

    pub fn create(&mut self, parent: Inode, name: &OsStr) -> Result<Inode, DiskError> {
        let file = Node::File {
            volatile: Content::default(),
            durable: Content::default(),
            dirty: BTreeSet::new(),
        };
        self.add(parent, name, file)
    }

    pub fn make_directory(&mut self, parent: Inode, name: &OsStr) -> Result<Inode, DiskError> {
        self.add(
            parent,
            name,
            Node::Directory {
                volatile: Names::new(),
                durable: Names::new(),
            },
        )
    }

    fn add(&mut self, parent: Inode, name: &OsStr, node: Node) -> Result<Inode, DiskError> {
        let inode = Inode(self.next_inode);
        let names = self.names_mut(parent)?;
        if names.contains_key(name) {
            return Err(DiskError::Exists);
        }
        names.insert(name.to_owned(), inode);
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        Ok(inode)
    }

    pub fn remove_file(&mut self, parent: Inode, name: &OsStr) -> Result<(), DiskError> {
        let inode = self.lookup(parent, name)?;
        if self.file_len(inode)?.is_none() {
            return Err(DiskError::IsADirectory);
        }
        self.names_mut(parent)?.remove(name);
        Ok(())
    }

    pub fn remove_directory(&mut self, parent: Inode, name: &OsStr) -> Result<(), DiskError> {
        let inode = self.lookup(parent, name)?;
        if !self.names(inode)?.is_empty() {
            return Err(DiskError::NotEmpty);
        }
        self.names_mut(parent)?.remove(name);
        Ok(())
    }

    pub fn rename(
        &mut self,
        from: (Inode, &OsStr),
        to: (Inode, &OsStr),
        replace: bool,
    ) -> Result<(), DiskError> {
        let inode = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(DiskError::Exists),
            Ok(target) if target == inode => return Ok(()),
            Ok(target) => match (self.file_len(inode)?, self.file_len(target)?) {
                (Some(_), None) => return Err(DiskError::IsADirectory),
                (None, Some(_)) => return Err(DiskError::NotADirectory),
                (None, None) if !self.names(target)?.is_empty() => return Err(DiskError::NotEmpty),
                _ => {}
            },
            Err(DiskError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.names_mut(from.0)?.remove(from.1);
        self.names_mut(to.0)?.insert(to.1.to_owned(), inode);
        Ok(())
    }

    pub fn read(&self, inode: Inode, offset: u64, len: u64) -> Result<Vec<u8>, DiskError> {
        match self.node(inode)? {
            Node::File { volatile, .. } => Ok(volatile.read(offset, len)),
            Node::Directory { .. } => Err(DiskError::IsADirectory),
        }
    }

    pub fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let (volatile, dirty) = self.file_mut(inode)?;
        dirty.extend(volatile.write(offset, data));
        Ok(())
    }

    pub fn set_len(&mut self, inode: Inode, len: u64) -> Result<(), DiskError> {
        let (volatile, dirty) = self.file_mut(inode)?;
        dirty.extend(volatile.set_len(len));
        Ok(())
    }

    pub fn zero(&mut self, inode: Inode, offset: u64, len: u64) -> Result<(), DiskError> {
        let (volatile, dirty) = self.file_mut(inode)?;
        dirty.extend(volatile.zero(offset, len));
        Ok(())
    }

    /// Makes a file's bytes and length durable, not its name.
    pub fn sync_file(&mut self, inode: Inode) -> Result<(), DiskError> {
        let syncs = match self.syncs {
            SyncBehaviour::Ignores(picks) if !self.has_name(inode, picks) => SyncBehaviour::Honest,
            syncs => syncs,
        };
        let Node::File {
            volatile,
            durable,
            dirty,
        } = self.node_mut(inode)?
        else {
            return Err(DiskError::IsADirectory);
        };
        match syncs {
            SyncBehaviour::Honest => {
                durable.copy_len(volatile);
                for page in std::mem::take(dirty) {
                    durable.copy_page(volatile, page);
                }
            }
            SyncBehaviour::Ignores(_) | SyncBehaviour::IgnoresAll => {}
            SyncBehaviour::Fails => return Err(DiskError::SyncFailed),
        }
        self.sync_count += 1;
        Ok(())
    }

    fn has_name(&self, inode: Inode, picks: fn(&str) -> bool) -> bool {
        self.nodes.values().any(|node| match node {
            Node::Directory { volatile, .. } => volatile
                .iter()
                .any(|(name, named)| *named == inode && picks(&name.to_string_lossy())),
            Node::File { .. } => false,
        })
    }

    /// Makes the names in a directory durable, not the files themselves.
    pub fn sync_directory(&mut self, inode: Inode) -> Result<(), DiskError> {
        let ignored = matches!(self.syncs, SyncBehaviour::IgnoresAll);
        let Node::Directory { volatile, durable } = self.node_mut(inode)? else {
            return Err(DiskError::NotADirectory);
        };
        if !ignored {
            durable.clone_from(volatile);
        }
        Ok(())
    }

    fn node(&self, inode: Inode) -> Result<&Node, DiskError> {
        if !self.power {
            return Err(DiskError::PowerOff);
        }
        self.nodes.get(&inode).ok_or(DiskError::NotFound)
    }

    fn node_mut(&mut self, inode: Inode) -> Result<&mut Node, DiskError> {
        if !self.power {
            return Err(DiskError::PowerOff);
        }
        self.nodes.get_mut(&inode).ok_or(DiskError::NotFound)
    }

    fn names(&self, inode: Inode) -> Result<&Names, DiskError> {
        match self.node(inode)? {
            Node::Directory { volatile, .. } => Ok(volatile),
            Node::File { .. } => Err(DiskError::NotADirectory),
        }
    }

    fn names_mut(&mut self, inode: Inode) -> Result<&mut Names, DiskError> {
        match self.node_mut(inode)? {
            Node::Directory { volatile, .. } => Ok(volatile),
            Node::File { .. } => Err(DiskError::NotADirectory),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<(&mut Content, &mut BTreeSet<u64>), DiskError> {
        match self.node_mut(inode)? {
            Node::File {
                volatile, dirty, ..
            } => Ok((volatile, dirty)),
            Node::Directory { .. } => Err(DiskError::IsADirectory),
        }
    }
}
