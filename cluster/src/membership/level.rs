//! When the cluster's feature level is raised: decided here, without a network or a clock.
//!
//! A node that just came back may be of an older build and not have said so yet, and an operator who
//! upgrades one node after another wants the last one to be really back before there is no way back.
//! So all members must be there, in the same lives, for a while. A new cluster need not wait: it begins with
//! what the nodes know that it is formed of, see [`super::bootstrap`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_model::ids::NodeId;
use flotilla_model::metadata::NodeState;
use flotilla_model::query::MetadataView;

/// A node that was started with an older build says so well within this.
const STEADY_MIN: Duration = Duration::from_secs(3);

/// Looks on until nothing speaks against a higher level.
#[derive(Debug, Default)]
pub(crate) struct LevelWatch {
    /// The members, each in its present life.
    crew: BTreeMap<NodeId, u64>,
    since: Option<Instant>,
}

impl LevelWatch {
    /// The level that the cluster is to be raised to. `life` tells the present life of a node that is
    /// heard.
    pub fn next(
        &mut self,
        view: &MetadataView,
        life: impl Fn(NodeId) -> Option<u64>,
        now: Instant,
    ) -> Option<u16> {
        let members = view
            .nodes
            .iter()
            .filter(|node| node.state != NodeState::Removed);
        let known_by_all = members.clone().map(|node| node.feature_level_max).min()?;
        let crew: Option<BTreeMap<NodeId, u64>> = members
            // One that is gone is only believed to know what it said before.
            .filter(|node| node.state != NodeState::Gone)
            .map(|node| Some((node.id, life(node.id)?)))
            .collect();
        let crew = crew.filter(|_| known_by_all > view.cluster.feature_level);
        let Some(crew) = crew else {
            *self = Self::default();
            return None;
        };
        if self.crew != crew {
            self.crew = crew;
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        (now.saturating_duration_since(since) >= STEADY_MIN).then_some(known_by_all)
    }
}

#[cfg(test)]
mod tests {
    use flotilla_model::ids::DiskId;
    use flotilla_model::query::{ClusterRecord, NodeRecord};

    use super::*;

    fn view(level: u16, nodes: &[(NodeState, u16)]) -> MetadataView {
        let nodes = (1..).zip(nodes);
        MetadataView {
            cluster: ClusterRecord {
                shard_count: 4,
                replicas: 3,
                feature_level: level,
                next_node_id: NodeId(9),
                version: 1,
            },
            nodes: nodes
                .map(|(id, (state, feature_level_max))| NodeRecord {
                    id: NodeId(id),
                    disk: DiskId([id as u8; 16]),
                    name: String::new(),
                    address: String::new(),
                    zone: String::new(),
                    feature_level_max: *feature_level_max,
                    state: *state,
                    version: 1,
                })
                .collect(),
            placements: Vec::new(),
        }
    }

    #[test]
    fn the_level_rises_only_after_all_members_have_known_it_for_a_while() {
        use NodeState::{Gone, Removed, Up};
        let begin = Instant::now();
        let later = begin + STEADY_MIN;
        let heard = |_| Some(1);
        let mut watch = LevelWatch::default();
        let mixed = view(1, &[(Up, 2), (Up, 1), (Up, 2)]);
        assert_eq!(watch.next(&mixed, heard, begin), None);
        assert_eq!(watch.next(&mixed, heard, later), None);
        // One that is gone may come back as it was, a removed one may not.
        let gone = view(1, &[(Up, 2), (Gone, 1)]);
        assert_eq!(watch.next(&gone, heard, begin), None);
        assert_eq!(watch.next(&gone, heard, later), None);
        let ready = view(1, &[(Up, 2), (Removed, 1), (Up, 3)]);
        assert_eq!(watch.next(&ready, heard, begin), None);
        assert_eq!(watch.next(&ready, heard, later), Some(2));
        let raised = view(2, &[(Up, 2), (Removed, 1), (Up, 3)]);
        assert_eq!(watch.next(&raised, heard, later), None);
    }

    #[test]
    fn a_node_that_is_away_or_just_back_holds_the_level() {
        let begin = Instant::now();
        let ready = view(1, &[(NodeState::Up, 2), (NodeState::Up, 2)]);
        let mut watch = LevelWatch::default();
        assert_eq!(watch.next(&ready, |_| Some(1), begin), None);
        let half = begin + STEADY_MIN / 2;
        let is_first = |node| (node == NodeId(1)).then_some(1);
        assert_eq!(watch.next(&ready, is_first, half), None);
        assert_eq!(watch.next(&ready, |_| Some(1), half), None);
        let restarted = |node: NodeId| Some(node.0);
        assert_eq!(watch.next(&ready, restarted, begin + STEADY_MIN), None);
        let end = begin + STEADY_MIN * 2;
        assert_eq!(watch.next(&ready, restarted, end), Some(2));
    }
}
