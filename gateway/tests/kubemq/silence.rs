//! Streams of queues that are opened when the server has just begun to serve, and on which clients say nothing.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::{QueuesUpstreamRequest, QueuesUpstreamResponse};
use futures::{Stream, StreamExt};
use tonic::{Code, Streaming};

use crate::support::{Client, Downstream, Gateway, a_message, fill, requests, soon, unique};

const SILENCE_MAX: Duration = Duration::from_millis(900);
/// Streams that are opened after this are left alone.
const BEGINNING: Duration = Duration::from_millis(2_500);

async fn start(silence_after_start_max: Option<Duration>) -> (Gateway, Client) {
    let config = KubemqConfig {
        silence_after_start_max,
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
    mut client: Client,
    first: Option<QueuesUpstreamRequest>,
) -> Streaming<QueuesUpstreamResponse> {
    let opened = client.queues_upstream(then_silent(first)).await;
    opened.unwrap().into_inner()
}

async fn is_open(stream: &mut Streaming<QueuesUpstreamResponse>) -> bool {
    let waiting = tokio::time::timeout(SILENCE_MAX + SILENCE_MAX / 2, stream.message());
    waiting.await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_says_nothing_right_after_the_start_is_to_be_opened_again() {
    let (_gateway, client) = start(Some(SILENCE_MAX)).await;
    let mut other = client.clone();
    let (mut upstream, mut downstream) =
        tokio::join!(upstream(client, None), Downstream::open(&mut other));
    let endings = [
        soon(upstream.message()).await.unwrap_err(),
        downstream.end().await.unwrap_err(),
    ];
    for status in endings {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("open it again"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_said_something_may_be_silent() {
    let (_gateway, mut client) = start(Some(SILENCE_MAX)).await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut downstream = Downstream::open(&mut client).await;
    downstream.get(&queue, 1, true).await;
    let request = QueuesUpstreamRequest {
        request_id: "1".to_owned(),
        messages: vec![a_message(&queue, 3)],
    };
    let mut upstream = upstream(client, Some(request)).await;
    assert!(soon(upstream.message()).await.unwrap().is_some());
    assert!(is_open(&mut upstream).await);
    assert_eq!(downstream.get(&queue, 2, true).await.messages.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn later_streams_may_be_silent_from_the_first_and_so_may_all_where_that_is_allowed() {
    for (silence_max, wait) in [(Some(SILENCE_MAX), BEGINNING), (None, Duration::ZERO)] {
        let (_gateway, mut client) = start(silence_max).await;
        let queue = unique("q");
        fill(&mut client, &queue, 1).await;
        tokio::time::sleep(wait).await;
        let mut downstream = Downstream::open(&mut client).await;
        let mut upstream = upstream(client, None).await;
        assert!(is_open(&mut upstream).await);
        assert_eq!(downstream.get(&queue, 1, true).await.messages.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_is_closed_without_a_word_is_no_silence() {
    let (_gateway, mut client) = start(Some(SILENCE_MAX)).await;
    let (side, stream) = requests::<QueuesUpstreamRequest>();
    let mut answers = client.queues_upstream(stream).await.unwrap().into_inner();
    let mut downstream = Downstream::open(&mut client).await;
    drop(side);
    downstream.half_close();
    assert!(soon(answers.message()).await.unwrap().is_none());
    downstream.end().await.unwrap();
}
