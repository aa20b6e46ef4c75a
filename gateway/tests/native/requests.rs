//! Request and Serve: who is asked, whose reply counts, and what else may come of a request.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::reply_batch::item::Outcome;
use flotilla_gateway::native::protocol::request_batch::Item;
use flotilla_gateway::native::protocol::serve_request::reply::Outcome as Say;
use flotilla_gateway::native::protocol::serve_request::{Open, Reply};
use flotilla_gateway::native::protocol::serve_response::Call;
use flotilla_gateway::native::protocol::{
    Error, ReplyBatch, RequestBatch, ServeRequest, ServeResponse,
};

use crate::support::{Gateway, Talk, a_record, text_of, unique};

/// Longer than any test.
const PATIENCE_MS: u64 = 60_000;

pub type Requester = Talk<RequestBatch, ReplyBatch>;
pub type Responder = Talk<ServeRequest, ServeResponse>;

pub fn opening(pattern: &str, group: &str, calls_max: u32) -> ServeRequest {
    ServeRequest {
        open: Some(Open {
            namespace: String::new(),
            pattern: pattern.to_owned(),
            group: group.to_owned(),
            calls_max,
        }),
        replies: Vec::new(),
    }
}

pub async fn serve(gateway: &Gateway, pattern: &str, group: &str, calls_max: u32) -> Responder {
    let mut responder = gateway.serve().await;
    let first = responder.ask(opening(pattern, group, calls_max)).await;
    assert!(first.opened.is_some() && first.calls.is_empty());
    responder
}

pub fn item(request: u64, name: &str) -> Item {
    Item {
        request,
        name: name.to_owned(),
        timeout_ms: PATIENCE_MS,
        record: Some(a_record(&request.to_string())),
        ..Item::default()
    }
}

/// Requests with these numbers, which are their bodies too, in one frame.
pub fn asking(name: &str, numbers: Range<u64>) -> RequestBatch {
    RequestBatch {
        requests: numbers.map(|number| item(number, name)).collect(),
    }
}

/// So many requests, as they came.
pub async fn calls(responder: &mut Responder, count: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    while calls.len() < count {
        let frame = responder.hear().await;
        assert!(frame.opened.is_none() && frame.failed.is_empty());
        calls.extend(frame.calls);
    }
    assert_eq!(calls.len(), count, "more than expected");
    calls
}

pub fn body(call: &Call) -> String {
    text_of(call.record.as_ref().unwrap())
}

pub fn say(call: u64, text: &str) -> Reply {
    Reply {
        call,
        outcome: Some(Say::Record(a_record(text))),
    }
}

pub fn frame(replies: Vec<Reply>) -> ServeRequest {
    ServeRequest {
        open: None,
        replies,
    }
}

/// What became of so many requests, by their numbers.
pub async fn outcomes(requester: &mut Requester, count: usize) -> BTreeMap<u64, Outcome> {
    let mut outcomes = BTreeMap::new();
    while outcomes.len() < count {
        let batch = requester.hear().await;
        assert!(!batch.replies.is_empty());
        for item in batch.replies {
            let before = outcomes.insert(item.request, item.outcome.unwrap());
            assert_eq!(before, None, "answered twice");
        }
    }
    assert_eq!(outcomes.len(), count, "more than expected");
    outcomes
}

pub fn error(outcome: Outcome) -> Error {
    match outcome {
        Outcome::Error(error) => error,
        Outcome::Record(record) => panic!("{record:?} is no error"),
    }
}

