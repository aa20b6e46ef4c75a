use super::*;
use crate::command::{EnqueueRun, Moved, QueuePolicy, Selection};
use crate::ids::{DedupId, LeaseId, NodeId, Offset, Sequence, SessionId, WallTime};
use crate::settings::QueueSettings;

fn append(topic: &str, payload: &[&'static str]) -> (Command, Vec<Bytes>) {
    let command = Command::Append {
        topic: Name::topic(topic).unwrap(),
        count: payload.len() as u32,
        dedup: vec![(0, DedupId::of(payload[0].as_bytes()))],
    };
    (command, bytes(payload))
}

fn enqueue(queue: &str, delay_ms: u64, payload: &[&'static str]) -> (Command, Vec<Bytes>) {
    let policy = QueuePolicy {
        delay_ms,
        ..QueuePolicy::default()
    };
    let run = EnqueueRun {
        count: payload.len() as u32,
        policy,
        moved: None,
    };
    let command = Command::Enqueue {
        queue: Name::queue(queue).unwrap(),
        runs: vec![run],
        dedup: Vec::new(),
    };
    (command, bytes(payload))
}

fn bytes(payload: &[&'static str]) -> Vec<Bytes> {
    payload
        .iter()
        .map(|text| Bytes::from_static(text.as_bytes()))
        .collect()
}

fn push(builder: &mut ProposalBuilder, (command, payload): (Command, Vec<Bytes>)) -> Ticket {
    builder.push(command, payload).unwrap()
}

#[test]
fn single_publishes_to_one_topic_become_one_command() {
    let mut builder = ProposalBuilder::new();
    for place in 0..1_024 {
        let ticket = push(&mut builder, append("t", &["x"]));
        assert_eq!(
            ticket,
            Ticket {
                command: 0,
                first_place: place,
                count: 1
            }
        );
    }
    let (commands, slots) = builder.finish();
    assert_eq!((commands.len(), slots.len()), (1, 1_024));
    let Command::Append { count, dedup, .. } = &commands[0] else {
        panic!("{commands:?}");
    };
    assert_eq!(*count, 1_024);
    assert!(dedup.iter().map(|(place, _)| *place).eq(0..1_024));
}

#[test]
fn messages_lie_in_the_order_in_which_commands_take_them() {
    let mut builder = ProposalBuilder::new();
    push(&mut builder, append("a", &["a0", "a1"]));
    push(&mut builder, enqueue("a", 0, &["q0"]));
    assert_eq!(push(&mut builder, append("a", &["a2"])).first_place, 2);
    push(&mut builder, enqueue("a", 9, &["q1"]));
    assert_eq!(
        push(&mut builder, enqueue("a", 9, &["q2", "q3"])),
        Ticket {
            command: 1,
            first_place: 2,
            count: 2
        }
    );
    let (commands, slots) = builder.finish();
    assert_eq!(slots, bytes(&["a0", "a1", "a2", "q0", "q1", "q2", "q3"]));
    let Command::Enqueue { runs, .. } = &commands[1] else {
        panic!("{commands:?}");
    };
    let counts: Vec<u32> = runs.iter().map(|run| run.count).collect();
    assert_eq!(counts, [1, 3]);
    assert!(builder.is_empty() && builder.bytes() == 0);
}

#[test]
fn nothing_overtakes_a_command_that_could_notice() {
    let mut builder = ProposalBuilder::new();
    push(&mut builder, enqueue("q", 0, &["1"]));
    push(&mut builder, append("t", &["1"]));
    let purge = Command::Purge {
        queue: Name::queue("q").unwrap(),
    };
    push(&mut builder, (purge, Vec::new()));
    assert_eq!(push(&mut builder, enqueue("q", 0, &["2"])).command, 3);
    assert_eq!(push(&mut builder, append("t", &["2"])).command, 1);
    let session = SessionId {
        node: NodeId(1),
        incarnation: 1,
        number: 1,
    };
    push(&mut builder, (Command::EndSession { session }, Vec::new()));
    assert_eq!(push(&mut builder, enqueue("q", 0, &["3"])).command, 5);
    assert_eq!(push(&mut builder, append("t", &["3"])).command, 1);
}

#[test]
fn a_full_batch_gives_the_command_back() {
    let mut builder = ProposalBuilder::with_bytes_max(1_000);
    let big = |length: usize| {
        let (command, _) = append("t", &["x"]);
        (command, vec![Bytes::from(vec![0; length])])
    };
    push(&mut builder, big(100_000));
    let (command, payload) = big(1);
    let back = builder.push(command.clone(), payload.clone()).unwrap_err();
    assert_eq!(back.reason, NotTakenReason::Full);
    assert_eq!((back.command, back.payload), (command, payload));
    builder.finish();
    push(&mut builder, big(1));
}

#[test]
fn a_command_with_too_few_messages_is_not_taken() {
    let (command, _) = append("t", &["x"]);
    let back = ProposalBuilder::new()
        .push(command, Vec::new())
        .unwrap_err();
    let mismatch = NotTakenReason::PayloadMismatch {
        slots: 1,
        payloads: 0,
    };
    assert_eq!(back.reason, mismatch);
}

#[test]
fn the_number_of_messages_is_bounded() {
    let mut builder = ProposalBuilder::new();
    let taken = (0..BATCH_SLOTS_MAX + 5)
        .map_while(|_| {
            let (command, payload) = enqueue("q", 0, &[""]);
            builder.push(command, payload).ok()
        })
        .count();
    assert_eq!(taken, BATCH_SLOTS_MAX);
}

#[test]
fn a_command_costs_at_least_what_it_takes_in_an_entry() {
    let name = |bytes: usize| Name::queue(&"q".repeat(bytes)).unwrap();
    let (session, lease) = (
        SessionId {
            node: NodeId(u64::MAX),
            incarnation: u64::MAX,
            number: u64::MAX,
        },
        LeaseId(u64::MAX),
    );
    let run = EnqueueRun {
        count: u32::MAX,
        policy: QueuePolicy {
            delay_ms: u64::MAX,
            ttl_ms: Some(u64::MAX),
            receive_count_max: u32::MAX,
            dead_letter: Some(name(300)),
        },
        moved: Some(Moved {
            from: name(400),
            expiry: Some((u64::MAX, WallTime(u64::MAX))),
        }),
    };
    let settle = |which: Selection, how: Settlement| Command::Settle {
        queue: name(1),
        session,
        lease,
        which,
        how,
    };
    let commands = [
        Command::Enqueue {
            queue: name(1),
            runs: vec![run; 1_000],
            dedup: Vec::new(),
        },
        Command::Append {
            topic: Name::topic("t").unwrap(),
            count: 4_096,
            dedup: (0..4_096)
                .map(|place| (place, DedupId([255; 16])))
                .collect(),
        },
        settle(
            Selection::Sequences(vec![Sequence(u64::MAX); 1_000]),
            Settlement::Ack,
        ),
        settle(Selection::All, Settlement::Move { to: name(60_000) }),
        Command::AdvanceCursor {
            topic: Name::topic("t").unwrap(),
            cursor: "c".repeat(1_024),
            low_water: Offset(u64::MAX),
            settled: vec![(Offset(u64::MAX), Offset(u64::MAX)); 64],
        },
        Command::ConfigureQueue {
            queue: name(1),
            settings: QueueSettings {
                dead_letter: Some(name(60_000)),
                ..QueueSettings::default()
            },
        },
    ];
    for command in commands {
        let encoded = bincode::encode_to_vec(&command, bincode::config::standard()).unwrap();
        assert!(
            cost(&command) >= encoded.len(),
            "{} of {command:.100?}",
            cost(&command)
        );
    }
}
