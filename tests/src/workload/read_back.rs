//! Everything that is there when the load has ended: each topic from its first event on, read from
//! every node, and each queue until nothing is left.

use super::consume::receipts;
use super::follow::{Subscription, subscribe};
use super::message;
use super::protocol::{Event, ReceiveQueueMessagesRequest};
use super::route::{Client, connect};
use crate::admin;
use crate::checker::Name;
use crate::history::{Read, Recorder, Send};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const READ_WITHIN: Duration = Duration::from_secs(180);
const DRAIN_WITHIN: Duration = Duration::from_secs(180);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);
/// Messages on their way to the dead letters arrive within this time.
const QUIET: Duration = Duration::from_secs(2);
const DRAINER: u32 = 0;

/// A running node.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub number: u32,
    pub kubemq: SocketAddr,
    pub admin: SocketAddr,
}

/// Reads a topic from its first event to its marker from every node. A reading that breaks is begun
/// again, and only a whole one counts.
pub async fn read_topic(
    recorder: &Recorder,
    topic: &str,
    marker: Name,
    nodes: &[Node],
) -> Result<(), String> {
    for node in nodes {
        let deadline = Instant::now() + READ_WITHIN;
        loop {
            let reading = read_until(recorder, topic, *node, marker);
            let reason = match timeout(READ_WITHIN, reading).await {
                Ok(Ok(reads)) => {
                    recorder.history().topic(topic).reads.extend(reads);
                    break;
                }
                Ok(Err(reason)) => reason,
                Err(_) => "its marker did not come".to_owned(),
            };
            if Instant::now() > deadline {
                return Err(format!("{topic} from node {}: {reason}", node.number));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Ends a topic with a marker of producer 0, the last event that is promised: sends some until one
/// is accepted.
pub async fn send_marker(recorder: &Recorder, topic: &str, nodes: &[Node]) -> Result<Name, String> {
    let deadline = Instant::now() + READ_WITHIN;
    for number in 1.. {
        let name = Name {
            producer: 0,
            number,
        };
        let invoked = recorder.now();
        let node = nodes[number as usize % nodes.len()];
        let event = Event {
            client_id: "marker".to_owned(),
            channel: topic.to_owned(),
            body: message::body(name),
            store: true,
            ..Event::default()
        };
        let sent = async {
            let mut client = connect(node.kubemq)
                .await
                .map_err(|error| error.to_string())?;
            let answer = client.send_event(event).await;
            let result = answer.map_err(|error| error.to_string())?.into_inner();
            if result.sent {
                Ok(())
            } else {
                Err(result.error)
            }
        };
        let sent = match timeout(ANSWER_WITHIN, sent).await {
            Ok(sent) => sent,
            Err(_) => Err("no answer".to_owned()),
        };
        recorder.history().topic(topic).sends.push(Send {
            name,
            invoked,
            answered: recorder.now(),
            acknowledged: sent.is_ok(),
        });
        match sent {
            Ok(()) => return Ok(name),
            Err(error) if Instant::now() > deadline => {
                return Err(format!("{topic} at its end: {error}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    unreachable!("the numbers do not end")
}

async fn read_until(
    recorder: &Recorder,
    topic: &str,
    node: Node,
    marker: Name,
) -> Result<Vec<Read>, String> {
    let client = connect(node.kubemq)
        .await
        .map_err(|error| error.to_string())?;
    let subscription = Subscription {
        reader: recorder.next_hold(),
        node: node.number,
        from: 1,
        whole: true,
    };
    let name = format!("reader-{}", subscription.reader.0);
    let subscribed = subscribe(client, topic, &name, subscription.from).await;
    let mut events = subscribed.map_err(|error| error.to_string())?;
    let mut reads = Vec::new();
    loop {
        let event = events.message().await.map_err(|error| error.to_string())?;
        let event = event.ok_or("the subscription ended")?;
        let read = subscription.read(recorder, &event);
        let is_last = read.name == marker;
        reads.push(read);
        if is_last {
            return Ok(reads);
        }
    }
}

/// Receives from a queue until it holds nothing, also nothing that a lost consumer holds.
pub async fn drain_queue(
    recorder: &Recorder,
    queue: &str,
    nodes: &[Node],
    gets_dead_letters: bool,
) -> Result<(), String> {
    let deadline = Instant::now() + DRAIN_WITHIN;
    let mut quiet_since = Instant::now();
    for attempt in 0.. {
        let node = nodes[attempt % nodes.len()];
        let received = match connect(node.kubemq).await {
            Ok(client) => receive(recorder, queue, node, client).await,
            Err(error) => Err(error.to_string()),
        };
        if received != Ok(0) {
            quiet_since = Instant::now();
        }
        let left = match received {
            Ok(_) => stored(queue, node).await,
            Err(error) => Err(error),
        };
        let is_quiet = !gets_dead_letters || quiet_since.elapsed() > QUIET;
        match left {
            Ok(0) if is_quiet => {
                recorder.history().queue(queue).was_drained = true;
                return Ok(());
            }
            left if Instant::now() > deadline => {
                return Err(format!("{queue} could not be drained: {left:?} left"));
            }
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("the numbers do not end")
}

async fn receive(
    recorder: &Recorder,
    queue: &str,
    node: Node,
    mut client: Client,
) -> Result<usize, String> {
    let request = ReceiveQueueMessagesRequest {
        request_id: "1".to_owned(),
        client_id: "drainer".to_owned(),
        channel: queue.to_owned(),
        max_number_of_messages: 1000,
        wait_time_seconds: 1,
        is_peak: false,
    };
    let answer = match timeout(ANSWER_WITHIN, client.receive_queue_messages(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string())?.into_inner(),
        Err(_) => return Err("no answer".to_owned()),
    };
    if answer.is_error {
        return Err(answer.error);
    }
    let hold = recorder.next_hold();
    let drained = receipts(recorder, hold, DRAINER, node.number, &answer.messages);
    recorder.history().queue(queue).drained.extend(drained);
    Ok(answer.messages.len())
}

/// How many messages a queue holds, in any state.
async fn stored(queue: &str, node: Node) -> Result<u64, String> {
    let path = format!("/api/v1/queues/{queue}");
    let asked = tokio::task::spawn_blocking(move || admin::get(node.admin, &path)).await;
    let (code, body) = asked
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    // A queue that nothing was ever put in.
    if code == 404 {
        return Ok(0);
    }
    let detail: serde_json::Value =
        serde_json::from_str(&body).map_err(|error| format!("{error} in {body:?}"))?;
    let messages = detail["messages"].as_u64();
    messages.ok_or_else(|| format!("no count of messages in {code} {body}"))
}
