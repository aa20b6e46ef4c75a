//! `flotilla cluster verify`: has replicas compared, waits for what is found, and shows it.

use std::time::Duration;

use serde::Deserialize;

use crate::cli::print_line;
use crate::cluster_command::{AskedNode, table};
use crate::error::DaemonError;

const PATH: &str = "/api/v1/cluster/verify";
/// Between two looks at a comparison that is under way.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// Runs a comparison to its end; an error if not all is well then.
pub fn run(node: &AskedNode, json: bool) -> Result<(), DaemonError> {
    let client = node.client()?;
    let begun: Begun = parse(node, &client.post(PATH)?)?;
    loop {
        let answer = client.get(PATH)?;
        let found: Found = parse(node, &answer)?;
        if found.run != begun.run {
            return Err(node.fail("it was restarted meanwhile".to_owned()));
        }
        if found.running {
            std::thread::sleep(LOOK_PAUSE);
            continue;
        }
        match json {
            true => print_line(answer.trim_end()),
            false => print_line(found.describe().trim_end()),
        }
        return found.judge();
    }
}

fn parse<'a, T: Deserialize<'a>>(node: &AskedNode, answer: &'a str) -> Result<T, DaemonError> {
    serde_json::from_str(answer)
        .map_err(|error| node.fail(format!("not the answer of a node: {error}")))
}

#[derive(Deserialize)]
struct Begun {
    run: u64,
}

/// `GET /api/v1/cluster/verify`, as far as it is shown.
#[derive(Deserialize)]
struct Found {
    run: u64,
    running: bool,
    fine: bool,
    shards_total: u64,
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    shard: u32,
    entry: Option<u64>,
    result: String,
    reason: Option<String>,
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    node: u64,
    #[serde(flatten)]
    finding: Finding,
    messages: u64,
    records: u64,
    repaired: Option<Finding>,
    repair_failed: Option<String>,
}

#[derive(Deserialize)]
struct Finding {
    result: String,
    damaged_messages: u64,
    damaged_entries: u64,
    places: Vec<String>,
    reason: Option<String>,
}

impl Found {
    fn judge(&self) -> Result<(), DaemonError> {
        if self.fine {
            return Ok(());
        }
        let sound = self
            .shards
            .iter()
            .filter(|shard| shard.result == "identical");
        Err(DaemonError::Unsound {
            shards: (self.shards_total as usize).saturating_sub(sound.count()),
            total: self.shards_total,
        })
    }

    fn describe(&self) -> String {
        let rows = self.shards.iter().flat_map(Shard::rows).collect();
        let heads = ["shard", "entry", "node", "messages", "records", "result"];
        let mut text = table(heads, rows);
        let repaired = self.replicas().filter(|one| one.repaired.is_some()).count();
        if repaired > 0 {
            text.push_str(&format!(
                "\n{repaired} replicas were damaged and made anew\n"
            ));
        }
        if self.fine {
            text.push_str("\nall replicas hold the same, whole\n");
        }
        text
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.shards.iter().flat_map(|shard| &shard.replicas)
    }
}

impl Shard {
    fn rows(&self) -> Vec<[String; 6]> {
        let name = match self.shard {
            0 => "metadata".to_owned(),
            id => id.to_string(),
        };
        let entry = self
            .entry
            .map_or("none".to_owned(), |entry| entry.to_string());
        if self.replicas.is_empty() {
            let reason = self.reason.as_deref().unwrap_or_default();
            let result = format!("{}: {reason}", self.result);
            let none = String::new;
            return vec![[name, entry, none(), none(), none(), result]];
        }
        let rows = self.replicas.iter().map(|replica| {
            [
                name.clone(),
                entry.clone(),
                replica.node.to_string(),
                replica.messages.to_string(),
                replica.records.to_string(),
                replica.describe(),
            ]
        });
        rows.collect()
    }
}

impl Replica {
    fn describe(&self) -> String {
        let mut text = self.finding.describe();
        if let Some(before) = &self.repaired {
            text.push_str(&format!(", made anew; it was {}", before.describe()));
        }
        if let Some(reason) = &self.repair_failed {
            text.push_str(&format!(", not made anew: {reason}"));
        }
        text
    }
}

impl Finding {
    fn describe(&self) -> String {
        let mut text = self.result.clone();
        if self.result == "damaged" {
            text.push_str(&format!(
                ": {} messages, {} entries of the log",
                self.damaged_messages, self.damaged_entries
            ));
        }
        if let Some(reason) = &self.reason {
            text.push_str(&format!(": {reason}"));
        }
        if !self.places.is_empty() {
            text.push_str(&format!(" ({})", self.places.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_a_line_per_replica_and_a_verdict() {
        let answer = r#"{
            "run": 3, "running": false, "fine": false, "shards_total": 3,
            "shards": [
                {"shard": 0, "entry": 7, "result": "identical", "reason": null, "replicas": [
                    {"node": 1, "result": "identical", "damaged_messages": 0, "damaged_entries": 0,
                     "places": [], "reason": null, "messages": 0, "message_bytes": 0, "records": 18,
                     "repaired": null, "repair_failed": null}]},
                {"shard": 1, "entry": 900, "result": "incomplete", "reason": null, "replicas": [
                    {"node": 1, "result": "identical", "damaged_messages": 0, "damaged_entries": 0,
                     "places": [], "reason": null, "messages": 5, "message_bytes": 50, "records": 20,
                     "repaired": {"result": "damaged", "damaged_messages": 2, "damaged_entries": 1,
                     "places": ["messages of entries 32 to 47"], "reason": null}, "repair_failed": null},
                    {"node": 2, "result": "unreachable", "damaged_messages": 0, "damaged_entries": 0,
                     "places": [], "reason": "it is away", "messages": 0, "message_bytes": 0, "records": 0,
                     "repaired": null, "repair_failed": null}]},
                {"shard": 2, "entry": null, "result": "failed", "reason": "no leader", "replicas": []}]
        }"#;
        let found: Found = serde_json::from_str(answer).unwrap();
        let expected = "\
shard     entry  node  messages  records  result
metadata  7      1     0         18       identical
1         900    1     5         20       identical, made anew; it was damaged: 2 messages, 1 entries of the log (messages of entries 32 to 47)
1         900    2     0         0        unreachable: it is away
2         none                            failed: no leader

1 replicas were damaged and made anew
";
        assert_eq!(found.describe(), expected);
        let error = found.judge().unwrap_err().to_string();
        assert!(error.starts_with("2 of 3 shards"), "{error}");
    }
}
