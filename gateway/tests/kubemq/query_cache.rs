//! Responses that are kept for the next who asks.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::{Request, Response};

use crate::requests::{
    COMMANDS, QUERIES, a_query, a_response, answered, ask, next, say, serve, subscribe,
};
use crate::support::{Gateway, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_query_with_a_key_is_answered_from_what_is_kept_for_its_channel_and_its_time() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let (channel, other) = (unique("cached"), unique("cached"));
    let mut requests = subscribe(&client, QUERIES, &channel, "").await;
    let mut others = subscribe(&client, QUERIES, &other, "").await;
    let query = |channel: &str, id: &str| Request {
        request_id: id.to_owned(),
        cache_key: "k".to_owned(),
        cache_ttl: 4,
        ..a_query(channel)
    };
    let asking = ask(&client, query(&channel, "1"));
    serve(&client, &mut requests, "kept").await;
    let first = answered(asking).await;
    assert!(!first.cache_hit);

    let hit = answered(ask(&client, query(&channel, "2"))).await;
    let expected = Response {
        request_id: "2".to_owned(),
        cache_hit: true,
        ..first
    };
    assert_eq!(hit, expected);
    let asking = ask(&client, query(&other, "3"));
    serve(&client, &mut others, "of the other channel").await;
    assert_eq!(answered(asking).await.body, "of the other channel");
    // Without a key everything is asked, and a command always is.
    let asking = ask(&client, a_query(&channel));
    serve(&client, &mut requests, "asked").await;
    assert_eq!(answered(asking).await.body, "asked");
    let mut commands = subscribe(&client, COMMANDS, &channel, "").await;
    let command = Request {
        request_type_data: RequestType::Command as i32,
        ..query(&channel, "4")
    };
    let asking = ask(&client, command);
    serve(&client, &mut commands, "done").await;
    assert!(!answered(asking).await.cache_hit);

    tokio::time::sleep(Duration::from_millis(4_100)).await;
    let asking = ask(&client, query(&channel, "5"));
    serve(&client, &mut requests, "new").await;
    assert_eq!(answered(asking).await.body, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_not_kept_nor_is_anything_where_the_cache_is_off() {
    let off = KubemqConfig {
        query_cache_entries_max: 0,
        ..KubemqConfig::default()
    };
    for (config, is_executed) in [(KubemqConfig::default(), false), (off, true)] {
        let gateway = Gateway::with(config).await;
        let client = gateway.client().await;
        let channel = unique("not-kept");
        let mut requests = subscribe(&client, QUERIES, &channel, "").await;
        for _ in 0..2 {
            let query = Request {
                cache_key: "k".to_owned(),
                cache_ttl: 60,
                ..a_query(&channel)
            };
            let asking = ask(&client, query);
            let request = next(&mut requests).await;
            let response = Response {
                executed: is_executed,
                ..a_response(&request, "x")
            };
            say(&client, response).await;
            assert!(!answered(asking).await.cache_hit);
        }
    }
}
