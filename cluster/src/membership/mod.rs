//! Who belongs to the cluster, and which node holds what.

pub(crate) mod placement;
