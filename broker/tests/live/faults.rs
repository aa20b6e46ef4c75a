//! Damaged bytes and a full disk: what cannot be had is told, the rest goes on.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use flotilla_broker::{BrokerConfig, BrokerError, CursorMode, Enqueue, Start};
use flotilla_cluster::ClusterConfig;
use flotilla_model::command::{QueuePolicy, Selection, Settlement};

use crate::node::{
    Node, bodies, eventually, from, group, message, queue, read, receive, received, texts, topic,
};

/// Damages one byte of every place in the segments where this text stands. The node may run.
pub fn damage(directory: &Path, text: &str) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(directory.join("log")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let places: Vec<usize> = memchr::memmem::find_iter(&bytes, text).collect();
        if places.is_empty() {
            continue;
        }
        damaged += places.len();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for place in places {
            file.write_all_at(&[bytes[place] ^ 1], place as u64)
                .unwrap();
        }
    }
    damaged
}

fn spoilt(number: u64) -> Vec<String> {
    vec![format!("spoil-this-{number}")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_message_is_passed_over_and_counted() {
    let node = Node::start().await;
    let (events, jobs) = (topic("events"), queue("jobs"));
    node.publish(&events, &[texts(1..5), spoilt(5), texts(6..10)].concat())
        .await;
    node.enqueue(&jobs, &[texts(1..5), spoilt(5), texts(6..10)].concat())
        .await;
    // The log's end is looked at when it is opened; what was there before that is only read on use.
    let node = node.restart().await;
    let node = node
        .restart_after(|directory| {
            assert!(damage(directory, "spoil-this-5") >= 2);
        })
        .await;
    let whole: Vec<(u64, String)> = (1..10)
        .filter(|number| *number != 5)
        .map(|number| (number, number.to_string()))
        .collect();
    let mut reader = node
        .subscribe(from(&events, Start::First, CursorMode::None))
        .await;
    assert_eq!(read(&mut reader, 8).await, whole);
    let mut member = node.subscribe(group(&events, Start::First, "g")).await;
    assert_eq!(read(&mut member, 8).await, whole);
    let ask = || node.broker.groups(&events);
    eventually("the group is through", ask, |groups| groups[0].lag == 0).await;

    let session = node.broker.open_session();
    let got = received(&session, receive(&jobs, 20, Duration::from_secs(1))).await;
    let expected: Vec<String> = whole.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(bodies(&got), expected);
    session
        .settle(&jobs, got.lease, Selection::All, Settlement::Ack)
        .await
        .unwrap();
    let ask = || node.broker.queue(&jobs);
    eventually("it is removed", ask, |detail| detail.messages == 0).await;
    let shown = async || Ok::<_, BrokerError>(node.broker.metrics_text());
    let line = "flotilla_damaged_messages_total 3\n";
    eventually(line, shown, |text| text.contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_messages_and_lets_settlements_through() {
    let node = Node::start().await;
    let jobs = queue("jobs");
    node.enqueue(&jobs, &texts(0..200)).await;
    let node = node
        .restart_with(BrokerConfig::default(), |cluster: &mut ClusterConfig| {
            // More than any disk has.
            cluster.log.reserve_bytes = Some(1 << 60);
        })
        .await;
    let session = node.broker.open_session();
    let refusals = async {
        for number in 0..100 {
            let item = Enqueue {
                queue: jobs.clone(),
                message: message(&number.to_string()),
                policy: QueuePolicy::default(),
                dedup: None,
            };
            let results = node.broker.enqueue(vec![item]).await;
            assert!(
                matches!(results[0], Err(BrokerError::StorageFull { .. })),
                "{results:?}"
            );
        }
    };
    let settlements = async {
        for number in 0..100 {
            let got = received(&session, receive(&jobs, 2, Duration::from_secs(1))).await;
            assert_eq!(bodies(&got), texts(number * 2..number * 2 + 2));
            session
                .settle(&jobs, got.lease, Selection::All, Settlement::Ack)
                .await
                .unwrap();
        }
    };
    tokio::join!(refusals, settlements);
    assert!(
        node.broker.health().ready,
        "a full disk alone is no reason to be out of service"
    );
}
