//! What clients of different nodes have to do with each other, and what they notice of faults.

use bytes::Bytes;
use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::seed;
use flotilla_tests::workdir::WorkDir;
use flotilla_tests::workload::calls::{Calls, Listener, until_ok};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time in which a wrong extra delivery would show.
const QUIET: Duration = Duration::from_millis(700);
/// What one of several listeners is given to hear the next signal.
const TURN: Duration = Duration::from_millis(100);
/// How long interest may take to be right again when links are back.
const REPAIRED_WITHIN: Duration = Duration::from_secs(10);
const EVENTS: usize = 30;
/// After this the leader gives what a lost node's consumers held to others.
const RELEASED_AFTER: Duration = Duration::from_secs(5);
const RELEASED_LATE_MAX: Duration = Duration::from_secs(3);
/// Sooner than that by a node that ends in order, which takes about a second.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(3);
/// What a timer may be late, whatever happens to clocks.
const TIMER_ERROR_MAX: Duration = Duration::from_secs(1);
/// What a leader's death may cost.
const FAILOVER_MAX: Duration = Duration::from_secs(3);
/// Shorter than elections are.
const BRIEF_MS: i32 = 200;
/// Clients listen for 0.7 s then; the machine may be busy.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_500);
const DAY_MS: i64 = 86_400_000;
/// What the bodies begin with that tell when listeners are known.
const PROBE: &str = "probe";

/// For anything that should come at once; a loaded machine may be slow.
fn soon() -> Duration {
    seed::stretched(Duration::from_secs(10))
}

fn form(name: &str) -> (WorkDir, Fleet) {
    let work = WorkDir::new(name);
    let fleet = Fleet::form(&work, &Layout::of(3));
    (work, fleet)
}

/// A subscription does not wait for long until other nodes know of it.
fn wait_until_known(calls: &Calls, node: SocketAddr, listener: &Listener) {
    let probe = format!("{PROBE} {node}");
    until_ok("a listener is known", soon(), || {
        calls.send_event(node, "signals", &probe, false)?;
        while let Some(event) = listener.next(TURN) {
            if event.body == probe.as_bytes() {
                return Ok(());
            }
        }
        Err("it has heard nothing".to_owned())
    });
}

/// How often each signal came to any of these listeners: waits for all of them, and for what should not come.
fn heard(listeners: &[Listener]) -> BTreeMap<Bytes, usize> {
    let mut bodies = BTreeMap::new();
    let mut count = |listener: &Listener, wait: Duration| {
        while let Some(event) = listener.next(wait) {
            if !event.body.starts_with(PROBE.as_bytes()) {
                *bodies.entry(event.body).or_default() += 1;
            }
        }
        bodies.len()
    };
    let deadline = Instant::now() + soon();
    while listeners
        .iter()
        .all(|listener| count(listener, TURN) < EVENTS)
    {
        if Instant::now() > deadline {
            break;
        }
    }
    for listener in listeners {
        count(listener, QUIET);
    }
    bodies
}

fn expect_each_once(bodies: &BTreeMap<Bytes, usize>) {
    assert_eq!(bodies.len(), EVENTS, "{bodies:?}");
    assert!(bodies.values().all(|count| *count == 1), "{bodies:?}");
}

#[test]
fn signals_reach_listeners_on_all_nodes_and_one_member_of_a_group() {
    let (_work, mut fleet) = form("signals");
    let calls = Calls::default();
    let nodes = fleet.kubemq();
    let listen = |group: &str| {
        let listeners = nodes.iter();
        listeners
            .map(|node| {
                calls
                    .listen(*node, "signals", group, false)
                    .expect("a listener")
            })
            .collect::<Vec<_>>()
    };
    let (plain, members) = (listen(""), listen("group"));
    for node in &nodes {
        for listener in &plain {
            wait_until_known(&calls, *node, listener);
        }
    }
    for number in 0..EVENTS {
        let node = nodes[number % nodes.len()];
        let sent = calls.send_event(node, "signals", &number.to_string(), false);
        sent.expect("a signal is taken");
    }
    for listener in &plain {
        expect_each_once(&heard(std::slice::from_ref(listener)));
    }
    expect_each_once(&heard(&members));

    // A listener that came while its node was cut off is found when the link is back.
    fleet.network.isolate_from_nodes(2);
    let late = calls.listen(nodes[1], "late", "", false);
    let late = late.expect("nodes that are not reached are not waited for");
    std::thread::sleep(RELEASED_AFTER);
    fleet.network.heal();
    let deadline = Instant::now() + REPAIRED_WITHIN;
    while late.next(Duration::from_millis(100)).is_none() {
        assert!(Instant::now() < deadline, "node 2's listener is not known");
        // Not taken while nobody listens, as far as node 1 knows.
        let _ = calls.send_event(nodes[0], "late", "x", false);
    }
    fleet.terminate();
}

