//! Who is let in, call by call.

use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_gateway::kubemq::protocol::{
    AckAllQueueMessagesRequest, Empty, Event, PingResult, QueueMessagesBatchRequest,
    QueuesDownstreamRequest, QueuesInfoRequest, QueuesUpstreamRequest, ReceiveQueueMessagesRequest,
    Request, Response, StreamQueueMessagesRequest, Subscribe,
};
use serde_json::json;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::shared::tokens::{authentication, security, token, with_token};
use crate::support::{Gateway, a_message, an_event, requests, soon, unique};

/// So many seconds from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.expect("a clock after 1970").as_secs() as i64 + seconds
}

async fn gateway() -> Gateway {
    Gateway::secured(security(Some(authentication()), None)).await
}

/// What a call without a token is told.
pub const NO_TOKEN: &str = "Error 421: authentication verification failed, the call has no token in \
                            its authorization metadata";
/// What one with an old token is told.
pub const EXPIRED: &str = "Error 421: authentication verification failed, the token has expired";

fn assert_refused_with<T>(answer: Result<T, Status>, what: &str, text: &str) {
    let Err(status) = answer else {
        panic!("{what} was taken");
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status}");
    assert_eq!(status.message(), text, "{what}");
}

fn assert_refused<T>(answer: Result<T, Status>, what: &str) {
    assert_refused_with(answer, what, NO_TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_but_a_ping_needs_a_token() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for text in ["", "wrong"] {
        let mut ping = tonic::Request::new(Empty {});
        if !text.is_empty() {
            ping = with_token(text, Empty {});
        }
        client.ping(ping).await.unwrap();
    }

    assert_refused(client.send_event(Event::default()).await, "SendEvent");
    let (_side, stream) = requests::<Event>();
    assert_refused(client.send_events_stream(stream).await, "SendEventsStream");
    assert_refused(
        client.subscribe_to_events(Subscribe::default()).await,
        "SubscribeToEvents",
    );
    assert_refused(
        client.subscribe_to_requests(Subscribe::default()).await,
        "SubscribeToRequests",
    );
    assert_refused(client.send_request(Request::default()).await, "SendRequest");
    assert_refused(
        client.send_response(Response::default()).await,
        "SendResponse",
    );
    let message = a_message("q", 1);
    assert_refused(client.send_queue_message(message).await, "SendQueueMessage");
    let batch = QueueMessagesBatchRequest::default();
    assert_refused(client.send_queue_messages_batch(batch).await, "Batch");
    let receive = ReceiveQueueMessagesRequest::default();
    assert_refused(client.receive_queue_messages(receive).await, "Receive");
    let ack_all = AckAllQueueMessagesRequest::default();
    assert_refused(client.ack_all_queue_messages(ack_all).await, "AckAll");
    let (_side, stream) = requests::<QueuesUpstreamRequest>();
    assert_refused(client.queues_upstream(stream).await, "QueuesUpstream");
    let (_side, stream) = requests::<QueuesDownstreamRequest>();
    assert_refused(client.queues_downstream(stream).await, "QueuesDownstream");
    let (_side, stream) = requests::<StreamQueueMessagesRequest>();
    assert_refused(client.stream_queue_message(stream).await, "Transaction");
    let info = QueuesInfoRequest::default();
    assert_refused(client.queues_info(info).await, "QueuesInfo");
    let refused = "flotilla_access_refused_total{reason=\"unauthenticated\"} 14";
    let metrics = gateway.broker.metrics_text();
    assert!(metrics.lines().any(|line| line == refused), "{metrics}");
}

/// Whoever shows no token may ping, and no more: the message of a ping is read by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_with_a_long_message_is_refused_before_it_is_there() {
    let gateway = gateway().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
    for (bytes, is_taken) in [(900, true), (1_100, false)] {
        grpc.ready().await.unwrap();
        // The stream goes on: what came so far must be enough to say no.
        let (side, stream) = requests::<Event>();
        let event = Event {
            metadata: "m".repeat(bytes),
            ..Event::default()
        };
        side.send(event).await.unwrap();
        let side = (!is_taken).then_some(side);
        let answer = grpc.client_streaming::<_, Event, PingResult, _>(
            tonic::Request::new(stream),
            PathAndQuery::from_static("/kubemq.kubemq/Ping"),
            tonic_prost::ProstCodec::default(),
        );
        match soon(answer).await {
            Ok(_) => assert!(is_taken),
            Err(status) => {
                assert!(!is_taken, "{status}");
                assert_eq!(status.code(), Code::ResourceExhausted);
                assert_eq!(
                    status.message(),
                    "the message of this call may have at most 1024 bytes"
                );
            }
        }
        drop(side);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_is_let_in_with_and_without_the_word_before_it() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let good = token(&json!({"exp": in_seconds(60)}));
    for header in [good.clone(), format!("Bearer {good}")] {
        let event = an_event(&unique("e"), 1, true);
        let sent = client.send_event(with_token(&header, event)).await.unwrap();
        assert!(sent.into_inner().sent);
    }
    let message = a_message(&unique("q"), 1);
    let sent = client.send_queue_message(with_token(&good, message)).await;
    assert!(!sent.unwrap().into_inner().is_error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_wrong_or_over_is_refused_with_the_reason() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let good = token(&json!({}));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    for (header, text) in [
        (token(&json!({"exp": in_seconds(-10)})), EXPIRED),
        (
            token(&json!({"nbf": in_seconds(60)})),
            "Error 421: authentication verification failed, the token is not valid yet",
        ),
        (
            format!("{unsigned}.AAAA"),
            "Error 421: authentication verification failed, the signature of the token is wrong",
        ),
        (
            "nonsense".to_owned(),
            "Error 421: authentication verification failed, the token cannot be read: InvalidToken",
        ),
    ] {
        let event = an_event("e", 1, true);
        let refused = client.send_event(with_token(&header, event)).await;
        assert_refused_with(refused, &header, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_calls_until_it_expires_and_for_streams_that_it_opened() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let brief = token(&json!({"exp": in_seconds(3)}));
    let (side, stream) = requests();
    let results = client.send_events_stream(with_token(&brief, stream)).await;
    let mut results = results.unwrap().into_inner();
    soon(async {
        loop {
            let event = an_event("e", 1, true);
            match client.send_event(with_token(&brief, event)).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(status) => break assert_refused_with::<()>(Err(status), "SendEvent", EXPIRED),
            }
        }
    })
    .await;
    side.send(an_event("e", 2, true)).await.unwrap();
    assert!(soon(results.message()).await.unwrap().unwrap().sent);
}
