//! Of commands, queries and their responses.

use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::{Request, Response};

use super::{CHANNELS, CLIENT_LONG, E101, E109, E115, E116, E117, E206, internal, long, rows};
use crate::support::Gateway;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_and_responses_are_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let right = Request {
        request_type_data: RequestType::Query as i32,
        client_id: "c".to_owned(),
        channel: "a".to_owned(),
        metadata: "m".to_owned(),
        timeout: 1_000,
        ..Request::default()
    };
    let mut cases = rows(
        &right,
        &[
            (E206, |one: &mut Request| one.request_type_data = 0),
            (E206, |one| one.request_type_data = 3),
            (E101, |one| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E109, |one| one.timeout = 0),
            (E109, |one| one.timeout = -1),
            (E115, |one| one.metadata.clear()),
            (E116, |one| one.cache_key = "k".to_owned()),
            (E116, |one| {
                one.cache_key = "k".to_owned();
                one.cache_ttl = -1;
            }),
        ],
    );
    for (channel, text) in CHANNELS {
        let channel = channel.to_owned();
        cases.push((
            Request {
                channel,
                ..right.clone()
            },
            text.to_owned(),
        ));
    }
    for (request, text) in cases {
        assert_eq!(
            internal(client.send_request(request).await.unwrap_err()),
            text
        );
    }
    let right = Response {
        client_id: "c".to_owned(),
        request_id: "r".to_owned(),
        reply_channel: "1-2-3".to_owned(),
        ..Response::default()
    };
    let mut cases = rows(
        &right,
        &[
            (E101, |one: &mut Response| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E117, |one| one.request_id.clear()),
        ],
    );
    for (channel, text) in CHANNELS {
        let reply_channel = channel.to_owned();
        cases.push((
            Response {
                reply_channel,
                ..right.clone()
            },
            text.to_owned(),
        ));
    }
    for (response, text) in cases {
        assert_eq!(
            internal(client.send_response(response).await.unwrap_err()),
            text
        );
    }
}
