//! Which nodes vote on metadata: decided here, without a network or a clock.

use std::collections::BTreeSet;

use flotilla_model::ids::NodeId;

use super::placement::Holder;

/// Nodes that vote on metadata: more would only make every write of it wait for more disks.
const METADATA_VOTERS_MAX: usize = 5;

/// How many of so many nodes vote on metadata: an odd number, since an even one survives no more.
pub(crate) fn metadata_voters(nodes: usize) -> usize {
    let count = nodes.min(METADATA_VOTERS_MAX);
    count - usize::from(count > 0 && count.is_multiple_of(2))
}

/// Who is to vote on metadata, changing as little as is needed.
pub(crate) fn metadata_members(holders: &[Holder], voters: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let votes = |holder: &&Holder| voters.contains(&holder.spot.node);
    let mut wanted: Vec<&Holder> = holders
        .iter()
        .filter(votes)
        .filter(|holder| !holder.is_leaving)
        .collect();
    let count = metadata_voters(holders.iter().filter(|holder| !holder.is_draining).count());
    // Who answers stays, if some are too many.
    wanted.sort_by_key(|holder| (!holder.is_up, holder.spot.node));
    wanted.truncate(count.max(1));
    let kept = wanted.len();
    while wanted.len() < count {
        let zone_crowd = |zone: &str| {
            let same = wanted.iter().filter(|holder| holder.spot.zone == zone);
            same.count()
        };
        let next = holders
            .iter()
            .filter(|holder| holder.takes() && !votes(holder))
            .filter(|holder| !wanted.contains(holder))
            .min_by_key(|holder| (zone_crowd(&holder.spot.zone), holder.spot.node));
        match next {
            Some(next) => wanted.push(next),
            None => break,
        }
    }
    // Nobody can take the place of these yet.
    let gone = holders.iter().filter(votes);
    let gone = gone.filter(|holder| holder.is_leaving && !holder.is_draining);
    let room = count.saturating_sub(wanted.len());
    wanted.extend(gone.take(room));
    if wanted.len() > kept && wanted.len().is_multiple_of(2) {
        wanted.pop();
    }
    if wanted.is_empty() {
        return voters.clone();
    }
    wanted.iter().map(|holder| holder.spot.node).collect()
}

#[cfg(test)]
mod tests {
    use super::super::placement::Spot;
    use super::*;

    fn holders(count: u64) -> Vec<Holder> {
        (1..=count)
            .map(|node| Holder {
                spot: Spot {
                    node: NodeId(node),
                    zone: String::new(),
                },
                is_up: true,
                is_leaving: false,
                is_draining: false,
            })
            .collect()
    }

    #[test]
    fn metadata_is_voted_on_by_an_odd_number() {
        let votes: Vec<usize> = (0..8).map(metadata_voters).collect();
        assert_eq!(votes, [0, 1, 1, 3, 3, 5, 5, 5]);
    }

    #[test]
    fn metadata_gets_voters_as_nodes_come_and_go() {
        let mut nodes = holders(4);
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        assert_eq!(metadata_members(&nodes[..1], &ids(&[1])), ids(&[1]));
        assert_eq!(metadata_members(&nodes[..2], &ids(&[1])), ids(&[1]));
        assert_eq!(metadata_members(&nodes[..3], &ids(&[1])), ids(&[1, 2, 3]));
        assert_eq!(metadata_members(&nodes, &ids(&[1, 2, 3])), ids(&[1, 2, 3]));
        nodes[1].is_leaving = true;
        // It may come back, but there is one that can stand in.
        assert_eq!(metadata_members(&nodes, &ids(&[1, 2, 3])), ids(&[1, 3, 4]));
        assert_eq!(
            metadata_members(&nodes[..3], &ids(&[1, 2, 3])),
            ids(&[1, 2, 3])
        );
        nodes[1].is_draining = true;
        assert!(!metadata_members(&nodes[..3], &ids(&[1, 2, 3])).contains(&NodeId(2)));
    }
}
