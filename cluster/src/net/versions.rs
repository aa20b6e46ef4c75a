//! Which versions of the link protocol a build speaks, and which one it speaks to whom.
//!
//! Every request says in which version it asks, and the newest that its node speaks. To a peer that was not
//! heard of yet, a node speaks a version that the release before understands; from then on the newest that
//! both know. Nodes greet each other all the time, so that this takes moments, and so that a node that goes
//! back to the release before is soon understood again.
//!
//! ```text
//!   release   understands   greets in      a version is added where nodes of the release before must not
//!      1          1             1          understand by chance; it is the greeting one release later, and
//!      2        1 to 2          1          the one before it is given up after that
//!      3        1 to 2          2
//!      4          2             2
//! ```

use tonic::Status;

/// What this build speaks.
pub(crate) const LINK_VERSIONS: LinkVersions = LinkVersions {
    oldest: 1,
    greeting: 1,
    newest: 1,
};

/// The versions from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkVersions {
    pub oldest: u32,
    /// For those of whom nothing is known.
    pub greeting: u32,
    pub newest: u32,
}

impl Default for LinkVersions {
    fn default() -> Self {
        LINK_VERSIONS
    }
}

impl LinkVersions {
    /// What is spoken to a peer of which this is the newest version; `None`: it was not heard of yet.
    pub fn spoken(self, newest: Option<u32>) -> u32 {
        newest.map_or(self.greeting, |newest| {
            newest.clamp(self.oldest, self.newest)
        })
    }

    /// Refuses a question in a version that is not spoken here.
    pub fn check(self, version: u32) -> Result<(), Status> {
        let Self { oldest, newest, .. } = self;
        if (oldest..=newest).contains(&version) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "link protocol version {version} is not spoken here, this node speaks {oldest} to {newest}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u32, greeting: u32, newest: u32) -> LinkVersions {
        LinkVersions {
            oldest,
            greeting,
            newest,
        }
    }

    #[test]
    fn neighbouring_releases_understand_each_other_from_the_first_word() {
        let releases = [
            versions(1, 1, 1),
            versions(1, 1, 2),
            versions(1, 2, 2),
            versions(2, 2, 2),
            versions(2, 2, 3),
        ];
        for pair in releases.windows(2) {
            for (speaker, listener) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                assert!(listener.check(speaker.spoken(None)).is_ok(), "{pair:?}");
                let spoken = speaker.spoken(Some(listener.newest));
                assert_eq!(spoken, pair[0].newest.min(pair[1].newest));
                assert!(listener.check(spoken).is_ok(), "{pair:?}");
            }
        }
    }

    #[test]
    fn nodes_without_a_version_in_common_refuse_each_other_with_the_reason() {
        let (old, new) = (versions(1, 1, 2), versions(3, 3, 4));
        let refused = old.check(new.spoken(Some(old.newest))).unwrap_err();
        assert_eq!(
            refused.message(),
            "link protocol version 3 is not spoken here, this node speaks 1 to 2"
        );
        let refused = new.check(old.spoken(Some(new.newest))).unwrap_err();
        assert_eq!(
            refused.message(),
            "link protocol version 2 is not spoken here, this node speaks 3 to 4"
        );
    }
}
