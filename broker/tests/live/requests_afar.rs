//! Requests between nodes.

use std::time::{Duration, Instant};

use flotilla_broker::{Broker, BrokerError, Reply, Request, WhenNobody};
use flotilla_model::message::Text;
use flotilla_model::name::Kind;

use crate::fleet::Fleet;
use crate::node::{PATIENCE, eventually, text_of};
use crate::requests::{answer, ask, assert_idle, echo, reply, request, serve, taken};

async fn asked(broker: &Broker, name: &str, text: &str) -> Result<Reply, BrokerError> {
    answer(ask(broker, request(name, text))).await
}

/// So many requests are asked or served on a node.
async fn under_way(broker: &Broker, count: usize) {
    let metrics = || async { Ok(broker.metrics_text()) };
    let line = format!("flotilla_requests_under_way {count}\n");
    eventually("requests under way", metrics, |text| text.contains(&line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_on_any_node_serves_requesters_on_all() {
    let fleet = Fleet::start().await;
    for place in 0..3 {
        let name = format!("echo.{place}");
        let echo = echo(serve(fleet.broker(place), &name, None).await);
        for from in 0..3 {
            let text = format!("{from} to {place}");
            let said = asked(fleet.broker(from), &name, &text).await.unwrap();
            assert_eq!(text_of(&said.message), text);
            assert!(said.executed);
        }
        drop(echo);
    }
    let nobody = asked(fleet.broker(1), "nobody", "?").await;
    assert!(
        matches!(nobody, Err(BrokerError::NoResponder { .. })),
        "{nobody:?}"
    );
    let list = || fleet.broker(1).list(Kind::Request, None, 10);
    let page = eventually("names are listed", list, |page| page.items.len() == 4).await;
    assert_eq!(page.items[0].published_total, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_over_nodes_shares_requests_evenly() {
    let fleet = Fleet::start().await;
    let mut members = Vec::new();
    for place in [0, 0, 1, 2] {
        members.push(serve(fleet.broker(place), "work.>", Some("g")).await);
    }
    let requesters: Vec<_> = (0..3)
        .map(|place| fleet.broker(place).open_requester())
        .collect();
    for requester in &requesters {
        let batch = (0..100).map(|tag| (tag, request("work.now", &tag.to_string())));
        requester.send(batch.collect()).await;
    }
    let mut shares = [0; 4];
    let deadline = Instant::now() + PATIENCE;
    while shares.iter().sum::<usize>() < 300 {
        assert!(Instant::now() < deadline, "{shares:?}");
        for (member, share) in members.iter().zip(&mut shares) {
            let next = tokio::time::timeout(Duration::from_millis(20), member.next()).await;
            let next = next.map_or_else(|_| Vec::new(), Result::unwrap);
            *share += next.len();
            let replies = next.into_iter().map(|one| (one.call, reply("done")));
            for result in member.reply(replies.collect()) {
                result.unwrap();
            }
        }
    }
    assert!(
        shares.iter().all(|share| (70..=80).contains(share)),
        "{shares:?}"
    );
    for requester in &requesters {
        let mut count = 0;
        while count < 100 {
            for answer in requester.next().await.unwrap() {
                answer.outcome.unwrap();
                count += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_responders_get_a_request_and_the_first_reply_counts() {
    let fleet = Fleet::start().await;
    let mut responders = Vec::new();
    for place in 0..3 {
        responders.push(serve(fleet.broker(place), "a", None).await);
    }
    let asking = ask(fleet.broker(0), request("a", "?"));
    let mut calls = Vec::new();
    for responder in &responders {
        calls.push(taken(responder, 1).await[0].call);
    }
    let refusal = Reply::refusal(Text::from_static("I am the first"));
    responders[2].reply(vec![(calls[2], refusal.clone())]);
    assert_eq!(answer(asking).await, Ok(refusal));
    let late = responders[0].reply(vec![(calls[0], reply("late"))]);
    assert!(matches!(late[0], Err(BrokerError::Conflict { .. })));
    // The other node is told that its reply is of no use.
    under_way(fleet.broker(1), 0).await;
    let late = responders[1].reply(vec![(calls[1], reply("late"))]);
    assert!(matches!(late[0], Err(BrokerError::Conflict { .. })));
    for responder in &responders {
        assert_idle(responder).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_on_every_node() {
    let fleet = Fleet::start().await;
    let responder = serve(fleet.broker(1), "a", None).await;
    for replies_at in 0..3 {
        let asking = ask(fleet.broker(0), request("a", "?"));
        let call = taken(&responder, 1).await[0].call;
        let token = responder.token(call).to_string().parse().unwrap();
        let through = fleet.broker(replies_at);
        assert_eq!(through.reply(vec![(token, reply("through"))]), [Ok(())]);
        assert_eq!(text_of(&answer(asking).await.unwrap().message), "through");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_outlives_its_responder_on_another_node_as_long_as_somebody_waits() {
    let fleet = Fleet::start().await;
    let responder = serve(fleet.broker(1), "a", None).await;
    let fails = ask(fleet.broker(0), request("a", "fails"));
    taken(&responder, 1).await;
    let waits = Request {
        when_nobody: WhenNobody::Wait,
        ..request("a", "waits")
    };
    let waits = ask(fleet.broker(0), waits);
    let call = taken(&responder, 1).await[0].call;
    let token = responder.token(call);
    drop(responder);
    let lost = answer(fails).await;
    assert!(
        matches!(lost, Err(BrokerError::ResponderLost { .. })),
        "{lost:?}"
    );
    // What nobody waits for is over there too; the other goes on.
    under_way(fleet.broker(1), 1).await;
    let said = fleet.broker(2).reply(vec![(token, reply("still"))]);
    assert_eq!(said, [Ok(())]);
    assert_eq!(text_of(&answer(waits).await.unwrap().message), "still");
    under_way(fleet.broker(1), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_member_left_untaken_goes_to_another_node() {
    let fleet = Fleet::start().await;
    let leaves = serve(fleet.broker(1), "a", Some("g")).await;
    let asking = ask(fleet.broker(0), request("a", "?"));
    under_way(fleet.broker(1), 1).await;
    let stays = serve(fleet.broker(2), "a", Some("g")).await;
    drop(leaves);
    let call = taken(&stays, 1).await[0].call;
    stays.reply(vec![(call, reply("done"))]);
    assert_eq!(text_of(&answer(asking).await.unwrap().message), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_when_the_responders_node_dies_and_others_serve_on() {
    let mut fleet = Fleet::start().await;
    let dies = serve(fleet.broker(2), "a", Some("g")).await;
    let fails = ask(fleet.broker(0), request("a", "fails"));
    taken(&dies, 1).await;
    let waits = Request {
        when_nobody: WhenNobody::Wait,
        timeout: Duration::from_secs(3),
        ..request("a", "waits")
    };
    let waits = ask(fleet.broker(0), waits);
    taken(&dies, 1).await;
    fleet.kill(2);
    let lost = answer(fails).await;
    assert!(
        matches!(lost, Err(BrokerError::ResponderLost { .. })),
        "{lost:?}"
    );
    let timeout = answer(waits).await;
    assert!(
        matches!(timeout, Err(BrokerError::RequestTimeout { .. })),
        "{timeout:?}"
    );
    drop(dies);
    let _echo = echo(serve(fleet.broker(1), "a", Some("g")).await);
    let said = asked(fleet.broker(0), "a", "again").await.unwrap();
    assert_eq!(text_of(&said.message), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_is_known_again_after_a_node_was_away() {
    let mut fleet = Fleet::start().await;
    let _stays = echo(serve(fleet.broker(0), "stays", None).await);
    fleet.kill(2);
    fleet.restart(2).await;
    // The node that came back knows the responders of the others, and they get to know its own.
    assert!(asked(fleet.broker(2), "stays", "?").await.is_ok());
    let _back = echo(serve(fleet.broker(2), "back", None).await);
    assert!(asked(fleet.broker(1), "back", "?").await.is_ok());
    assert!(asked(fleet.broker(0), "back", "?").await.is_ok());
}
