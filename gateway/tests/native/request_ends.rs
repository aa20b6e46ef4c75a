//! Request and Serve: what is refused, and what becomes of requests when a client goes.

use std::time::{Duration, Instant};

use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::request_batch::Item;
use flotilla_gateway::native::protocol::serve_request::Reply;
use flotilla_gateway::native::protocol::serve_request::reply::Outcome as Say;
use flotilla_gateway::native::protocol::{RequestBatch, ServeRequest};

use crate::requests::{
    asking, body, calls, error, frame, item, opening, outcomes, say, serve, text,
};
use crate::support::{Gateway, unique};

const SOON: Duration = Duration::from_secs(20);

/// Waits until a metric has a value.
async fn await_metric(gateway: &Gateway, line: &str) {
    let deadline = Instant::now() + SOON;
    while !gateway.has_metric(line) {
        let text = gateway.broker.metrics_text();
        assert!(Instant::now() < deadline, "not {line}:\n{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_gets_an_error_of_its_own_and_harms_no_other() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "", 0).await;
    let mut requester = gateway.request().await;
    let timeout = |request, timeout_ms| Item {
        timeout_ms,
        ..item(request, &name)
    };
    let namespace = Item {
        namespace: "No".to_owned(),
        ..item(4, &name)
    };
    let requests = vec![
        item(1, &name),
        timeout(2, 0),
        timeout(3, 3_600_001),
        namespace,
        item(5, ""),
        item(6, &name),
    ];
    requester.say(RequestBatch { requests }).await;
    let refused = outcomes(&mut requester, 4).await;
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5]);
    let texts: Vec<String> = refused
        .into_values()
        .map(|outcome| {
            let error = error(outcome);
            assert_eq!(error.code(), Code::Invalid);
            error.text
        })
        .collect();
    assert_eq!(texts[0], "timeout_ms is 0, 1 to 3600000 are allowed");
    assert_eq!(texts[1], "timeout_ms is 3600001, 1 to 3600000 are allowed");
    assert_eq!(texts[3], "a request name must not be empty");
    let calls = calls(&mut responder, 2).await;
    assert_eq!([body(&calls[0]), body(&calls[1])], ["1", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_passed_on_is_told_and_may_be_mended() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "", 0).await;
    let mut requester = gateway.request().await;
    requester.say(asking(&name, 1..2)).await;
    let call = calls(&mut responder, 1).await[0].call;
    let too_long = Reply {
        call,
        outcome: Some(Say::Refused("x".repeat(65_537))),
    };
    let empty = Reply {
        call,
        outcome: None,
    };
    let unknown = say(call + 1, "what?");
    let failed = responder.ask(frame(vec![too_long, empty, unknown])).await;
    let mut codes: Vec<_> = failed
        .failed
        .iter()
        .map(|failed| (failed.call, failed.error.as_ref().unwrap().code()))
        .collect();
    codes.sort_by_key(|(call, _)| *call);
    let expected = [
        (call, Code::Invalid),
        (call, Code::Invalid),
        (call + 1, Code::Conflict),
    ];
    assert_eq!(codes, expected);
    responder.say(frame(vec![say(call, "short")])).await;
    let outcome = outcomes(&mut requester, 1).await.remove(&1).unwrap();
    assert_eq!(text(outcome), "short");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_has_no_more_calls_than_it_wants() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut few = serve(&gateway, &name, "g", 2).await;
    let mut requester = gateway.request().await;
    requester.say(asking(&name, 0..3)).await;
    let busy = error(outcomes(&mut requester, 1).await.remove(&2).unwrap());
    assert_eq!(busy.code(), Code::Busy);
    let first = calls(&mut few, 2).await;
    // With another member there is room again, at that one.
    let mut more = serve(&gateway, &name, "g", 0).await;
    requester.say(asking(&name, 3..6)).await;
    calls(&mut more, 3).await;
    few.say(frame(vec![say(first[0].call, "done")])).await;
    assert_eq!(outcomes(&mut requester, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_that_vanishes_leaves_nothing_behind() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "", 0).await;
    let requester = gateway.request().await;
    requester.say(asking(&name, 0..50)).await;
    let held = calls(&mut responder, 50).await;
    assert!(gateway.has_metric("flotilla_requests_under_way 50"));
    drop(requester);
    await_metric(&gateway, "flotilla_requests_under_way 0").await;
    let late = responder.ask(frame(vec![say(held[0].call, "late")])).await;
    let late = late.failed[0].error.as_ref().unwrap();
    assert_eq!(late.code(), Code::Conflict);
    // The responder is there for others.
    let mut other = gateway.request().await;
    other.say(asking(&name, 1..2)).await;
    let call = calls(&mut responder, 1).await[0].call;
    responder.say(frame(vec![say(call, "yes")])).await;
    assert_eq!(outcomes(&mut other, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_responder_had_in_hand_when_it_went_may_have_been_carried_out() {
    let gateway = Gateway::start().await;
    let name = unique("r");
    let mut leaves = serve(&gateway, &name, "g", 0).await;
    let mut requester = gateway.request().await;
    requester.say(asking(&name, 1..3)).await;
    let held = calls(&mut leaves, 2).await;
    let stays = serve(&gateway, &name, "g", 0).await;
    // What it said before it went counts.
    leaves.say(frame(vec![say(held[0].call, "done")])).await;
    leaves.half_close();
    leaves.end().await.unwrap();
    let mut outcomes = outcomes(&mut requester, 2).await;
    assert_eq!(text(outcomes.remove(&1).unwrap()), "done");
    let lost = error(outcomes.remove(&2).unwrap());
    assert_eq!(lost.code(), Code::OutcomeUnknown);
    assert!(lost.text.contains(&name), "{}", lost.text);
    drop(stays);
    await_metric(&gateway, "flotilla_responders 0").await;
    requester.say(asking(&name, 3..4)).await;
    let nobody = self::outcomes(&mut requester, 1).await.remove(&3).unwrap();
    assert_eq!(error(nobody).code(), Code::NoResponder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_cannot_be_served_is_told_why() {
    let gateway = Gateway::start().await;
    let replies = vec![say(1, "what?")];
    let refused = [
        (frame(replies.clone()), "the first frame must open"),
        (
            ServeRequest {
                replies,
                ..opening("a", "", 0)
            },
            "the first frame opens, and cannot reply: there are no calls yet",
        ),
        (
            opening("a", &"g".repeat(1_025), 0),
            "the group has 1025 bytes, 1 to 1024 are allowed",
        ),
        (opening("", "", 0), "a request name must not be empty"),
    ];
    for (first, text) in refused {
        let mut responder = gateway.serve().await;
        responder.say(first).await;
        let status = responder.end().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), text);
    }
    let mut responder = serve(&gateway, "a", "", 0).await;
    responder.say(opening("a", "", 0)).await;
    let status = responder.end().await.unwrap_err();
    assert_eq!(status.message(), "only the first frame opens");
}