#[test]
fn a_subscription_goes_on_at_the_next_leader_and_its_client_notices_nothing() {
    let (_work, mut fleet) = form("resume");
    let calls = Calls::default();
    let nodes = fleet.kubemq();
    calls
        .send_event(nodes[0], "resumed", "0", true)
        .expect("a stored event");
    for round in 0..2 {
        let leader = fleet.leader_of("/api/v1/topics/resumed");
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        let listener = calls
            .listen(fleet.node(others[0]).kubemq(), "resumed", "", true)
            .expect("a subscription");
        let first = listener.next(soon()).expect("the first event");
        assert_eq!(first.sequence, 1);
        let mut seen = 1;
        let publisher = fleet.node(others[1]).kubemq();
        let mut publish_and_see = |what: &str| {
            until_ok(what, soon(), || {
                calls.send_event(publisher, "resumed", what, true)
            });
            loop {
                let event = listener.next(soon());
                let event = event.unwrap_or_else(|| panic!("round {round}: {what} did not come"));
                seen += 1;
                assert_eq!(event.sequence, seen, "round {round}: a gap or a repeat");
                if event.body == what.as_bytes() {
                    return;
                }
            }
        };
        publish_and_see(&format!("{round} before"));
        fleet.node_mut(leader).kill();
        publish_and_see(&format!("{round} after"));
        fleet.restart(leader);
        publish_and_see(&format!("{round} again"));
    }
    fleet.terminate();
}

#[test]
fn a_waiting_receiver_is_served_by_the_next_leader() {
    let (_work, mut fleet) = form("waiting");
    let calls = Calls::default();
    calls
        .send_to_queue(fleet.kubemq()[0], "waited", "0", 0)
        .expect("a message");
    let received = calls.receive(fleet.kubemq()[1], "waited", 5);
    assert_eq!(received.map(|messages| messages.len()), Ok(1));
    // The leader is asked to end, then killed.
    for gracefully in [true, false] {
        let leader = fleet.leader_of("/api/v1/queues/waited");
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        let (receiver, sender) = (
            fleet.node(others[0]).kubemq(),
            fleet.node(others[1]).kubemq(),
        );
        let waiting = std::thread::spawn(move || {
            let began = Instant::now();
            let calls = Calls::default();
            let received = calls.receive(receiver, "waited", 15);
            (received, began.elapsed())
        });
        std::thread::sleep(QUIET);
        if gracefully {
            let ended = fleet.node_mut(leader).terminate();
            assert!(ended.expect("a graceful end").success());
        } else {
            fleet.node_mut(leader).kill();
        }
        until_ok("a message is taken", soon(), || {
            calls.send_to_queue(sender, "waited", "x", 0)
        });
        let (received, after) = waiting.join().expect("no panic");
        let count = received.as_ref().map(Vec::len);
        assert_eq!(
            count,
            Ok(1),
            "gracefully: {gracefully}: after {after:?}: {received:?}"
        );
        assert!(after < soon(), "gracefully: {gracefully}: {after:?}");
        fleet.restart(leader);
    }
    fleet.terminate();
}

#[test]
fn a_get_whose_client_has_given_up_by_the_next_leader_holds_nothing() {
    let (_work, mut fleet) = form("brief");
    let calls = Calls::default();
    calls
        .send_to_queue(fleet.kubemq()[0], "brief", "x", 0)
        .expect("a message");
    let leader = fleet.leader_of("/api/v1/queues/brief");
    let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
    fleet.node_mut(leader).kill();
    let began = Instant::now();
    let brief = calls.hold(fleet.node(others[0]).kubemq(), "brief", BRIEF_MS);
    let after = began.elapsed();
    assert!(after < seed::stretched(ANSWERED_WITHIN), "{after:?}");
    if let Ok(holder) = &brief {
        assert!(holder.messages.is_empty(), "{:?}", holder.messages);
    }
    let received = until_ok("the message comes", soon(), || {
        let messages = calls.receive(fleet.node(others[1]).kubemq(), "brief", 5)?;
        messages.into_iter().next().ok_or("nothing".to_owned())
    });
    let count = received.attributes.expect("attributes").receive_count;
    assert_eq!(count, 1);
    // The stream of the get was open until now.
    drop(brief);
    fleet.restart(leader);
    fleet.terminate();
}

