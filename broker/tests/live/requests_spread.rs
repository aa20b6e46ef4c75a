//! Requests between nodes: who gets what another has no room for, what becomes of calls that nobody waits
//! for any more, and what must not go to another.

use std::time::Duration;

use flotilla_broker::{BrokerConfig, BrokerError, RequestSubscription, SubscribeRequests};
use flotilla_model::name::Kind;

use crate::fleet::Fleet;
use crate::node::{eventually, text_of};
use crate::requests::{answer, ask, assert_idle, echo, reply, request, serve, taken, wanted};

/// A member of the group that has no more than so many requests at a time.
async fn member(fleet: &Fleet, place: usize, calls_max: u32) -> RequestSubscription {
    let wanted = SubscribeRequests {
        calls_max,
        ..wanted(Kind::Request, "a", Some("g"))
    };
    fleet.broker(place).serve_requests(wanted).await.unwrap()
}

/// Every node knows who serves at this one. Changes are told in their order: whoever is reached that came
/// last knows them all.
async fn all_know(fleet: &Fleet, place: usize) {
    let name = format!("probe.{place}");
    let _echo = echo(serve(fleet.broker(place), &name, None).await);
    for from in 0..3 {
        let broker = fleet.broker(from);
        let asking = || async { Ok(broker.request(request(&name, "?")).await.is_ok()) };
        eventually("it is known who serves", asking, |is_known| *is_known).await;
    }
}

async fn shows(fleet: &Fleet, place: usize, line: &str) {
    let metrics = || async { Ok(fleet.broker(place).metrics_text()) };
    eventually(line, metrics, |text| text.contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_members_of_one_node_have_no_room_for_goes_to_idle_ones_of_others() {
    let fleet = Fleet::start().await;
    // Wherever it is asked: where members are full, where they have room, and where there are none.
    for place in 0..3 {
        let full = [member(&fleet, 0, 1).await, member(&fleet, 0, 1).await];
        let idle = member(&fleet, 1, 1_000).await;
        all_know(&fleet, 0).await;
        all_know(&fleet, 1).await;
        let requester = fleet.broker(place).open_requester();
        let batch = (0..100).map(|tag| (tag, request("a", "?")));
        requester.send(batch.collect()).await;
        for one in &full {
            taken(one, 1).await;
        }
        taken(&idle, 98).await;
        let answers = tokio::time::timeout(Duration::from_millis(100), requester.next()).await;
        assert!(answers.is_err(), "from {place}: {answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_refused_as_busy_only_when_all_members_of_all_nodes_are() {
    let fleet = Fleet::start().await;
    let mut members = Vec::new();
    for place in 0..3 {
        members.push(member(&fleet, place, 2).await);
        all_know(&fleet, place).await;
    }
    let requester = fleet.broker(0).open_requester();
    let batch = (0..7).map(|tag| (tag, request("a", "?")));
    requester.send(batch.collect()).await;
    for one in &members {
        taken(one, 2).await;
    }
    let answers = requester.next().await.unwrap();
    let is_busy = matches!(answers[0].outcome, Err(BrokerError::Busy { .. }));
    assert!(answers.len() == 1 && is_busy, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_any_more_is_over_on_all_nodes() {
    let fleet = Fleet::start().await;
    let few = member(&fleet, 1, 2).await;
    all_know(&fleet, 1).await;
    let requester = fleet.broker(0).open_requester();
    let batch = (0..2).map(|tag| (tag, request("a", "?")));
    requester.send(batch.collect()).await;
    let calls = taken(&few, 2).await;
    drop(requester);
    shows(&fleet, 1, "flotilla_requests_under_way 0\n").await;
    let late = few.reply(vec![(calls[0].call, reply("late"))]);
    assert!(matches!(late[0], Err(BrokerError::Conflict { .. })));
    // It has room for another.
    let asked = ask(fleet.broker(0), request("a", "again"));
    let call = taken(&few, 1).await[0].call;
    assert_eq!(few.reply(vec![(call, reply("done"))]), [Ok(())]);
    assert!(answer(asked).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reply_to_a_node_s_life_before_reaches_a_request_of_its_life_after() {
    let mut fleet = Fleet::start().await;
    let responder = serve(fleet.broker(1), "a", None).await;
    all_know(&fleet, 1).await;
    let lost = ask(fleet.broker(0), request("a", "before"));
    let before = taken(&responder, 1).await[0].call;
    fleet.kill(0);
    lost.abort();
    // Whoever asked is gone with the node, whatever it was told.
    let _ = lost.await;
    fleet.restart(0).await;
    all_know(&fleet, 1).await;
    let asked = ask(fleet.broker(0), request("a", "after"));
    let after = taken(&responder, 1).await[0].call;
    // Refused here, or of no use there: what counts is that it does not reach who asked.
    responder.reply(vec![(before, reply("to another"))]);
    assert_idle(&responder).await;
    responder.reply(vec![(after, reply("to this one"))]);
    let said = answer(asked).await.unwrap();
    assert_eq!(text_of(&said.message), "to this one");
    shows(&fleet, 1, "flotilla_requests_under_way 0\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_node_that_is_not_there_is_refused() {
    let fleet = Fleet::start().await;
    let refused = fleet
        .broker(0)
        .reply(vec![("63-1-2".parse().unwrap(), reply("to nobody"))]);
    assert!(
        matches!(refused[0], Err(BrokerError::Conflict { .. })),
        "{refused:?}"
    );
    // Tokens that are made up for a node that is there fill no more than a part of the way to it.
    let node = fleet.member(1).cluster.node().id.0;
    let bytes = BrokerConfig::default().request_bytes_max / 4;
    // A message of the tests says its text twice.
    let large = "x".repeat(usize::try_from(bytes).unwrap() / 16);
    let batch = (0..9).map(|call| {
        let token = format!("{node:x}-{call:x}-1").parse().unwrap();
        (token, reply(&large))
    });
    let results = fleet.broker(0).reply(batch.collect());
    let (passed, refused) = results.split_at(7);
    assert!(passed.iter().all(Result::is_ok), "{passed:?}");
    let is_busy =
        |result: &Result<(), BrokerError>| matches!(result, Err(BrokerError::Busy { .. }));
    assert!(refused.iter().all(is_busy), "{refused:?}");
}
