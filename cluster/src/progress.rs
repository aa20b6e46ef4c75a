//! How far a node's start is, for whoever waits for it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// What a starting node is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartStage {
    /// The start has not begun.
    #[default]
    Idle,
    /// The data directory is being opened.
    Opening,
    /// The node is in no cluster yet: what it waits for.
    Forming(String),
    /// It is a member, and these groups have no leader that it knows.
    Groups(Vec<u32>),
    /// The start has come to its end.
    Started,
}

impl fmt::Display for StartStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("not started yet"),
            Self::Opening => f.write_str("opening the data directory"),
            Self::Forming(what) => f.write_str(what),
            Self::Groups(groups) => write!(f, "waiting for leaders of groups {groups:?}"),
            Self::Started => f.write_str("started"),
        }
    }
}

/// A place where a start leaves word. Clones are the same place.
#[derive(Clone, Debug)]
pub struct StartProgress {
    stage: Arc<watch::Sender<StartStage>>,
}

impl Default for StartProgress {
    fn default() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(StartStage::Idle)),
        }
    }
}

impl StartProgress {
    /// What the node is at now.
    pub fn stage(&self) -> StartStage {
        self.stage.borrow().clone()
    }

    /// The stages from now on.
    pub fn watch(&self) -> watch::Receiver<StartStage> {
        self.stage.subscribe()
    }

    pub(crate) fn set(&self, stage: StartStage) {
        self.stage.send_if_modified(|present| {
            let news = *present != stage;
            if news {
                *present = stage;
            }
            news
        });
    }
}
