//! Requests and replies: who gets a request, whose reply counts, and what happens without one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_broker::{
    Broker, BrokerError, CallId, Reply, Request, RequestDelivery, RequestSubscription, Signal,
    SubscribeRequests, SubscribeSignals, WhenNobody,
};
use flotilla_model::message::Text;
use flotilla_model::name::{Kind, Name};

use crate::node::{Node, PATIENCE, message, text_of, texts};

pub async fn serve(broker: &Broker, pattern: &str, group: Option<&str>) -> RequestSubscription {
    let subscribe = wanted(Kind::Request, pattern, group);
    broker.serve_requests(subscribe).await.unwrap()
}

pub fn wanted(kind: Kind, pattern: &str, group: Option<&str>) -> SubscribeRequests {
    SubscribeRequests {
        kind,
        namespace: "default".to_owned(),
        pattern: pattern.to_owned(),
        group: group.map(str::to_owned),
        calls_max: 1_000,
    }
}

/// A request that fails where nobody serves.
pub fn request(name: &str, text: &str) -> Request {
    Request {
        name: Arc::new(Name::request(name).unwrap()),
        message: Arc::new(message(text)),
        extra: Bytes::new(),
        timeout: PATIENCE,
        when_nobody: WhenNobody::Fail,
    }
}

pub fn reply(text: &str) -> Reply {
    Reply::of(message(text))
}

/// Asks without waiting for the answer.
pub fn ask(
    broker: &Broker,
    request: Request,
) -> tokio::task::JoinHandle<Result<Reply, BrokerError>> {
    let broker = broker.clone();
    tokio::spawn(async move { broker.request(request).await })
}

pub async fn answer(
    asked: tokio::task::JoinHandle<Result<Reply, BrokerError>>,
) -> Result<Reply, BrokerError> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.expect("no answer in time").unwrap()
}

pub async fn taken(responder: &RequestSubscription, count: usize) -> Vec<RequestDelivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(PATIENCE, responder.next()).await;
        taken.extend(next.expect("no request in time").unwrap());
    }
    assert_eq!(taken.len(), count, "more than expected");
    taken
}

pub async fn assert_idle(responder: &RequestSubscription) {
    let next = tokio::time::timeout(Duration::from_millis(100), responder.next()).await;
    assert!(next.is_err(), "it got a request");
}

/// Replies to all it gets with what was asked, as long as it is wanted.
pub fn echo(responder: RequestSubscription) -> Echo {
    Echo(tokio::spawn(async move {
        let mut count = 0;
        while let Ok(deliveries) = responder.next().await {
            count += deliveries.len();
            let replies = deliveries
                .iter()
                .map(|one| (one.call, Reply::of(one.message.as_ref().clone())));
            for result in responder.reply(replies.collect()) {
                result.unwrap();
            }
        }
        count
    }))
}

