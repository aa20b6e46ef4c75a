//! One event to each of many topics, as fast as the nodes take them.

use super::message;
use super::protocol::Event;
use super::route::Route;
use crate::checker::Name;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After this a topic counts as one that takes no writes.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const SHOWN_MAX: usize = 5;

/// Stores one event in each topic, with that many clients at once, each repeating what failed.
/// Topics that took none in time come back with the last reason.
pub fn send_to_all(
    nodes: &[SocketAddr],
    topics: &[String],
    clients: usize,
) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let topics: Arc<Vec<String>> = Arc::new(topics.to_vec());
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut sending = tokio::task::JoinSet::new();
        for number in 0..clients {
            let (topics, next) = (topics.clone(), next.clone());
            let mut route = Route::new(nodes, number);
            sending.spawn(async move {
                let mut failed = Vec::new();
                while let Some(topic) = topics.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(reason) = send(&mut route, topic, number as u32).await {
                        failed.push((topic.clone(), reason));
                    }
                }
                failed
            });
        }
        sending.join_all().await.into_iter().flatten().collect()
    })
}

/// Some of the failures, to show.
pub fn first_failures(mut failed: Vec<(String, String)>) -> Vec<(String, String)> {
    failed.truncate(SHOWN_MAX);
    failed
}

async fn send(route: &mut Route, topic: &str, producer: u32) -> Result<(), String> {
    let deadline = Instant::now() + ACCEPTED_WITHIN;
    for number in 1.. {
        let Some(mut client) = route.client().await else {
            if Instant::now() > deadline {
                return Err("no node is reached".to_owned());
            }
            continue;
        };
        let event = Event {
            client_id: "burst".to_owned(),
            channel: topic.to_owned(),
            body: message::body(Name { producer, number }),
            store: true,
            ..Event::default()
        };
        let sent = match tokio::time::timeout(ANSWER_WITHIN, client.send_event(event)).await {
            Ok(Ok(answer)) => {
                let result = answer.into_inner();
                result.sent.then_some(()).ok_or(result.error)
            }
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() > deadline => return Err(reason),
            Err(_) => route.leave().await,
        }
    }
    unreachable!("the numbers do not end")
}
