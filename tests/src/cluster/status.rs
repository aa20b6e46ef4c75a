//! What a node says about its cluster.

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The answer of `GET /api/v1/cluster`.
#[derive(Clone, Debug)]
pub struct Status {
    /// The identity of the cluster.
    pub cluster: String,
    /// The id of the node that answered.
    pub node: u64,
    pub nodes: Vec<Member>,
    pub shards: Vec<Group>,
    pub metadata_leader: Option<u64>,
    pub ready: bool,
    pub feature_level: u64,
}

/// A node as another one sees it.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: u64,
    pub address: String,
    pub state: String,
    pub is_up: bool,
    pub feature_level_max: u64,
}

/// A shard's replicas.
#[derive(Clone, Debug)]
pub struct Group {
    pub id: u64,
    pub leader: Option<u64>,
    pub term: u64,
    /// Where replicas are wanted.
    pub replicas: Vec<u64>,
    /// Who votes now.
    pub voters: Vec<u64>,
    /// None if the node that answered does not keep it.
    pub feature_level: Option<u64>,
}

impl Status {
    /// Takes an answer apart; none if something is missing.
    pub fn parse(text: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(text).ok()?;
        let list = |key: &str| answer.get(key)?.as_array();
        Some(Self {
            cluster: answer.get("cluster")?.as_str()?.to_owned(),
            node: answer.get("node")?.as_u64()?,
            nodes: list("nodes")?
                .iter()
                .map(Member::parse)
                .collect::<Option<_>>()?,
            shards: list("shards")?
                .iter()
                .map(Group::parse)
                .collect::<Option<_>>()?,
            metadata_leader: leader(answer.get("metadata")?),
            ready: answer.get("ready")?.as_bool()?,
            feature_level: answer.get("feature_level")?.as_u64()?,
        })
    }

    /// Whether every group has a leader.
    pub fn is_led(&self) -> bool {
        self.metadata_leader.is_some() && self.shards.iter().all(|shard| shard.leader.is_some())
    }

    /// The id of each node by its address.
    pub fn ids(&self) -> BTreeMap<Ipv4Addr, u64> {
        let id = |member: &Member| {
            let (host, _) = member.address.rsplit_once(':')?;
            Some((host.parse().ok()?, member.id))
        };
        // A wiped node is registered anew at its old address: the newest id counts.
        let mut ids = BTreeMap::new();
        for (address, number) in self.nodes.iter().filter_map(id) {
            let newest = ids.entry(address).or_insert(number);
            *newest = number.max(*newest);
        }
        ids
    }

    /// Whether everything that this node knows of has the level that all nodes follow.
    pub fn is_levelled(&self) -> bool {
        let followed = self.nodes.iter().map(|node| node.feature_level_max).min();
        let mut shards = self.shards.iter().filter_map(|shard| shard.feature_level);
        followed == Some(self.feature_level) && shards.all(|level| level == self.feature_level)
    }

    pub fn member(&self, id: u64) -> Option<&Member> {
        self.nodes.iter().find(|member| member.id == id)
    }
}

/// Who leads each shard, of those that somebody leads, by what several nodes saw: the latest term counts.
/// One that was cut off may still know only an earlier one.
pub fn leaders(views: &[Status]) -> BTreeMap<u64, u64> {
    let mut newest: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    for shard in views.iter().flat_map(|view| &view.shards) {
        let seen = (shard.term, shard.leader);
        let known = newest.entry(shard.id).or_insert(seen);
        *known = seen.max(*known);
    }
    newest
        .into_iter()
        .filter_map(|(shard, (_, leader))| Some((shard, leader?)))
        .collect()
}

impl Member {
    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            id: value.get("id")?.as_u64()?,
            address: value.get("address")?.as_str()?.to_owned(),
            state: value.get("state")?.as_str()?.to_owned(),
            is_up: value.get("up")?.as_bool()?,
            feature_level_max: value.get("feature_level_max")?.as_u64()?,
        })
    }
}

impl Group {
    fn parse(value: &Value) -> Option<Self> {
        let ids = |key: &str| {
            let ids = value.get(key)?.as_array()?.iter();
            Some(ids.filter_map(Value::as_u64).collect::<Vec<_>>())
        };
        Some(Self {
            id: value.get("id")?.as_u64()?,
            leader: leader(value),
            term: value.get("term")?.as_u64()?,
            replicas: ids("replicas")?,
            voters: ids("voters")?,
            feature_level: value.get("feature_level")?.as_u64(),
        })
    }
}

fn leader(group: &Value) -> Option<u64> {
    group.get("leader")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"cluster":"00ff","node":2,"nodes":[
        {"id":1,"name":"a","address":"10.77.0.1:7600","zone":"","state":"up","up":true,"feature_level_max":2,"self":false},
        {"id":2,"name":"b","address":"10.77.0.2:7600","zone":"","state":"up","up":true,"feature_level_max":2,"self":true},
        {"id":4,"name":"a","address":"10.77.0.1:7600","zone":"","state":"up","up":true,"feature_level_max":2,"self":false}],
        "shards":[{"id":1,"leader":2,"term":3,"replicas":[1,2],"voters":[1],"feature_level":2},{"id":2,"leader":null,"term":1,"replicas":[1],"voters":[],"feature_level":null}],
        "metadata":{"leader":1},"feature_level":2,"ready":false}"#;

    #[test]
    fn an_answer_is_understood() {
        let status = Status::parse(ANSWER).expect("the shape of the admin interface");
        assert!(!status.is_led() && !status.ready);
        assert_eq!(
            leaders(std::slice::from_ref(&status)),
            BTreeMap::from([(1, 2)])
        );
        assert_eq!((status.metadata_leader, status.feature_level), (Some(1), 2));
        assert_eq!(status.shards[0].replicas, [1, 2]);
        assert_eq!(status.shards[0].voters, [1]);
        assert!(status.is_levelled());
        for (known, other) in [
            ("max\":2", "max\":3"),
            ("[1],\"feature_level\":2", "[1],\"feature_level\":1"),
        ] {
            let answer = ANSWER.replace(known, other);
            let status = Status::parse(&answer).expect("the same shape");
            assert!(!status.is_levelled(), "{answer}");
        }
        assert_eq!(status.ids()[&Ipv4Addr::new(10, 77, 0, 1)], 4);
    }

    #[test]
    fn the_latest_term_tells_who_leads() {
        let view = |terms: [(u64, &str); 2]| {
            let [first, second] =
                terms.map(|(term, leader)| format!(r#""leader":{leader},"term":{term}"#));
            let answer = ANSWER.replace(r#""leader":2,"term":3"#, &first);
            Status::parse(&answer.replace(r#""leader":null,"term":1"#, &second))
                .expect("the same shape")
        };
        let cut_off = view([(3, "2"), (2, "2")]);
        let other = view([(4, "1"), (2, "null")]);
        let expected = BTreeMap::from([(1, 1), (2, 2)]);
        assert_eq!(leaders(&[cut_off.clone(), other.clone()]), expected);
        assert_eq!(leaders(&[other, cut_off.clone()]), expected);
        let voting = view([(4, "null"), (3, "null")]);
        assert_eq!(leaders(&[cut_off, voting]), BTreeMap::new());
    }

    #[test]
    fn an_answer_without_a_part_is_none() {
        assert!(Status::parse("{}").is_none());
        assert!(Status::parse(&ANSWER.replace("\"ready\"", "\"red\"")).is_none());
    }
}
