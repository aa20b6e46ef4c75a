//! The systems under test.

pub mod flotilla;
#[cfg(feature = "peers")]
mod peers;
pub mod raw;

use crate::target::Competitor;
use flotilla::{Flotilla, Protocol};
use raw::{Limit, Raw};
use std::path::Path;
use std::sync::Arc;

/// The one that all others are compared with.
pub const BASE: &str = "flotilla";

/// All that can be run, in the order of reports.
pub fn all(flotilla: &Path) -> Vec<Arc<dyn Competitor>> {
    let kubemq = Flotilla::new("flotilla-kubemq", flotilla, Protocol::KubeMq);
    let mut all: Vec<Arc<dyn Competitor>> = vec![
        Arc::new(Flotilla::new(BASE, flotilla, Protocol::Native)),
        Arc::new(kubemq),
    ];
    #[cfg(feature = "peers")]
    all.extend(peers::all());
    for limit in [Limit::Disk, Limit::Tcp, Limit::Tonic] {
        all.push(Arc::new(Raw::new(limit)));
    }
    all
}
