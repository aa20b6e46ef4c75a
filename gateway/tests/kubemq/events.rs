//! Plain events: at most once, to whoever listens.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_gateway::kubemq::protocol::Event;
use tonic::Code;

use crate::support::{Gateway, a_subscribe, an_event, next_event, soon, unique};

const EVENTS: i32 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_each_matching_subscription_as_it_was_sent() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let base = unique("events");
    let channel = format!("{base}.a");
    let mut streams = Vec::new();
    for pattern in [channel.clone(), format!("{base}.*"), format!("{base}.>")] {
        let request = a_subscribe(EVENTS, &pattern, "c");
        streams.push(
            client
                .subscribe_to_events(request)
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let mut other = client
        .subscribe_to_events(a_subscribe(EVENTS, &format!("{base}.b"), "c"))
        .await
        .unwrap()
        .into_inner();

    let sent = client.send_event(an_event(&channel, 7, false)).await;
    let sent = sent.unwrap().into_inner();
    assert!(sent.sent);
    assert_eq!(sent.event_id, "7");
    for stream in &mut streams {
        let event = next_event(stream).await;
        assert_eq!(event.event_id, "7");
        assert_eq!(event.channel, channel);
        assert_eq!(event.metadata, "m");
        assert_eq!(event.body, "7");
        assert_eq!(event.tags["k"], "v");
        assert_eq!((event.sequence, event.timestamp), (0, 0));
    }
    client
        .send_event(an_event(&format!("{base}.b"), 8, false))
        .await
        .unwrap();
    assert_eq!(next_event(&mut other).await.event_id, "8");
}

/// More than a connection holds, and the listener's buffer.
const BURST: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_read_loses_its_surplus_alone_and_hears_what_comes_later() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("slow");
    let subscribe = || a_subscribe(EVENTS, &channel, "c");
    let mut narrow = gateway
        .client_with(|endpoint| {
            endpoint
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(64 * 1024)
        })
        .await;
    let slow = narrow.subscribe_to_events(subscribe()).await;
    let mut slow = slow.unwrap().into_inner();
    let quick = client.subscribe_to_events(subscribe()).await;
    let mut quick = quick.unwrap().into_inner();
    let hearing = tokio::spawn(async move {
        for number in 1..=BURST {
            assert_eq!(next_event(&mut quick).await.event_id, number.to_string());
        }
        quick
    });
    let before = Instant::now();
    for number in 1..=BURST {
        let event = Event {
            body: Bytes::from(vec![b'x'; 16 * 1024]),
            ..an_event(&channel, number, false)
        };
        assert!(client.send_event(event).await.unwrap().into_inner().sent);
    }
    // Two seconds for the first that finds no room; the next ones do not wait again.
    assert!(before.elapsed() < Duration::from_secs(15));
    let mut quick = hearing.await.unwrap();

    let (mut heard, mut last) = (0, 0);
    soon(async {
        loop {
            // Until there is room again, this one is lost as well.
            let late = an_event(&channel, BURST + 1, false);
            client.send_event(late).await.unwrap();
            let next = next_event(&mut slow).await;
            let number: usize = next.event_id.parse().unwrap();
            if number > BURST {
                break;
            }
            assert!(number > last, "out of order");
            (heard, last) = (heard + 1, number);
        }
    })
    .await;
    assert!((100..BURST).contains(&heard), "{heard}");
    assert_eq!(next_event(&mut quick).await.event_id, "301");
    let text = gateway.broker.metrics_text();
    let mut lines = text.lines();
    let dropped = lines.find_map(|line| line.strip_prefix("flotilla_signals_dropped_total "));
    let dropped: usize = dropped.unwrap().parse().unwrap();
    assert!(dropped >= BURST - heard, "{dropped} of {heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_stored_events_and_failures_only_and_ends_when_it_is_closed() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("mixed");
    let mut events: Vec<Event> = Vec::new();
    for number in 0..200 {
        events.push(an_event(&channel, number, number % 2 == 0));
    }
    events[51].channel.push(' ');
    events[60].client_id.clear();
    let results = client
        .send_events_stream(futures::stream::iter(events))
        .await
        .unwrap();
    let mut results = results.into_inner();
    for number in 0..200 {
        let failure = match number {
            51 => "Error 108: invalid channel value, no white spaces are allowed",
            60 => "Error 101: invalid clientID value, cannot be empty",
            plain if plain % 2 == 1 => continue,
            _ => "",
        };
        let result = soon(results.message()).await.unwrap().unwrap();
        assert_eq!(result.event_id, number.to_string());
        assert_eq!(result.error, failure);
        assert_eq!(result.sent, failure.is_empty());
    }
    assert!(soon(results.message()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_or_subscription_is_internal_with_its_text() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let refused = client.send_event(Event::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(
        refused.message(),
        "Error 101: invalid clientID value, cannot be empty"
    );
    let commands = 3;
    let refused = client
        .subscribe_to_events(a_subscribe(commands, "a", "c"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(refused.message(), "Error 207: invalid subscribe type");
}
