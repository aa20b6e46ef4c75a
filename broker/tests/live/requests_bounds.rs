//! Requests: bounds, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_broker::{
    BrokerConfig, BrokerError, CallId, REQUEST_EXTRA_BYTES_MAX, REQUEST_TIMEOUT_MAX, Reply,
    Request, Requester, SubscribeRequests,
};
use flotilla_model::name::{Kind, Name};

use crate::node::{Node, PATIENCE, eventually, message, text_of};
use crate::requests::{answer, ask, echo, reply, request, serve, taken, wanted};

async fn answers(requester: &Requester, count: usize) -> Vec<(u64, Result<Reply, BrokerError>)> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let next = tokio::time::timeout(PATIENCE, requester.next()).await;
        let next = next.expect("no answer in time").unwrap();
        answers.extend(next.into_iter().map(|one| (one.tag, one.outcome)));
    }
    answers.sort_by_key(|(tag, _)| *tag);
    answers
}

fn is_busy(outcome: &Result<Reply, BrokerError>) -> bool {
    matches!(outcome, Err(BrokerError::Busy { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_many_under_way_gets_its_own_answer_once() {
    let config = BrokerConfig {
        request_calls_per_client_max: 500,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let _echoes = [
        echo(serve(&node.broker, "a", Some("g")).await),
        echo(serve(&node.broker, "a", Some("g")).await),
    ];
    let requester = Arc::new(node.broker.open_requester());
    let sending = {
        let requester = Arc::clone(&requester);
        tokio::spawn(async move {
            for first in (0..5_000).step_by(1_000) {
                let batch = first..first + 1_000;
                let batch = batch.map(|tag| (tag, request("a", &tag.to_string())));
                requester.send(batch.collect()).await;
            }
        })
    };
    let answers = answers(&requester, 5_000).await;
    sending.await.unwrap();
    for (place, (tag, outcome)) in answers.into_iter().enumerate() {
        assert_eq!(tag, place as u64);
        assert_eq!(text_of(&outcome.unwrap().message), tag.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_has_no_more_requests_than_it_wants() {
    let node = Node::start().await;
    let few = SubscribeRequests {
        calls_max: 3,
        ..wanted(Kind::Request, "a", Some("g"))
    };
    let few = node.broker.serve_requests(few).await.unwrap();
    let requester = node.broker.open_requester();
    let batch = (0..5).map(|tag| (tag, request("a", "?")));
    requester.send(batch.collect()).await;
    let refused = answers(&requester, 2).await;
    assert!(
        refused.iter().all(|(_, outcome)| is_busy(outcome)),
        "{refused:?}"
    );
    // With another member there is room again, at that one.
    let more = serve(&node.broker, "a", Some("g")).await;
    let batch = (5..9).map(|tag| (tag, request("a", "?")));
    requester.send(batch.collect()).await;
    taken(&more, 4).await;
    let first = taken(&few, 3).await;
    few.reply(vec![(first[0].call, reply("done"))]);
    assert_eq!(answers(&requester, 1).await[0].0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_responder_declines_goes_to_its_group_and_takes_none_of_its_room() {
    let node = Node::start().await;
    let one_at_a_time = SubscribeRequests {
        calls_max: 1,
        ..wanted(Kind::Request, "a", Some("g"))
    };
    let picky = node.broker.serve_requests(one_at_a_time).await.unwrap();
    let first = ask(&node.broker, request("a", "1"));
    let declined = taken(&picky, 1).await[0].call;
    let names = picky.names_of(&[declined, CallId(0)]);
    assert_eq!(names, [Some(Arc::new(Name::request("a").unwrap())), None]);
    let other = serve(&node.broker, "a", Some("g")).await;
    picky.decline(vec![declined]);
    let guessed = picky.reply(vec![(declined, reply("mine"))]);
    assert!(matches!(guessed[0], Err(BrokerError::Conflict { .. })));
    let passed_on = taken(&other, 1).await[0].call;
    other.reply(vec![(passed_on, reply("done"))]);
    assert_eq!(text_of(&answer(first).await.unwrap().message), "done");
    drop(other);

    // There is nobody else now, and still room for the next.
    for _ in 0..3 {
        let vain = ask(&node.broker, request("a", "2"));
        let declined = taken(&picky, 1).await[0].call;
        picky.decline(vec![declined]);
        let refused = answer(vain).await.unwrap_err();
        assert!(matches!(refused, BrokerError::NoResponder { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_what_is_too_much_for_it_and_takes_more_when_that_is_over() {
    let config = BrokerConfig {
        request_calls_max: 2,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let responder = serve(&node.broker, "a", None).await;
    let requester = node.broker.open_requester();
    let batch = (0..3).map(|tag| (tag, request("a", "?")));
    requester.send(batch.collect()).await;
    let refused = answers(&requester, 1).await;
    assert!(refused[0].0 == 2 && is_busy(&refused[0].1), "{refused:?}");
    taken(&responder, 2).await;
    // Whoever is not interested any more makes room.
    drop(requester);
    let asked = ask(&node.broker, request("a", "again"));
    let call = taken(&responder, 1).await[0].call;
    responder.reply(vec![(call, reply("done"))]);
    assert!(answer(asked).await.is_ok());
    let text = node.broker.metrics_text();
    assert!(text.contains("flotilla_requests_under_way 0\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_under_way_are_bounded() {
    let config = BrokerConfig {
        request_bytes_max: 10_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let responder = serve(&node.broker, "a", None).await;
    let large = |bytes: usize| Request {
        message: Arc::new(message(&"x".repeat(bytes))),
        ..request("a", "")
    };
    // What is larger than all room is taken alone.
    let asked = ask(&node.broker, large(20_000));
    let call = taken(&responder, 1).await[0].call;
    let refused = node.broker.request(large(10)).await;
    assert!(is_busy(&refused), "{refused:?}");
    responder.reply(vec![(call, reply("done"))]);
    assert!(answer(asked).await.is_ok());
    let asked = ask(&node.broker, large(10));
    let call = taken(&responder, 1).await[0].call;
    responder.reply(vec![(call, reply("done"))]);
    assert!(answer(asked).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_and_harms_no_other() {
    let config = BrokerConfig {
        message_bytes_max: 1_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let _echo = echo(serve(&node.broker, "a", None).await);
    let good = || request("a", "good");
    let kind = Request {
        name: Arc::new(Name::signal("a").unwrap()),
        ..good()
    };
    let zero = Request {
        timeout: Duration::ZERO,
        ..good()
    };
    let long = Request {
        timeout: REQUEST_TIMEOUT_MAX + Duration::from_millis(1),
        ..good()
    };
    let extra = Request {
        extra: Bytes::from(vec![0; REQUEST_EXTRA_BYTES_MAX + 1]),
        ..good()
    };
    let large = Request {
        message: Arc::new(message(&"x".repeat(1_000))),
        ..good()
    };
    let requester = node.broker.open_requester();
    let batch = [good(), kind, zero, long, extra, large, good()];
    let batch = batch.into_iter().enumerate();
    let batch = batch.map(|(tag, request)| (tag as u64, request));
    requester.send(batch.collect()).await;
    let answers = answers(&requester, 7).await;
    for tag in [0, 6] {
        assert!(answers[tag].1.is_ok(), "{:?}", answers[tag]);
    }
    for (tag, outcome) in &answers[1..5] {
        assert!(
            matches!(outcome, Err(BrokerError::InvalidRequest { .. })),
            "{tag}: {outcome:?}"
        );
    }
    let allowed = matches!(
        answers[5].1,
        Err(BrokerError::TooLarge { allowed: 1_000, .. })
    );
    assert!(allowed, "{:?}", answers[5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_reply_is_refused_and_a_good_one_still_counts() {
    let config = BrokerConfig {
        message_bytes_max: 1_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let responder = serve(&node.broker, "a", None).await;
    let asked = ask(&node.broker, request("a", "?"));
    let call = taken(&responder, 1).await[0].call;
    let results = responder.reply(vec![
        (call, reply(&"x".repeat(1_000))),
        (call, reply("small")),
    ]);
    assert!(matches!(results[0], Err(BrokerError::TooLarge { .. })));
    assert_eq!(results[1], Ok(()));
    assert_eq!(text_of(&answer(asked).await.unwrap().message), "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_subscription_is_refused() {
    let node = Node::start().await;
    let bad = [
        wanted(Kind::Request, "", None),
        wanted(Kind::Request, "a.>.b", None),
        wanted(Kind::Signal, "a", None),
        wanted(Kind::Queue, "a", None),
        wanted(Kind::Request, "a", Some("")),
        wanted(Kind::Request, "a", Some(&"g".repeat(1_025))),
    ];
    for subscribe in bad {
        let text = format!("{subscribe:?}");
        let refused = node.broker.serve_requests(subscribe).await;
        assert!(refused.is_err(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_responder_does_not_take_counts_until_its_time_is_over_and_no_longer() {
    let config = BrokerConfig {
        request_bytes_max: 10_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut stalled = Vec::new();
    for number in 0..4 {
        let name = format!("stalled.{number}");
        stalled.push(serve(&node.broker, &name, None).await);
    }
    let _lives = echo(serve(&node.broker, "lives", None).await);
    let of = |name: &str, timeout: Duration| Request {
        message: Arc::new(message(&"x".repeat(1_180))),
        timeout,
        ..request(name, "")
    };
    // Whoever asked is gone, and still each responder has what it was asked.
    for number in 0..4 {
        let requester = node.broker.open_requester();
        let asked = of(&format!("stalled.{number}"), Duration::from_secs(3));
        requester.send(vec![(0, asked)]).await;
    }
    let refused = node.broker.request(of("lives", PATIENCE)).await;
    assert!(is_busy(&refused), "{refused:?}");
    let again = async || Ok(node.broker.request(of("lives", PATIENCE)).await);
    eventually("there is room again", again, Result::is_ok)
        .await
        .unwrap();
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_leaves_room_for_the_requests_of_others() {
    let config = BrokerConfig {
        request_bytes_max: 40_000,
        ..BrokerConfig::default()
    };
    let node = Node::start_with(config).await;
    let responder = serve(&node.broker, "a", None).await;
    let large = || Request {
        message: Arc::new(message(&"x".repeat(1_500))),
        ..request("a", "")
    };
    let requester = node.broker.open_requester();
    let batch = (0..20).map(|tag| (tag, large()));
    requester.send(batch.collect()).await;
    let refused = answers(&requester, 17).await;
    assert!(
        refused.iter().all(|(_, outcome)| is_busy(outcome)),
        "{refused:?}"
    );
    taken(&responder, 3).await;
    let asked = ask(&node.broker, large());
    let call = taken(&responder, 1).await[0].call;
    responder.reply(vec![(call, reply("done"))]);
    assert!(answer(asked).await.is_ok());
}
