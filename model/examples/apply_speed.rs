//! What applying costs per message, on state that is in memory.
//!
//! `cargo run --release -p flotilla-model --example apply_speed`

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_model::command::{
    Command, EnqueueRun, EntryHead, Proposal, QueuePolicy, Selection, Settlement,
};
use flotilla_model::ids::{
    LeaseId, LogIndex, NodeId, Origin, SessionId, ShardId, ShardTime, WallTime,
};
use flotilla_model::key::{Key, KeyHasher};
use flotilla_model::machine::EntryRun;
use flotilla_model::name::Name;
use flotilla_model::outcome::{Applied, Outcome};
use flotilla_model::record::Record;
use flotilla_model::records::{Lookup, NeedsKeys, Records, RecordsMut};

const MESSAGES: u32 = 1_000_000;
const SHARD: ShardId = ShardId(1);

/// State as a caller keeps its hot part.
#[derive(Default)]
struct HashRecords(HashMap<Key, Arc<Record>, BuildHasherDefault<KeyHasher>>);

impl Records for HashRecords {
    fn get(&self, key: &Key) -> Lookup {
        match self.0.get(key) {
            Some(record) => Lookup::Found(record.clone()),
            None => Lookup::Absent,
        }
    }
}

impl RecordsMut for HashRecords {
    fn put(&mut self, key: Key, record: Option<Arc<Record>>) {
        match record {
            Some(record) => self.0.insert(key, record),
            None => self.0.remove(&key),
        };
    }
}

#[derive(Default)]
struct Shard {
    state: HashRecords,
    index: u64,
    spent: Duration,
}

impl Shard {
    fn apply(&mut self, commands: Vec<Command>) -> Result<Applied, NeedsKeys> {
        self.index += 1;
        let slots = commands.iter().map(Command::slot_count).sum::<u64>() as usize;
        let head = EntryHead {
            now: ShardTime(1_790_000_000_000 + self.index),
            wall: WallTime((1_790_000_000_000 + self.index) * 1_000_000),
            proposals: vec![Proposal {
                origin: Origin::Node {
                    node: NodeId(1),
                    incarnation: 1,
                },
                sequence: self.index,
                first_slot: 0,
                commands,
            }],
        };
        let began = Instant::now();
        let mut run = EntryRun::new(SHARD, LogIndex(self.index), head, vec![1_024; slots]);
        let applied = loop {
            if let Some(applied) = run.advance(&mut self.state)? {
                break applied;
            }
        };
        self.spent += began.elapsed();
        Ok(applied)
    }

    fn report(&mut self, what: &str) {
        let nanos = self.spent.as_nanos() / u128::from(MESSAGES);
        let share = nanos as f64 * 150_000.0 / 1e9 * 100.0;
        println!("{what:<44} {nanos:>6} ns a message, {share:>5.1} % of a core at 150,000/s");
        self.spent = Duration::ZERO;
    }
}

fn enqueue(queue: &Name, count: u32, ttl_ms: Option<u64>) -> Command {
    Command::Enqueue {
        queue: queue.clone(),
        runs: vec![EnqueueRun {
            count,
            policy: QueuePolicy {
                ttl_ms,
                ..QueuePolicy::default()
            },
            moved: None,
        }],
        dedup: Vec::new(),
    }
}

/// One round of a queue: put in, hand out, acknowledge, in batches of this size.
fn queue_round(
    shard: &mut Shard,
    queue: &Name,
    batch: u32,
    ttl_ms: Option<u64>,
) -> Result<(), NeedsKeys> {
    let label = if ttl_ms.is_some() { " with expiry" } else { "" };
    for _ in 0..MESSAGES / batch {
        shard.apply(vec![enqueue(queue, batch, ttl_ms)])?;
    }
    shard.report(&format!("enqueue{label}, batches of {batch}"));
    let session = SessionId {
        node: NodeId(1),
        incarnation: 1,
        number: 1,
    };
    let mut leases: Vec<LeaseId> = Vec::new();
    for _ in 0..MESSAGES / batch {
        let applied = shard.apply(vec![Command::Lease {
            queue: queue.clone(),
            session,
            messages_max: batch,
            bytes_max: u64::MAX,
            visibility_ms: Some(3_600_000),
        }])?;
        if let Outcome::Leased { lease, .. } = applied.outcomes[0][0] {
            leases.push(lease);
        }
    }
    shard.report(&format!("lease{label}, batches of {batch}"));
    for lease in leases {
        shard.apply(vec![Command::Settle {
            queue: queue.clone(),
            session,
            lease,
            which: Selection::All,
            how: Settlement::Ack,
        }])?;
    }
    shard.report(&format!("ack{label}, batches of {batch}"));
    Ok(())
}

fn run(shard: &mut Shard) -> Result<(), NeedsKeys> {
    let topic = Name::topic("orders").expect("the name is valid");
    let queue = Name::queue("jobs").expect("the name is valid");
    for batch in [1_000, 10] {
        for _ in 0..MESSAGES / batch {
            shard.apply(vec![Command::Append {
                topic: topic.clone(),
                count: batch,
                dedup: Vec::new(),
            }])?;
        }
        shard.report(&format!("append, batches of {batch}"));
        queue_round(shard, &queue, batch, None)?;
    }
    queue_round(shard, &queue, 1_000, Some(3_600_000))?;
    let queues: Vec<Name> = (0..1_000)
        .map(|n| Name::queue(&format!("jobs-{n}")).expect("the name is valid"))
        .collect();
    for _ in 0..MESSAGES / 1_000 {
        shard.apply(queues.iter().map(|queue| enqueue(queue, 1, None)).collect())?;
    }
    shard.report("enqueue, entries of 1,000 queues");
    Ok(())
}

fn main() {
    let mut shard = Shard::default();
    if let Err(missing) = run(&mut shard) {
        println!("state in memory has no missing records, yet these were asked for: {missing:?}");
    }
    println!("{} records left", shard.state.0.len());
}
