//! Who reads topics.

use flotilla_cluster::ClusterError;
use flotilla_model::ids::Offset;
use flotilla_model::name::Name;
use flotilla_model::query;
use flotilla_tests::history::Read;
use flotilla_tests::workload::message;

use super::pause;
use crate::host::Site;
use crate::machine::Random;
use crate::world::World;

/// Reads a topic at any node, from where it was, until the load is over.
pub struct Reader {
    pub world: World,
    pub topic: Name,
    pub random: Random,
}

impl Reader {
    pub async fn run(mut self) {
        let mut from = Offset::FIRST;
        while !self.world.is_load_over() {
            pause(&mut self.random, 1_000).await;
            let Some(site) = self.world.pick(&mut self.random) else {
                continue;
            };
            if let Ok(reads) = read_topic(&self.world, &site, &self.topic, from, false).await
                && !site.is_dead()
            {
                from = Offset(from.0 + reads.len() as u64);
                let mut history = self.world.recorder().history();
                history.topic(self.topic.text()).reads.extend(reads);
            }
        }
    }
}

/// What a node's replica has of a topic from an offset on, as one subscription.
pub async fn read_topic(
    world: &World,
    site: &Site,
    topic: &Name,
    from: Offset,
    whole: bool,
) -> Result<Vec<Read>, ClusterError> {
    let shard = site.cluster.shard_for(topic);
    let reader = world.recorder().next_hold();
    let info = shard
        .read(|records| query::topic_info(records, topic))
        .await?;
    let mut reads = Vec::new();
    let Some(info) = info else {
        return Ok(reads);
    };
    let mut next = from;
    while next < info.next {
        let located = shard
            .read(|records| query::topic_locate(records, info.object, next, 64))
            .await?;
        if located.is_empty() {
            break;
        }
        for record in located {
            let slots = record.first_slot..record.first_slot + record.count;
            let payloads = shard.read_slots(record.index, slots).await?;
            for (place, payload) in payloads.iter().enumerate() {
                let sequence = record.first.0 + place as u64;
                let (name, intact) = message::read(payload);
                reads.push(Read {
                    reader,
                    from: from.0,
                    node: site.number,
                    at: world.recorder().now(),
                    sequence,
                    name,
                    intact,
                    whole,
                });
                next = Offset(sequence + 1);
            }
        }
    }
    Ok(reads)
}