pub fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Record(record) => text_of(&record),
        Outcome::Error(error) => panic!("{error:?} is no reply"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_as_its_responder_says() {
    let gateway = Gateway::start().await;
    let prefix = unique("r");
    let mut responder = serve(&gateway, &format!("{prefix}.*"), "", 0).await;
    let mut requester = gateway.request().await;
    let name = format!("{prefix}.add");
    requester.say(asking(&name, 7..9)).await;
    let calls = calls(&mut responder, 2).await;
    for (number, call) in (7..).zip(&calls) {
        assert_eq!(call.name, name);
        assert_eq!(call.record, Some(a_record(&number.to_string())));
        assert!(call.timeout_ms > PATIENCE_MS / 2 && call.timeout_ms <= PATIENCE_MS);
    }
    let refusal = Reply {
        call: calls[0].call,
        outcome: Some(Say::Refused("not today".to_owned())),
    };
    let replies = vec![refusal, say(calls[1].call, "done")];
    responder.say(frame(replies)).await;
    let mut outcomes = outcomes(&mut requester, 2).await;
    let refused = error(outcomes.remove(&7).unwrap());
    assert_eq!(refused.code(), Code::Refused);
    assert_eq!(refused.text, "not today");
    assert_eq!(outcomes[&8], Outcome::Record(a_record("done")));
    // Whoever has nothing more to ask still gets what is missing.
    requester.say(asking(&name, 9..10)).await;
    requester.half_close();
    let call = self::calls(&mut responder, 1).await[0].call;
    responder.say(frame(vec![say(call, "last")])).await;
    let last = self::outcomes(&mut requester, 1).await;
    assert_eq!(last[&9], Outcome::Record(a_record("last")));
    requester.end().await.unwrap();
    responder.half_close();
    responder.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_under_way_gets_its_own_answer_in_whatever_order() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "g", 0).await;
    let mut requester = gateway.request().await;
    for first in (0..64).step_by(16) {
        requester.say(asking(&name, first..first + 16)).await;
    }
    let mut waiting = calls(&mut responder, 64).await;
    waiting.reverse();
    for some in waiting.chunks(10) {
        let replies = some.iter().map(|call| say(call.call, &body(call)));
        responder.say(frame(replies.collect())).await;
    }
    for (number, outcome) in outcomes(&mut requester, 64).await {
        assert_eq!(text(outcome), number.to_string());
    }
    assert!(gateway.has_metric("flotilla_requests_under_way 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_a_stream_may_have_under_way_waits_its_turn() {
    let config = KubemqConfig {
        requests_in_flight_max: 8,
        ..KubemqConfig::default()
    };
    let gateway = Gateway::with(config).await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "", 0).await;
    let mut requester = gateway.request().await;
    // Many that are refused must not be many that wait.
    let mut batch = asking(&name, 0..100);
    batch
        .requests
        .extend((100..200).map(|number| item(number, "")));
    requester.say(batch).await;
    let mut answered = BTreeMap::new();
    while answered.len() < 96 {
        let some = calls(&mut responder, 8).await;
        let replies = some.iter().map(|call| say(call.call, &body(call)));
        responder.say(frame(replies.collect())).await;
        answered.extend(outcomes(&mut requester, 8).await);
    }
    let some = calls(&mut responder, 4).await;
    let replies = some.iter().map(|call| say(call.call, &body(call)));
    responder.say(frame(replies.collect())).await;
    answered.extend(outcomes(&mut requester, 104).await);
    for (number, outcome) in answered {
        if number < 100 {
            assert_eq!(text(outcome), number.to_string());
        } else {
            assert_eq!(error(outcome).code(), Code::Invalid);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_group_gets_each_request_and_of_others_the_first_reply_counts() {
    let gateway = Gateway::start().await;
    let (shared, open) = (unique("r"), unique("r"));
    let mut members = [
        serve(&gateway, &shared, "g", 0).await,
        serve(&gateway, &shared, "g", 0).await,
    ];
    let mut requester = gateway.request().await;
    requester.say(asking(&shared, 0..20)).await;
    for member in &mut members {
        let calls = calls(member, 10).await;
        let replies = calls.iter().map(|call| say(call.call, &body(call)));
        member.say(frame(replies.collect())).await;
    }
    for (number, outcome) in outcomes(&mut requester, 20).await {
        assert_eq!(text(outcome), number.to_string());
    }

    let mut quick = serve(&gateway, &open, "", 0).await;
    let mut slow = serve(&gateway, ">", "", 0).await;
    requester.say(asking(&open, 1..2)).await;
    let call = calls(&mut quick, 1).await[0].call;
    assert_eq!(calls(&mut slow, 1).await[0].call, call);
    quick.say(frame(vec![say(call, "quick")])).await;
    let outcomes = outcomes(&mut requester, 1).await;
    assert_eq!(outcomes[&1], Outcome::Record(a_record("quick")));
    let late = slow.ask(frame(vec![say(call, "slow")])).await;
    assert_eq!(late.failed[0].call, call);
    let error = late.failed[0].error.as_ref().unwrap();
    assert_eq!(error.code(), Code::Conflict);
    assert!(gateway.has_metric("flotilla_replies_dropped_total 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_serves_fails_at_once_and_one_that_nobody_answers_in_time() {
    let gateway = Gateway::start().await;
    let (served, unserved) = (unique("r"), unique("r"));
    let mut responder = serve(&gateway, &served, "", 0).await;
    let mut requester = gateway.request().await;
    let soon = Item {
        timeout_ms: 3_000,
        ..item(2, &served)
    };
    let begun = Instant::now();
    let requests = vec![item(1, &unserved), soon, item(3, &served)];
    requester.say(RequestBatch { requests }).await;
    let unserved_outcome = outcomes(&mut requester, 1).await.remove(&1).unwrap();
    let nobody = error(unserved_outcome);
    assert_eq!(nobody.code(), Code::NoResponder);
    assert!(nobody.text.contains(&unserved), "{}", nobody.text);
    let calls = calls(&mut responder, 2).await;
    assert!(calls[0].timeout_ms <= 3_000);
    let late = error(outcomes(&mut requester, 1).await.remove(&2).unwrap());
    assert_eq!(late.code(), Code::Timeout);
    assert!(begun.elapsed() >= Duration::from_secs(3));
    let replies = vec![say(calls[0].call, "late"), say(calls[1].call, "in time")];
    let failed = responder.ask(frame(replies)).await.failed;
    assert_eq!((failed.len(), failed[0].call), (1, calls[0].call));
    let outcome = outcomes(&mut requester, 1).await.remove(&3).unwrap();
    assert_eq!(text(outcome), "in time");
}
