//! Tokens that name their client: it is that one, whatever its requests say.

use flotilla_gateway::access::AuthenticationConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequest;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::subscribe::{EventsStoreType, SubscribeType};
use flotilla_gateway::kubemq::protocol::{
    EventReceive, QueueMessage, ReceiveQueueMessagesRequest, Request, Response,
    StreamQueueMessagesRequest, StreamRequestType, Subscribe,
};
use serde_json::json;
use tonic::Streaming;

use crate::rest::support::{a_post, raw};
use crate::shared::tokens::{authentication, rules, security, token, with_token};
use crate::support::{
    Client, Gateway, a_get, a_message, a_subscribe, an_event, next_event, requests, soon, unique,
};

async fn gateway() -> Gateway {
    let authentication = AuthenticationConfig {
        client_claim: Some("client".to_owned()),
        ..authentication()
    };
    Gateway::secured(security(Some(authentication), None)).await
}

/// A token of this client.
fn of(client: &str) -> String {
    token(&json!({"client": client}))
}

async fn received_from(client: &mut Client, queue: &str) -> String {
    let receive = ReceiveQueueMessagesRequest {
        client_id: "liar".to_owned(),
        channel: queue.to_owned(),
        max_number_of_messages: 1,
        wait_time_seconds: 10,
        ..ReceiveQueueMessagesRequest::default()
    };
    let received = client.receive_queue_messages(with_token(&of("reader"), receive));
    let mut messages = soon(received).await.unwrap().into_inner().messages;
    messages.pop().unwrap().client_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_message_is_from_whom_the_token_names_over_grpc_and_rest() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    for named in ["liar", ""] {
        let mut message = a_message(&queue, 1);
        message.client_id = named.to_owned();
        let sent = client.send_queue_message(with_token(&of("app"), message));
        assert!(!sent.await.unwrap().into_inner().is_error);
        assert_eq!(received_from(&mut client, &queue).await, "app");
    }
    let message = json!({"ClientID": "liar", "Channel": queue, "Metadata": "m"}).to_string();
    let post = a_post("/queue/send", &message);
    let post = post.replacen(
        "\r\n",
        &format!("\r\nAuthorization: {}\r\n", of("web-app")),
        1,
    );
    assert!(raw(gateway.rest, &post).await.data()["IsError"].is_null());
    assert_eq!(received_from(&mut client, &queue).await, "web-app");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_responses_are_from_whom_their_tokens_name() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let channel = unique("c");
    let subscribe = a_subscribe(SubscribeType::Queries as i32, &channel, "liar");
    let serving = client.subscribe_to_requests(with_token(&of("server"), subscribe));
    let mut serving = serving.await.unwrap().into_inner();
    let request = Request {
        client_id: "liar".to_owned(),
        request_type_data: RequestType::Query as i32,
        channel,
        metadata: "m".to_owned(),
        timeout: 10_000,
        ..Request::default()
    };
    let mut asking = gateway.client().await;
    let asked = tokio::spawn(async move {
        let request = with_token(&of("asker"), request);
        asking.send_request(request).await.unwrap().into_inner()
    });
    let got = soon(serving.message()).await.unwrap().unwrap();
    assert_eq!(got.client_id, "asker");
    let response = Response {
        client_id: "liar".to_owned(),
        request_id: got.request_id,
        reply_channel: got.reply_channel,
        executed: true,
        ..Response::default()
    };
    let response = with_token(&of("server"), response);
    client.send_response(response).await.unwrap();
    assert_eq!(soon(asked).await.unwrap().client_id, "server");
}

/// Reads a channel from its first event, or from where the client was.
async fn read(
    client: &mut Client,
    channel: &str,
    named: &str,
    token: &str,
) -> Streaming<EventReceive> {
    let subscribe = Subscribe {
        events_store_type_data: EventsStoreType::StartFromFirst as i32,
        ..a_subscribe(SubscribeType::EventsStore as i32, channel, named)
    };
    let events = client.subscribe_to_events(with_token(token, subscribe));
    soon(events).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_moves_the_position_of_another_client() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    let channel = unique("e");
    let thief = of("thief");
    // Until it is known how far that one came.
    soon(async {
        for number in 1.. {
            let event = with_token(&of("app"), an_event(&channel, number, true));
            client.send_event(event).await.unwrap();
            let mut events = read(&mut client, &channel, "victim", &thief).await;
            if next_event(&mut events).await.sequence > 1 {
                break;
            }
        }
    })
    .await;
    let mut events = read(&mut client, &channel, "victim", &of("victim")).await;
    assert_eq!(next_event(&mut events).await.sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_a_stream_are_from_whom_its_token_names() {
    let authentication = AuthenticationConfig {
        client_claim: Some("client".to_owned()),
        ..authentication()
    };
    let rules = rules(&[("app", "open.*", "Queues", &["Read", "Write"])]);
    let gateway = Gateway::secured(security(Some(authentication), Some(rules))).await;
    let mut client = gateway.client().await;
    let message = with_token(&of("app"), a_message("open", 1));
    let sent = client.send_queue_message(message).await.unwrap();
    assert!(!sent.into_inner().is_error);
    for (name, error) in [("app", ""), ("other", crate::authorization::DENIED)] {
        let (side, stream) = requests();
        let answers = client.queues_downstream(with_token(&of(name), stream));
        let mut answers = soon(answers).await.unwrap().into_inner();
        let get = QueuesDownstreamRequest {
            // Says nothing of itself, or something wrong.
            client_id: if name == "app" { "" } else { "app" }.to_owned(),
            request_type_data: Type::Get as i32,
            ..a_get("open", 1, 10_000, false)
        };
        side.send(get).await.unwrap();
        let answer = soon(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.error, error);
        assert_eq!(answer.messages.len(), usize::from(error.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_place_of_another_one_is_from_whom_the_token_names() {
    let gateway = gateway().await;
    let mut client = gateway.client().await;
    for named in ["", "liar"] {
        let (queue, target) = (unique("q"), unique("target"));
        let message = with_token(&of("app"), a_message(&queue, 1));
        let sent = client.send_queue_message(message).await.unwrap();
        assert!(!sent.into_inner().is_error);
        let (side, stream) = requests();
        let answers = client.stream_queue_message(with_token(&of("app"), stream));
        let mut answers = soon(answers).await.unwrap().into_inner();
        let request = StreamQueueMessagesRequest {
            stream_request_type_data: StreamRequestType::ReceiveMessage as i32,
            channel: queue,
            wait_time_seconds: 10,
            ..StreamQueueMessagesRequest::default()
        };
        side.send(request).await.unwrap();
        let got = soon(answers.message()).await.unwrap().unwrap();
        assert!(!got.is_error, "{}", got.error);
        let request = StreamQueueMessagesRequest {
            stream_request_type_data: StreamRequestType::SendModifiedMessage as i32,
            modified_message: Some(QueueMessage {
                client_id: named.to_owned(),
                ..a_message(&target, 2)
            }),
            ..StreamQueueMessagesRequest::default()
        };
        side.send(request).await.unwrap();
        let done = soon(answers.message()).await.unwrap().unwrap();
        assert!(!done.is_error, "{}", done.error);
        assert_eq!(received_from(&mut client, &target).await, "app");
    }
}
