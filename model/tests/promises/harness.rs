//! A shard that is told one thing after another.

use flotilla_model::command::*;
use flotilla_model::ids::*;
use flotilla_model::machine::EntryRun;
use flotilla_model::name::Name;
use flotilla_model::outcome::*;
use flotilla_model::query;
use flotilla_model::records::*;

pub const SHARD: ShardId = ShardId(1);
pub const SLOT_BYTES: u32 = 10;

/// A shard that is told one thing after another by one node.
pub struct Shard {
    pub shard: ShardId,
    pub state: MemoryRecords,
    pub index: u64,
    pub now: u64,
    pub sequence: u64,
    pub advances: u32,
}

impl Shard {
    pub fn new() -> Self {
        Self::of(SHARD)
    }

    pub fn of(shard: ShardId) -> Self {
        Self {
            shard,
            state: MemoryRecords::default(),
            index: 0,
            now: 1_000_000,
            sequence: 0,
            advances: 0,
        }
    }

    pub fn apply(&mut self, origin: Origin, sequence: u64, commands: Vec<Command>) -> Applied {
        let slots: u64 = commands.iter().map(Command::slot_count).sum();
        let proposal = Proposal {
            origin,
            sequence,
            first_slot: 0,
            commands,
        };
        self.entry(vec![proposal], slots as usize)
    }

    pub fn entry(&mut self, proposals: Vec<Proposal>, slots: usize) -> Applied {
        self.index += 1;
        let head = EntryHead {
            now: ShardTime(self.now),
            wall: WallTime(self.now * 1_000_000),
            proposals,
        };
        let mut run = EntryRun::new(
            self.shard,
            LogIndex(self.index),
            head,
            vec![SLOT_BYTES; slots],
        );
        self.advances = 0;
        loop {
            self.advances += 1;
            if let Some(applied) = run.advance(&mut self.state).unwrap() {
                return applied;
            }
        }
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        self.sequence += 1;
        let applied = self.apply(node(1), self.sequence, vec![command]);
        applied.outcomes[0][0].clone()
    }

    pub fn tick(&mut self) -> Applied {
        self.entry(Vec::new(), 0)
    }

    /// Ticks for as long as work is left over; returns how many were needed.
    pub fn settle_down(&mut self) -> u32 {
        for ticks in 1..1_000 {
            let applied = self.tick();
            if applied.next_due.is_none_or(|due| due.0 > self.now) {
                return ticks;
            }
        }
        panic!("the shard never comes to rest");
    }

    pub fn queue(&self, name: &Name) -> query::QueueInfo {
        query::queue_info(&self.state, name).unwrap().unwrap()
    }

    pub fn stats(&self) -> query::ShardStats {
        query::shard_stats(&self.state).unwrap()
    }

    pub fn lease(&mut self, queue: &Name, messages_max: u32) -> (LeaseId, Vec<LeasedMessage>) {
        match self.run(lease(queue, session(1), messages_max)) {
            Outcome::Leased {
                lease, messages, ..
            } => (lease, messages),
            other => panic!("{other:?}"),
        }
    }
}

pub fn node(incarnation: u64) -> Origin {
    Origin::Node {
        node: NodeId(1),
        incarnation,
    }
}

pub fn session(incarnation: u64) -> SessionId {
    SessionId {
        node: NodeId(1),
        incarnation,
        number: 1,
    }
}

pub fn jobs() -> Name {
    Name::queue("jobs").unwrap()
}

pub fn log() -> Name {
    Name::topic("log").unwrap()
}

pub fn append(count: u32) -> Command {
    Command::Append {
        topic: log(),
        count,
        dedup: Vec::new(),
    }
}

pub fn enqueue(queue: &Name, count: u32, policy: QueuePolicy) -> Command {
    Command::Enqueue {
        queue: queue.clone(),
        runs: vec![EnqueueRun {
            count,
            policy,
            moved: None,
        }],
        dedup: Vec::new(),
    }
}

pub fn plain(count: u32) -> Command {
    enqueue(&jobs(), count, QueuePolicy::default())
}

pub fn lease(queue: &Name, session: SessionId, messages_max: u32) -> Command {
    Command::Lease {
        queue: queue.clone(),
        session,
        messages_max,
        bytes_max: u64::MAX,
        visibility_ms: None,
    }
}

pub fn settle(lease: LeaseId, how: Settlement) -> Command {
    Command::Settle {
        queue: jobs(),
        session: session(1),
        lease,
        which: Selection::All,
        how,
    }
}
