//! Streams that are opened when the server has just begun to serve, and on which clients say nothing.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::{Event, QueuesUpstreamRequest};
use futures::{Stream, StreamExt};
use tonic::{Code, Status, Streaming};

use crate::support::{Client, Downstream, Gateway, a_message, an_event, fill, soon, unique};

const SILENCE_MAX: Duration = Duration::from_millis(300);
/// Streams that are opened after this are left alone.
const BEGINNING: Duration = Duration::from_millis(2_500);

async fn start() -> (Gateway, Client) {
    let config = KubemqConfig {
        silence_after_start_max: Some(SILENCE_MAX),
        ..KubemqConfig::default()
    };
    let gateway = Gateway::with(config).await;
    let client = gateway.client().await;
    (gateway, client)
}

/// One request, or none, and then nothing.
fn then_silent<Q>(first: Option<Q>) -> impl Stream<Item = Q> + Send + 'static
where
    Q: Send + 'static,
{
    futures::stream::iter(first).chain(futures::stream::pending())
}

async fn upstream(
    client: &mut Client,
    first: Option<QueuesUpstreamRequest>,
) -> Streaming<impl Sized + use<>> {
    let opened = client.queues_upstream(then_silent(first)).await;
    opened.unwrap().into_inner()
}

async fn events(client: &mut Client, first: Option<Event>) -> Streaming<impl Sized + use<>> {
    let opened = client.send_events_stream(then_silent(first)).await;
    opened.unwrap().into_inner()
}

/// How a stream ends on which nothing comes.
async fn ended<A>(mut stream: Streaming<A>) -> Status {
    match soon(stream.message()).await {
        Err(status) => status,
        Ok(answer) => panic!("it goes on, or ended well: {}", answer.is_some()),
    }
}

async fn is_open<A>(stream: &mut Streaming<A>) -> bool {
    let waiting = tokio::time::timeout(3 * SILENCE_MAX, stream.message());
    waiting.await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_says_nothing_right_after_the_start_is_to_be_opened_again() {
    let (_gateway, mut client) = start().await;
    let endings = [
        ended(upstream(&mut client, None).await).await,
        ended(events(&mut client, None).await).await,
        Downstream::open(&mut client).await.end().await.unwrap_err(),
    ];
    for status in endings {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("open it again"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_said_something_may_be_silent() {
    let (_gateway, mut client) = start().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let request = QueuesUpstreamRequest {
        request_id: "1".to_owned(),
        messages: vec![a_message(&queue, 3)],
    };
    let mut upstream = upstream(&mut client, Some(request)).await;
    let mut events = events(&mut client, Some(an_event(&queue, 1, true))).await;
    let mut downstream = Downstream::open(&mut client).await;
    downstream.get(&queue, 1, true).await;
    assert!(soon(upstream.message()).await.unwrap().is_some());
    assert!(soon(events.message()).await.unwrap().is_some());
    assert!(is_open(&mut upstream).await && is_open(&mut events).await);
    assert_eq!(downstream.get(&queue, 2, true).await.messages.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn later_streams_may_be_silent_from_the_first() {
    let (_gateway, mut client) = start().await;
    let queue = unique("q");
    fill(&mut client, &queue, 1).await;
    tokio::time::sleep(BEGINNING).await;
    let mut downstream = Downstream::open(&mut client).await;
    let mut upstream = upstream(&mut client, None).await;
    assert!(is_open(&mut upstream).await);
    assert_eq!(downstream.get(&queue, 1, true).await.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_is_closed_without_a_word_is_no_silence() {
    let (_gateway, mut client) = start().await;
    let mut downstream = Downstream::open(&mut client).await;
    downstream.half_close();
    downstream.end().await.unwrap();
}
