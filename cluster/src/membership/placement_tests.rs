//! Promises of placement, on random clusters.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_model::ids::NodeId;
use proptest::prelude::*;

use super::*;

fn holders(zones: &[u8]) -> Vec<Holder> {
    zones
        .iter()
        .enumerate()
        .map(|(place, zone)| Holder {
            spot: Spot {
                node: NodeId(place as u64 + 1),
                zone: format!("zone-{zone}"),
            },
            is_up: true,
            is_leaving: false,
            is_draining: false,
        })
        .collect()
}

fn counts(placed: &[Vec<NodeId>]) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for node in placed.iter().flatten() {
        *counts.entry(*node).or_default() += 1;
    }
    counts
}

/// Follows the decisions, each step carried out at once, and checks every one of them.
fn settle(holders: &[Holder], mut placed: Vec<Vec<NodeId>>, replicas: u32) -> Vec<Vec<NodeId>> {
    let up = |nodes: &[NodeId]| {
        let is_up = |node: &NodeId| {
            holders
                .iter()
                .any(|holder| holder.spot.node == *node && holder.is_up)
        };
        nodes.iter().filter(|node| is_up(node)).count()
    };
    for _ in 0..2_000 {
        let shards: Vec<Placed> = placed
            .iter()
            .map(|replicas| Placed {
                replicas: replicas.clone(),
                is_moving: false,
            })
            .collect();
        let changes = next(holders, &shards, replicas);
        if changes.is_empty() {
            return placed;
        }
        let mut moves: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (shard, after) in changes {
            let before = &placed[shard];
            let (old, new): (BTreeSet<NodeId>, BTreeSet<NodeId>) = (
                before.iter().copied().collect(),
                after.iter().copied().collect(),
            );
            assert_eq!(new.len(), after.len(), "a node twice: {after:?}");
            assert!(!after.is_empty());
            let (gone, added) = (old.difference(&new), new.difference(&old));
            assert!(
                gone.clone().count() <= 1 && added.clone().count() <= 1,
                "more than one replica at once: {before:?} to {after:?}"
            );
            for node in gone.chain(added) {
                *moves.entry(*node).or_default() += 1;
            }
            if old != new {
                assert!(2 * up(before) > before.len(), "a change that cannot end");
                assert!(2 * up(&after) > after.len(), "a majority was given up");
            }
            placed[shard] = after;
        }
        for holder in holders.iter().filter(|holder| holder.is_up) {
            let count = moves.get(&holder.spot.node).copied().unwrap_or(0);
            assert!(count <= MOVES_PER_NODE_MAX, "{count} moves at one node");
        }
    }
    panic!("placement does not come to rest: {placed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_first_placement_uses_zones_then_nodes_then_leaders_evenly(
        zones in prop::collection::vec(0u8..4, 1..9),
        shards in 1u32..40,
        replicas in 1u32..6,
    ) {
        let holders = holders(&zones);
        let spots: Vec<Spot> = holders.iter().map(|holder| holder.spot.clone()).collect();
        let placed = initial(&spots, shards, replicas);
        prop_assert_eq!(placed.len(), shards as usize);
        let zone_of = |node: &NodeId| zones[node.0 as usize - 1];
        let zone_count = zones.iter().collect::<BTreeSet<_>>().len();
        let count = (replicas as usize).min(zones.len());
        for replicas in &placed {
            let nodes: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(nodes.len(), count);
            let used: BTreeSet<_> = replicas.iter().map(zone_of).collect();
            prop_assert_eq!(used.len(), count.min(zone_count));
        }
        // Nothing is left to improve.
        prop_assert_eq!(settle(&holders, placed.clone(), replicas), placed);
    }

    #[test]
    fn new_nodes_get_their_part(
        old in 1usize..6,
        new in 1usize..4,
        shards in 1u32..33,
        replicas in 1u32..4,
    ) {
        let all = holders(&vec![0; old + new]);
        let spots: Vec<Spot> = all[..old].iter().map(|holder| holder.spot.clone()).collect();
        let placed = settle(&all, initial(&spots, shards, replicas), replicas);
        let counts = counts(&placed);
        let of = |holder: &Holder| counts.get(&holder.spot.node).copied().unwrap_or(0);
        let most = all.iter().map(of).max().unwrap();
        let least = all.iter().map(of).min().unwrap();
        prop_assert!(most - least <= 1, "uneven: {:?}", counts);
        for replicas_of in &placed {
            prop_assert_eq!(replicas_of.len(), (replicas as usize).min(old + new));
        }
    }

    #[test]
    fn a_leaving_node_ends_up_with_nothing_if_there_is_room(
        zones in prop::collection::vec(0u8..3, 4..8),
        shards in 1u32..33,
        is_up in any::<bool>(),
        replicas in 2u32..4,
    ) {
        let mut holders = holders(&zones);
        let spots: Vec<Spot> = holders.iter().map(|holder| holder.spot.clone()).collect();
        let before = initial(&spots, shards, replicas);
        holders[1].is_leaving = true;
        holders[1].is_up = is_up;
        // Two replicas, one of them lost: nothing can be agreed on.
        prop_assume!(is_up || replicas > 2);
        let after = settle(&holders, before, replicas);
        prop_assert!(!counts(&after).contains_key(&NodeId(2)));
        prop_assert!(after.iter().all(|nodes| nodes.len() == replicas as usize));
    }

    #[test]
    fn any_state_comes_to_rest_safely(
        zones in prop::collection::vec((0u8..3, any::<bool>(), prop::bool::weighted(0.3)), 1..7),
        placed in prop::collection::vec(prop::collection::btree_set(1u64..8, 1..5), 1..12),
        replicas in 1u32..5,
    ) {
        let mut holders = holders(&zones.iter().map(|(zone, ..)| *zone).collect::<Vec<_>>());
        for (holder, (_, is_up, is_leaving)) in holders.iter_mut().zip(&zones) {
            holder.is_up = *is_up;
            holder.is_leaving = *is_leaving;
        }
        let placed = placed
            .into_iter()
            .map(|nodes| nodes.into_iter().map(NodeId).collect())
            .collect();
        settle(&holders, placed, replicas);
    }
}

#[test]
fn a_node_that_is_gone_keeps_its_replicas_while_nobody_can_take_them() {
    let mut holders = holders(&[0, 0, 0]);
    let spots: Vec<Spot> = holders.iter().map(|holder| holder.spot.clone()).collect();
    let placed = initial(&spots, 4, 3);
    holders[2].is_up = false;
    let shards: Vec<Placed> = placed
        .iter()
        .map(|replicas| Placed {
            replicas: replicas.clone(),
            is_moving: false,
        })
        .collect();
    // It is only away.
    assert_eq!(next(&holders, &shards, 3), []);
}

#[test]
fn what_is_on_the_move_is_left_alone() {
    let holders = holders(&[0, 0, 0]);
    let shards = vec![
        Placed {
            replicas: vec![NodeId(1)],
            is_moving: true,
        };
        3
    ];
    assert_eq!(next(&holders, &shards, 3), []);
}