/// A responder that goes with this.
pub struct Echo(tokio::task::JoinHandle<usize>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn said(reply: Result<Reply, BrokerError>) -> String {
    text_of(&reply.unwrap().message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_comes_back_as_it_was_given() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "sums.*", None).await;
    let mut asked = request("sums.add", "1+1");
    asked.extra = Bytes::from_static(b"trace");
    let asked = ask(&node.broker, asked);
    let taken = taken(&responder, 1).await;
    assert_eq!(taken[0].name.text(), "sums.add");
    assert_eq!(*taken[0].message, message("1+1"));
    assert_eq!(taken[0].extra, "trace");
    assert!(taken[0].timeout_left <= PATIENCE && taken[0].timeout_left > PATIENCE / 2);
    let given = Reply {
        executed: true,
        error: Text::from_static("None"),
        message: message("2"),
        extra: Bytes::from_static(b"span"),
    };
    let results = responder.reply(vec![(taken[0].call, given.clone())]);
    assert_eq!(results, [Ok(())]);
    assert_eq!(answer(asked).await, Ok(given));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_reply() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "a", None).await;
    let asked = ask(&node.broker, request("a", "do"));
    let call = taken(&responder, 1).await[0].call;
    let refusal = Reply::refusal(Text::from_static("not today"));
    responder.reply(vec![(call, refusal.clone())]);
    assert_eq!(answer(asked).await, Ok(refusal));
    let text = node.broker.metrics_text();
    let counted = "flotilla_requests_answered_total{outcome=\"refused\"} 1\n";
    assert!(text.contains(counted), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_serves_a_request_fails_at_once_or_waits_as_its_sender_wants() {
    let node = Node::start().await;
    let failed = node.broker.request(request("a", "?")).await;
    assert!(
        matches!(failed, Err(BrokerError::NoResponder { .. })),
        "{failed:?}"
    );
    let timeout = Duration::from_millis(200);
    let waiting = Request {
        timeout,
        when_nobody: WhenNobody::Wait,
        ..request("a", "?")
    };
    let before = Instant::now();
    let requester = node.broker.open_requester();
    requester.send(vec![(0, waiting)]).await;
    // Whoever comes later does not get it.
    let late = serve(&node.broker, "a", None).await;
    let failed = requester.next().await.unwrap().remove(0).outcome;
    assert!(
        matches!(failed, Err(BrokerError::RequestTimeout { .. })),
        "{failed:?}"
    );
    assert!(before.elapsed() >= timeout);
    assert_idle(&late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_commands_and_signals_of_one_name_are_apart() {
    let node = Node::start().await;
    let signals = SubscribeSignals {
        namespace: "default".to_owned(),
        pattern: ">".to_owned(),
        group: None,
    };
    let mut listener = node.broker.subscribe_signals(signals).await.unwrap();
    let requests = serve(&node.broker, ">", None).await;
    let commands = wanted(Kind::Command, ">", None);
    let commands = node.broker.serve_requests(commands).await.unwrap();
    let command = Request {
        name: Arc::new(Name::new("default", Kind::Command, "a").unwrap()),
        ..request("a", "command")
    };
    let (_one, _two) = (
        ask(&node.broker, request("a", "request")),
        ask(&node.broker, command),
    );
    let signal = Signal {
        name: Name::signal("a").unwrap(),
        message: Arc::new(message("signal")),
    };
    node.broker.signal(vec![signal]).await;
    assert_eq!(text_of(&taken(&requests, 1).await[0].message), "request");
    assert_eq!(text_of(&taken(&commands, 1).await[0].message), "command");
    let heard = listener.next().await.unwrap();
    assert_eq!(heard.len(), 1);
    assert_idle(&requests).await;
    assert_idle(&commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_group_gets_each_request_and_everybody_else_all() {
    let node = Node::start().await;
    let first = serve(&node.broker, "a", Some("g")).await;
    let second = serve(&node.broker, "a", Some("g")).await;
    // Another pattern under the same name is another group.
    let elsewhere = serve(&node.broker, "*", Some("g")).await;
    let alone = serve(&node.broker, "a", None).await;
    let requester = node.broker.open_requester();
    let batch = texts(0..100).into_iter().enumerate();
    let batch = batch.map(|(tag, text)| (tag as u64, request("a", &text)));
    requester.send(batch.collect()).await;
    taken(&elsewhere, 100).await;
    taken(&alone, 100).await;
    let mut shared = taken(&first, 50).await;
    shared.extend(taken(&second, 50).await);
    let mut shared: Vec<u64> = shared
        .iter()
        .map(|one| text_of(&one.message).parse().unwrap())
        .collect();
    shared.sort_unstable();
    assert_eq!(shared, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_reply_counts_and_later_ones_are_refused() {
    let node = Node::start().await;
    let quick = serve(&node.broker, "a", None).await;
    let slow = serve(&node.broker, ">", None).await;
    let asked = ask(&node.broker, request("a", "?"));
    let call = taken(&quick, 1).await[0].call;
    assert_eq!(taken(&slow, 1).await[0].call, call);
    assert_eq!(quick.reply(vec![(call, reply("quick"))]), [Ok(())]);
    let late = slow.reply(vec![(call, reply("slow"))]);
    assert!(matches!(late[0], Err(BrokerError::Conflict { .. })));
    assert_eq!(said(answer(asked).await), "quick");
    let text = node.broker.metrics_text();
    assert!(
        text.contains("flotilla_replies_dropped_total 1\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_replies_to_what_was_given_to_another() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "a", None).await;
    let stranger = serve(&node.broker, "b", None).await;
    let asked = ask(&node.broker, request("a", "?"));
    let call = taken(&responder, 1).await[0].call;
    let results = stranger.reply(vec![(call, reply("false")), (CallId(999), reply("false"))]);
    for result in results {
        assert!(matches!(result, Err(BrokerError::Conflict { .. })));
    }
    responder.reply(vec![(call, reply("true"))]);
    assert_eq!(said(answer(asked).await), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_the_token_of_a_call_may_reply_to_it_once() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "a", None).await;
    let asked = ask(&node.broker, request("a", "?"));
    let call = taken(&responder, 1).await[0].call;
    let token = responder.token(call);
    let other_token = responder.token(CallId(call.0 + 1)).to_string();
    let (_, other_seal) = other_token.rsplit_once('-').unwrap();
    let genuine = token.to_string();
    let (head, _) = genuine.rsplit_once('-').unwrap();
    let forged = format!("{head}-{other_seal}").parse().unwrap();
    let refused = node.broker.reply(vec![(forged, reply("forged"))]);
    assert!(matches!(refused[0], Err(BrokerError::Conflict { .. })));
    let token = genuine.parse().unwrap();
    assert_eq!(node.broker.reply(vec![(token, reply("genuine"))]), [Ok(())]);
    let again = node.broker.reply(vec![(token, reply("again"))]);
    assert!(matches!(again[0], Err(BrokerError::Conflict { .. })));
    assert_eq!(said(answer(asked).await), "genuine");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out_for_each_request_on_its_own() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "a", None).await;
    let requester = node.broker.open_requester();
    let batch = [60_000, 100, 300, 200].into_iter().enumerate();
    let batch = batch.map(|(tag, ms)| {
        let timeout = Duration::from_millis(ms);
        let request = Request {
            timeout,
            ..request("a", "?")
        };
        (tag as u64, request)
    });
    requester.send(batch.collect()).await;
    let first = responder.next().await.unwrap()[0].call;
    let mut order = Vec::new();
    while order.len() < 3 {
        for answer in requester.next().await.unwrap() {
            assert!(matches!(
                answer.outcome,
                Err(BrokerError::RequestTimeout { .. })
            ));
            order.push(answer.tag);
        }
    }
    assert_eq!(order, [1, 3, 2]);
    let calls = (0..4).map(|number| CallId(first.0 + number));
    let late = responder.reply(calls.map(|call| (call, reply("late"))).collect());
    let accepted: Vec<_> = late.iter().map(Result::is_ok).collect();
    assert_eq!(accepted, [true, false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_responder_leaves_behind_goes_to_its_group_or_is_lost() {
    let node = Node::start().await;
    let leaves = serve(&node.broker, "a", Some("g")).await;
    let asked = ask(&node.broker, request("a", "taken"));
    taken(&leaves, 1).await;
    let waits = Request {
        when_nobody: WhenNobody::Wait,
        timeout: Duration::from_secs(3),
        ..request("a", "waits")
    };
    let waits = ask(&node.broker, waits);
    taken(&leaves, 1).await;
    let requester = node.broker.open_requester();
    requester.send(vec![(1, request("a", "untaken"))]).await;
    let stays = serve(&node.broker, "a", Some("g")).await;
    drop(leaves);
    let call = taken(&stays, 1).await;
    assert_eq!(text_of(&call[0].message), "untaken");
    stays.reply(vec![(call[0].call, reply("done"))]);
    let answers = requester.next().await.unwrap();
    assert_eq!(said(answers[0].outcome.clone()), "done");
    let lost = answer(asked).await;
    assert!(
        matches!(lost, Err(BrokerError::ResponderLost { .. })),
        "{lost:?}"
    );
    let timeout = answer(waits).await;
    assert!(
        matches!(timeout, Err(BrokerError::RequestTimeout { .. })),
        "{timeout:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_were_asked_are_listed_by_kind() {
    let node = Node::start().await;
    let _echo = echo(serve(&node.broker, "b.*", None).await);
    for name in ["a", "b.1", "b.1", "b.2"] {
        let _ = node.broker.request(request(name, "?")).await;
    }
    let page = node.broker.list(Kind::Request, None, 2).await.unwrap();
    let rest = node.broker.list(Kind::Request, page.next, 2).await.unwrap();
    let items = page.items.iter().chain(&rest.items);
    let shown: Vec<_> = items
        .map(|item| {
            (
                item.name.text(),
                item.published_total,
                item.subscriber_count,
            )
        })
        .collect();
    assert_eq!(shown, [("a", 1, 0), ("b.1", 2, 1), ("b.2", 1, 1)]);
    for kind in [Kind::Command, Kind::Signal] {
        let page = node.broker.list(kind, None, 10).await.unwrap();
        assert!(page.items.is_empty(), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requesters_and_responders_end_when_the_broker_stops() {
    let node = Node::start().await;
    let responder = serve(&node.broker, "a", None).await;
    let requester = node.broker.open_requester();
    requester.send(vec![(1, request("a", "?"))]).await;
    taken(&responder, 1).await;
    node.broker.shutdown().await;
    let ended = requester.next().await.map(|_| ());
    assert_eq!(ended, Err(BrokerError::ShuttingDown));
    let ended = responder.next().await.map(|_| ());
    assert_eq!(ended, Err(BrokerError::ShuttingDown));
    let refused = node.broker.request(request("a", "?")).await;
    assert_eq!(refused, Err(BrokerError::ShuttingDown));
}
