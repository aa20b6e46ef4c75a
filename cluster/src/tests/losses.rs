//! What is promised of a replica that has lost the end of its log and cannot know it: its leader leads on,
//! and has it made anew.

use super::damaged_leaders::term;
use super::fleet::Fleet;
use super::mending::{SHARD, fill, fleet, payloads, segments, topic, verify};

/// A node's log as it would be if all from one message on had never reached the disk.
fn forget_from(fleet: &Fleet, place: usize, marker: &str) {
    let mut is_behind = false;
    for path in segments(fleet, place) {
        if is_behind {
            std::fs::remove_file(&path).unwrap();
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(marker.len())
            .position(|part| part == marker.as_bytes());
        if let Some(found) = found {
            let frame = bytes[..found].windows(4).rposition(|part| part == b"FLg1");
            bytes[frame.unwrap()..].fill(0);
            std::fs::write(&path, bytes).unwrap();
            is_behind = true;
        }
    }
    assert!(is_behind, "{marker:?} is not in the log");
    // It knows how far the log was.
    let dir = fleet.berths[place].dir.path();
    std::fs::remove_dir_all(dir.join("index")).unwrap();
}

#[test]
fn a_leader_survives_a_follower_that_lost_what_it_acknowledged() {
    let mut fleet = fleet();
    let places = fleet.settle_lead(SHARD);
    let (leader, victim) = (places[0], places[1]);
    let mut written = fill(fleet.node(leader), 0..60);
    fleet.wait_for("all to be applied", |fleet| {
        fleet.holds(victim, &topic(), 60)
    });
    let before = term(fleet.node(leader));
    fleet.kill(victim);
    forget_from(&fleet, victim, &written[50]);
    fleet.start_these(&[victim]);
    fleet.wait_for("the replica to be made anew", |fleet| {
        fleet.node(victim).cluster.mending().mended > 0
    });
    written.extend(fill(fleet.node(leader), 60..70));
    fleet.wait_for("the later messages", |fleet| {
        fleet.holds(victim, &topic(), 70)
    });
    assert_eq!(term(fleet.node(leader)), before);
    assert!(verify(fleet.node(leader)).is_fine());
    fleet.make_leader(SHARD, victim);
    assert_eq!(
        payloads(fleet.node(victim).topic_contents(&topic())),
        written
    );
}