/// A node that ends in order gives back what its consumers held; of one that dies it is known after a while.
#[test]
fn what_a_consumer_of_a_node_that_ends_held_is_given_to_another_one_in_time() {
    let (_work, mut fleet) = form("release");
    let calls = Calls::default();
    for gracefully in [true, false] {
        until_ok("a message is taken", soon(), || {
            calls.send_to_queue(fleet.kubemq()[0], "held", "held", 0)
        });
        let leader = fleet.leader_of("/api/v1/queues/held");
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        // A get that a change of leaders falls into may bring nothing.
        let _holder = until_ok("the message is held", soon(), || {
            let holder = calls.hold(fleet.node(others[0]).kubemq(), "held", 5000)?;
            let count = holder.messages.len();
            (count == 1)
                .then_some(holder)
                .ok_or(format!("{count} messages"))
        });
        let ending = Instant::now();
        let (earliest, latest) = if gracefully {
            let ended = fleet.node_mut(others[0]).terminate();
            assert!(ended.expect("a graceful end").success());
            // Well before anybody would miss it.
            (
                Duration::ZERO,
                seed::stretched(GIVEN_BACK_WITHIN).min(RELEASED_AFTER),
            )
        } else {
            fleet.node_mut(others[0]).kill();
            let latest = RELEASED_AFTER + seed::stretched(RELEASED_LATE_MAX);
            // The node's last sign of life was up to half a second before its death.
            (RELEASED_AFTER - Duration::from_secs(1), latest)
        };
        let received = until_ok("the message comes back", RELEASED_AFTER * 4, || {
            let messages = calls.receive(fleet.node(others[1]).kubemq(), "held", 5)?;
            messages.into_iter().next().ok_or("nothing".to_owned())
        });
        let after = ending.elapsed();
        let count = received.attributes.expect("attributes").receive_count;
        assert_eq!(count, 2);
        println!("released after {after:?}");
        assert!(after >= earliest, "gracefully: {gracefully}: {after:?}");
        assert!(after < latest, "gracefully: {gracefully}: {after:?}");
        fleet.restart(others[0]);
    }
    fleet.terminate();
}

/// Delayed messages, while the wall clock of the leader, then of a follower, goes wrong by a day, and
/// while the leader dies.
#[test]
fn timers_hold_whatever_happens_to_wall_clocks_and_leaders() {
    let (_work, mut fleet) = form("timers");
    let calls = Calls::default();
    let delay = Duration::from_secs(4);
    calls
        .send_to_queue(fleet.kubemq()[0], "timed", "first", 0)
        .expect("a message");
    let received = calls.receive(fleet.kubemq()[1], "timed", 5);
    assert_eq!(received.map(|messages| messages.len()), Ok(1));
    for round in 0..3 {
        let leader = fleet.leader_of("/api/v1/queues/timed");
        let others: Vec<u32> = (1..=3).filter(|node| *node != leader).collect();
        let client = fleet.node(others[0]).kubemq();
        let sending = Instant::now();
        until_ok("a message is taken", soon(), || {
            calls.send_to_queue(client, "timed", "timed", delay.as_secs() as i32)
        });
        let sent = Instant::now();
        let mut late_max = seed::stretched(TIMER_ERROR_MAX);
        let offset = |node: u32, offset_ms: i64| {
            let moved = fleet.node(node).clock().set_offset_ms(offset_ms);
            moved.expect("the clock's file");
        };
        match round {
            0 => offset(leader, DAY_MS),
            1 => offset(others[1], -DAY_MS),
            _ => {
                fleet.node_mut(leader).kill();
                late_max += seed::stretched(FAILOVER_MAX);
            }
        }
        until_ok("the message comes", delay * 3, || {
            let messages = calls.receive(client, "timed", 10)?;
            (messages.len() == 1)
                .then_some(())
                .ok_or(format!("{messages:?}"))
        });
        let (early, late) = (sending.elapsed(), sent.elapsed());
        println!("round {round}: a delay of {delay:?} took {late:?}");
        assert!(early >= delay, "round {round}: {early:?} is early");
        assert!(late <= delay + late_max, "round {round}: {late:?} is late");
        if round == 2 {
            fleet.restart(leader);
        }
        fleet.wait_until_whole();
    }
    fleet.terminate();
}
