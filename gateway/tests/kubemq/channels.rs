//! Channel management: what the server answers itself.

use flotilla_broker::BrokerConfig;
use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::request::RequestType;
use flotilla_gateway::kubemq::protocol::{Request, Response};
use tonic::Code;

use crate::support::{Client, Gateway, a_message, an_event, fill, soon, store, unique};

const TYPES: [&str; 5] = ["events", "events_store", "commands", "queries", "queues"];

fn a_management(operation: &str, tags: &[(&str, &str)]) -> Request {
    let tags = tags.iter();
    Request {
        request_id: "r".to_owned(),
        request_type_data: RequestType::Query as i32,
        client_id: "manager".to_owned(),
        channel: "kubemq.cluster.internal.requests".to_owned(),
        metadata: operation.to_owned(),
        timeout: 10_000,
        tags: tags
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Request::default()
    }
}

async fn manage(client: &mut Client, operation: &str, tags: &[(&str, &str)]) -> Response {
    let request = a_management(operation, tags);
    let response = soon(client.send_request(request)).await.unwrap();
    let response = response.into_inner();
    assert_eq!(response.request_id, "r");
    assert!(response.timestamp > 1_600_000_000_000_000_000);
    assert_eq!(response.executed, response.error.is_empty());
    response
}

async fn change(client: &mut Client, operation: &str, kind: &str, channel: &str) -> String {
    let tags = [
        ("channel_type", kind),
        ("channel", channel),
        ("client_id", "manager"),
    ];
    manage(client, operation, &tags).await.error
}

async fn list(client: &mut Client, kind: &str, search: &str) -> Vec<serde_json::Value> {
    let tags = [("channel_type", kind), ("channel_search", search)];
    let response = manage(client, "list-channels", &tags).await;
    assert_eq!(response.error, "");
    serde_json::from_slice(&response.body).unwrap()
}

