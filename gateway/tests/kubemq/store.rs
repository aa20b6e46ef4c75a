//! Stored events: replay, live, and positions that last.

use bytes::Bytes;
use flotilla_gateway::kubemq::protocol::subscribe::EventsStoreType;
use flotilla_gateway::kubemq::protocol::{Event, EventReceive, Subscribe};
use tonic::Streaming;

use crate::support::{Client, Gateway, a_subscribe, an_event, next_event, soon, store, unique};

const EVENTS_STORE: i32 = 2;

async fn read(
    client: &mut Client,
    channel: &str,
    who: (&str, &str),
    start: EventsStoreType,
) -> Streaming<EventReceive> {
    let request = Subscribe {
        group: who.1.to_owned(),
        events_store_type_data: start as i32,
        ..a_subscribe(EVENTS_STORE, channel, who.0)
    };
    soon(client.subscribe_to_events(request))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_and_live_join_without_a_gap() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("join");
    store(&mut client, &channel, 300).await;
    let mut events = read(
        &mut client,
        &channel,
        ("c", ""),
        EventsStoreType::StartFromFirst,
    )
    .await;
    let writer = async {
        let mut client = gateway.client().await;
        store(&mut client, &channel, 300).await;
    };
    let reader = async {
        for sequence in 1..=600 {
            let event = next_event(&mut events).await;
            assert_eq!(event.sequence, sequence);
            assert_eq!(event.body, ((sequence - 1) % 300 + 1).to_string());
            assert!(event.timestamp > 1_600_000_000_000_000_000);
        }
    };
    tokio::join!(writer, reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_where_it_stopped_whatever_start_it_names() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("resume");
    store(&mut client, &channel, 10).await;
    let mut events = read(
        &mut client,
        &channel,
        ("c", ""),
        EventsStoreType::StartFromFirst,
    )
    .await;
    for sequence in 1..=10 {
        assert_eq!(next_event(&mut events).await.sequence, sequence);
    }
    // A position is written down only after its event was: one more makes the tenth sure.
    store(&mut client, &channel, 1).await;
    assert_eq!(next_event(&mut events).await.sequence, 11);
    drop(events);

    soon(async {
        loop {
            // The position is free for a new reader once the server has noticed the old one's end.
            let mut again = read(
                &mut client,
                &channel,
                ("c", ""),
                EventsStoreType::StartFromFirst,
            )
            .await;
            store(&mut client, &channel, 1).await;
            let first = next_event(&mut again).await.sequence;
            if first > 10 {
                break;
            }
            assert_eq!(first, 1, "an independent reader begins where it asked to");
        }
    })
    .await;
    let mut other = read(
        &mut client,
        &channel,
        ("d", ""),
        EventsStoreType::StartFromFirst,
    )
    .await;
    assert_eq!(next_event(&mut other).await.sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_written_to_a_client_comes_again() {
    const COUNT: usize = 400;
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("unread");
    let events = (1..=COUNT).map(|number| Event {
        body: Bytes::from(vec![b'x'; 64 * 1024]),
        ..an_event(&channel, number, true)
    });
    let events: Vec<Event> = events.collect();
    let mut results = client
        .send_events_stream(futures::stream::iter(events))
        .await
        .unwrap()
        .into_inner();
    while let Some(result) = soon(results.message()).await.unwrap() {
        assert!(result.sent, "{}", result.error);
    }
    // A client that takes little and is gone: its windows hold a few events, the server many more.
    let mut slow = gateway
        .client_with(|endpoint| {
            endpoint
                .initial_stream_window_size(128 * 1024)
                .initial_connection_window_size(256 * 1024)
        })
        .await;
    let mut events = read(
        &mut slow,
        &channel,
        ("slow", ""),
        EventsStoreType::StartFromFirst,
    )
    .await;
    for sequence in 1..=3 {
        assert_eq!(next_event(&mut events).await.sequence, sequence);
    }
    drop(events);
    drop(slow);
    let mut events = soon(async {
        loop {
            let mut events = read(
                &mut client,
                &channel,
                ("slow", ""),
                EventsStoreType::StartNewOnly,
            )
            .await;
            // Only the reader that has the old position gets old events.
            let first = tokio::time::timeout(
                std::time::Duration::from_millis(500),
                next_event(&mut events),
            );
            if let Ok(first) = first.await {
                let sequence = first.sequence as usize;
                assert!((2..60).contains(&sequence), "resumed at {sequence}");
                break (events, sequence);
            }
        }
    })
    .await;
    for sequence in events.1 + 1..=COUNT {
        assert_eq!(next_event(&mut events.0).await.sequence as usize, sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_events() {
    const COUNT: usize = 200;
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("group");
    let mut one = read(
        &mut client,
        &channel,
        ("a", "g"),
        EventsStoreType::StartFromFirst,
    )
    .await;
    let mut two = read(
        &mut client,
        &channel,
        ("b", "g"),
        EventsStoreType::StartFromFirst,
    )
    .await;
    store(&mut client, &channel, COUNT).await;
    let mut seen = Vec::new();
    while seen.len() < COUNT {
        tokio::select! {
            event = next_event(&mut one) => seen.push(event.sequence as usize),
            event = next_event(&mut two) => seen.push(event.sequence as usize),
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
}