fn names(channels: &[serde_json::Value]) -> Vec<&str> {
    let names = channels.iter().map(|channel| &channel["name"]);
    names.map(|name| name.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_each_type_is_listed_as_soon_as_it_was_created_and_until_it_is_deleted() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    for kind in TYPES {
        assert!(list(&mut client, kind, "").await.is_empty(), "{kind}");
        for channel in ["b.2", "a.1", "b.1"] {
            for _ in 0..2 {
                let error = change(&mut client, "create-channel", kind, channel).await;
                assert_eq!(error, "", "again is no error");
            }
            let found = list(&mut client, kind, channel).await;
            assert_eq!(names(&found), [channel], "{kind}");
        }
        assert_eq!(
            names(&list(&mut client, kind, "*").await),
            ["a.1", "b.1", "b.2"]
        );
        assert_eq!(names(&list(&mut client, kind, "^b").await), ["b.1", "b.2"]);
        assert_eq!(names(&list(&mut client, kind, "*.1").await), ["a.1", "b.1"]);
        let error = change(&mut client, "delete-channel", kind, "b.1").await;
        assert_eq!(error, "");
        assert_eq!(names(&list(&mut client, kind, "").await), ["a.1", "b.2"]);
        let error = change(&mut client, "delete-channel", kind, "b.1").await;
        assert_eq!(error, "channel not found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_were_used_are_listed_with_every_figure_and_lose_what_they_hold() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let channel = unique("used");
    fill(&mut client, &channel, 3).await;
    store(&mut client, &channel, 2).await;
    client
        .send_event(an_event(&channel, 1, false))
        .await
        .unwrap();
    for (kind, messages) in [("queues", 3), ("events_store", 2), ("events", 1)] {
        let found = list(&mut client, kind, &channel).await;
        assert_eq!(names(&found), [channel.as_str()]);
        assert_eq!(found[0]["type"], kind);
        assert_eq!(found[0]["incoming"]["messages"], messages);
        for side in ["incoming", "outgoing"] {
            for key in [
                "messages",
                "volume",
                "responses",
                "waiting",
                "expired",
                "delayed",
            ] {
                assert!(found[0][side][key].is_u64(), "{kind} {side} {key}");
            }
        }
        assert!(found[0]["lastActivity"].is_i64() && found[0]["isActive"].is_boolean());
    }
    let found = list(&mut client, "queues", &channel).await;
    assert_eq!(found[0]["incoming"]["waiting"], 3);
    // Creating it again takes nothing away.
    assert_eq!(
        change(&mut client, "create-channel", "queues", &channel).await,
        ""
    );
    let found = list(&mut client, "queues", &channel).await;
    assert_eq!(found[0]["incoming"]["waiting"], 3);

    assert_eq!(
        change(&mut client, "delete-channel", "queues", &channel).await,
        ""
    );
    client
        .send_queue_message(a_message(&channel, 9))
        .await
        .unwrap();
    let found = list(&mut client, "queues", &channel).await;
    assert_eq!(found[0]["incoming"]["waiting"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told_in_the_answer() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let cases = [
        (
            "create-channel",
            "topics",
            "a",
            "unknown channel type \"topics\", it must be events, events_store, commands, queries or queues",
        ),
        (
            "rename-channel",
            "queues",
            "a",
            "unknown operation \"rename-channel\", it must be create-channel, delete-channel or list-channels",
        ),
        (
            "create-channel",
            "queues",
            "a.*",
            "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot",
        ),
        (
            "create-channel",
            "events",
            "a.*",
            "Error 107: invalid channel value, no wildcards are allowed",
        ),
        (
            "delete-channel",
            "commands",
            "",
            "Error 102: invalid channel value, cannot be empty",
        ),
        (
            "delete-channel",
            "queries",
            "a.",
            "Error 119: invalid channel value, cannot end with `.`",
        ),
        (
            "create-channel",
            "events_store",
            "a b",
            "Error 108: invalid channel value, no white spaces are allowed",
        ),
        ("delete-channel", "events_store", "a", "channel not found"),
    ];
    for (operation, kind, channel, error) in cases {
        assert_eq!(change(&mut client, operation, kind, channel).await, error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_longer_than_clients_read_is_refused_with_a_hint() {
    let gateway = Gateway::with(KubemqConfig {
        response_bytes_max: 1_500,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    for number in 0..10 {
        let channel = format!("many.{number}");
        change(&mut client, "create-channel", "queries", &channel).await;
    }
    let all = manage(&mut client, "list-channels", &[("channel_type", "queries")]).await;
    assert_eq!(
        all.error,
        "the list has more than 1500 bytes: search for fewer channels"
    );
    assert_eq!(list(&mut client, "queries", "[12]$").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_beyond_those_that_are_made_at_a_time_wait_for_their_turn() {
    let gateway = Gateway::with(KubemqConfig {
        channel_lists_max: 1,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    change(&mut client, "create-channel", "queues", "q").await;
    let listing = (0..20).map(|_| {
        let mut client = client.clone();
        async move { list(&mut client, "queues", "").await }
    });
    for found in futures::future::join_all(listing).await {
        assert_eq!(names(&found), ["q"]);
    }
}

/// The only thread that serves connections is free meanwhile, or nobody could say when the time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_search_that_takes_long_holds_up_nobody_and_ends_with_its_time() {
    let gateway = Gateway::with(KubemqConfig {
        channel_lists_max: 1,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let long = "a".repeat(50_000);
    for number in 0..40 {
        let channel = format!("{long}{number}");
        let error = change(&mut client, "create-channel", "queries", &channel).await;
        assert_eq!(error, "");
    }
    // It has to be tried from each letter of a name, nearly to its end.
    let tags = [("channel_type", "queries"), ("channel_search", "a{900}b")];
    let search = Request {
        timeout: 200,
        ..a_management("list-channels", &tags)
    };
    let refused = soon(client.send_request(search)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(refused.message(), "Error 301: timeout for request message");
    // The turn that it had is the next one's.
    assert_eq!(list(&mut client, "queries", "").await.len(), 40);
}

/// The protocol has no text for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_beyond_the_limit_is_refused_in_words_on_every_call_that_makes_one() {
    let gateway = Gateway::on_broker(BrokerConfig {
        topics_max: Some(1),
        queues_max: Some(1),
        ..BrokerConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    fill(&mut client, "q", 2).await;
    store(&mut client, "t", 2).await;
    let queues = "there are 1 queues, which is the most that are allowed";
    let topics = "there are 1 topics, which is the most that are allowed";
    let sent = client.send_queue_message(a_message("other", 1)).await;
    let sent = sent.unwrap().into_inner();
    assert_eq!((sent.is_error, &sent.error[..]), (true, queues));
    let result = client.send_event(an_event("other", 1, true)).await;
    let result = result.unwrap().into_inner();
    assert_eq!((result.sent, &result.error[..]), (false, topics));
    for (kind, text) in [("queues", queues), ("events_store", topics)] {
        let error = change(&mut client, "create-channel", kind, "other").await;
        assert_eq!(error, text);
    }
    // What stores nothing is not counted.
    let result = client.send_event(an_event("other", 1, false)).await;
    assert!(result.unwrap().into_inner().sent);
    let error = change(&mut client, "delete-channel", "queues", "q").await;
    assert_eq!(error, "");
    fill(&mut client, "other", 1).await;
}
