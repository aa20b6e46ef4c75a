//! Messages that a client gets on one stream and settles on another.

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::access::AuthenticationConfig;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::{QueuesDownstreamRequest, QueuesDownstreamResponse};
use flotilla_model::name::Name;
use serde_json::json;

use crate::authorization::DENIED;
use crate::shared::tokens::{authentication, rules, security, token, with_token};
use crate::support::{
    Client, Downstream, Gateway, a_get, a_message, bodies, fill, leased, requests, soon, unique,
};

pub const UNKNOWN: &str = "transaction is completed or transaction id not found";

fn of(transaction: &str, sequences: &[i64], target: &str) -> QueuesDownstreamRequest {
    QueuesDownstreamRequest {
        request_id: "elsewhere".to_owned(),
        ref_transaction_id: transaction.to_owned(),
        sequence_range: sequences.to_vec(),
        re_queue_channel: target.to_owned(),
        ..QueuesDownstreamRequest::default()
    }
}

/// One request on a stream of its own that says nothing more: its answer, or `None` where it ended in silence.
pub async fn elsewhere(
    client: &mut Client,
    kind: Type,
    request: QueuesDownstreamRequest,
) -> Option<QueuesDownstreamResponse> {
    let (side, stream) = requests();
    let request = QueuesDownstreamRequest {
        client_id: "consumer".to_owned(),
        request_type_data: kind as i32,
        ..request
    };
    side.send(request).await.unwrap();
    drop(side);
    let answers = soon(client.queues_downstream(stream)).await.unwrap();
    let mut answers = answers.into_inner();
    let first = soon(answers.message()).await.unwrap();
    if let Some(answer) = &first {
        assert_eq!(answer.request_type_data, kind as i32);
        assert_eq!(answer.ref_request_id, "elsewhere");
        assert_eq!(soon(answers.message()).await.unwrap(), None);
    }
    first
}

/// How many messages a queue has, and how many of them somebody holds.
async fn counts(gateway: &Gateway, queue: &str) -> (u64, u64) {
    let detail = gateway.broker.queue(&Name::queue(queue).unwrap()).await;
    let detail = detail.unwrap();
    (detail.messages, detail.leased)
}

/// A stream with all messages of a queue in one transaction.
struct Held {
    client: Client,
    queue: String,
    holding: Downstream,
    id: String,
}

async fn held(gateway: &Gateway, count: usize) -> Held {
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, count).await;
    let mut holding = Downstream::open(&mut client).await;
    let id = holding
        .get(&queue, count as i32, false)
        .await
        .transaction_id;
    Held {
        client,
        queue,
        holding,
        id,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_transaction_is_settled_when_the_other_stream_ends_in_silence() {
    let gateway = Gateway::start().await;
    let target = unique("target");
    for kind in [
        Type::AckAll,
        Type::NAckAll,
        Type::ReQueueAll,
        Type::CloseByClient,
    ] {
        let Held {
            mut client,
            queue,
            holding,
            id,
        } = held(&gateway, 3).await;
        // It may wait for more meanwhile.
        let idle = a_get(&unique("idle"), 1, 600_000, false);
        holding.send(Type::Get, idle).await;
        let request = of(&id, &[], &target);
        assert_eq!(
            elsewhere(&mut client, kind, request).await,
            None,
            "{kind:?}"
        );
        let left = match kind {
            Type::AckAll | Type::ReQueueAll => 0,
            _ => 3,
        };
        assert_eq!(counts(&gateway, &queue).await, (left, 0), "{kind:?}");
        let again = elsewhere(&mut client, kind, of(&id, &[], &target)).await;
        assert_eq!(again.unwrap().error, UNKNOWN);
    }
    let mut downstream = Downstream::open(&mut gateway.client().await).await;
    let moved = downstream.get(&target, 3, true).await;
    assert_eq!(bodies(&moved.messages), ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_to_the_stream_that_asks_and_to_no_other() {
    let gateway = Gateway::start().await;
    let Held {
        mut client,
        mut holding,
        id,
        ..
    } = held(&gateway, 4).await;
    let target = unique("target");
    let no_target = "cannot requeue messages with empty channel destination ";
    for (kind, request, text) in [
        (Type::ReQueueAll, of(&id, &[], ""), no_target),
        (
            Type::NAckRange,
            of(&id, &[], ""),
            "cannot nack empty list of of offsets",
        ),
        (
            Type::AckRange,
            of(&id, &[1, 99, 2], ""),
            "invalid ack sequence id 99",
        ),
        (Type::AckAll, of("nothing", &[], ""), UNKNOWN),
        (Type::ActiveOffsets, of("nothing", &[], ""), UNKNOWN),
    ] {
        let answer = elsewhere(&mut client, kind, request).await.unwrap();
        assert_eq!((answer.is_error, &answer.error[..]), (true, text));
    }
    // What came before the mistake is settled, and both streams see the same.
    let held = elsewhere(&mut client, Type::ActiveOffsets, of(&id, &[], "")).await;
    assert_eq!(held.unwrap().active_offsets, [2, 3, 4]);
    holding.settle(Type::NAckRange, &id, &[3]).await;
    holding.settle(Type::ActiveOffsets, &id, &[]).await;
    assert_eq!(holding.answer().await.active_offsets, [2, 4]);
    let requeued = elsewhere(&mut client, Type::ReQueueRange, of(&id, &[4], &target)).await;
    assert_eq!(requeued, None);
    let status = elsewhere(&mut client, Type::TransactionStatus, of(&id, &[], "")).await;
    assert!(!status.unwrap().transaction_complete);
    assert_eq!(
        elsewhere(&mut client, Type::AckAll, of(&id, &[], "")).await,
        None
    );
    let status = elsewhere(&mut client, Type::TransactionStatus, of(&id, &[], "")).await;
    assert!(status.unwrap().transaction_complete);
    holding.settle(Type::AckAll, &id, &[]).await;
    assert_eq!(holding.answer().await.error, UNKNOWN);
    // It may have gone to another shard, where it arrives a little later.
    let moved = holding.get(&target, 1, true).await;
    assert_eq!(bodies(&moved.messages), ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sees_what_it_had_another_settle() {
    let gateway = Gateway::with(KubemqConfig {
        requests_in_flight_max: 3,
        ..KubemqConfig::default()
    })
    .await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 8).await;
    let mut holding = Downstream::open(&mut client).await;
    let mut asking = Downstream::open(&mut client).await;
    for _ in 0..4 {
        let id = holding.get(&queue, 2, false).await.transaction_id;
        asking.settle(Type::NAckAll, &id, &[]).await;
        asking.settle(Type::TransactionStatus, &id, &[]).await;
        assert!(asking.answer().await.transaction_complete);
    }
    // All came back, so all can be had at once: by the stream that held them, too.
    let id = holding.get(&queue, 8, false).await.transaction_id;
    for number in 9..=16 {
        asking.settle(Type::AckRange, &id, &[number]).await;
    }
    let get = a_get(&queue, 1, 0, false);
    asking.send(Type::Get, get).await;
    assert!(asking.answer().await.messages.is_empty());
    assert_eq!(counts(&gateway, &queue).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_all_closes_what_the_stream_itself_has() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut holding = Downstream::open(&mut client).await;
    let id = holding.get(&queue, 1, false).await.transaction_id;
    let mut asking = Downstream::open(&mut client).await;
    asking.get(&queue, 1, false).await;
    asking.settle(Type::CloseByClient, "", &[]).await;
    asking.settle(Type::TransactionStatus, &id, &[]).await;
    assert!(!asking.answer().await.transaction_complete);
    assert_eq!(counts(&gateway, &queue).await, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_finds_no_transaction() {
    let gateway = Gateway::start().await;
    let Held {
        mut client,
        mut holding,
        id,
        ..
    } = held(&gateway, 1).await;
    let mut other = Downstream::open_as(&mut client, "other", None).await;
    assert_strange(&mut other, &id).await;
    holding.settle(Type::ActiveOffsets, &id, &[]).await;
    assert_eq!(holding.answer().await.active_offsets, [1]);
}

/// Who asks is told what is said of transactions that never were.
async fn assert_strange(asking: &mut Downstream, id: &str) {
    for kind in [
        Type::AckAll,
        Type::AckRange,
        Type::NAckAll,
        Type::ReQueueAll,
        Type::CloseByClient,
        Type::ActiveOffsets,
    ] {
        asking.send(kind, of(id, &[1], "target")).await;
        let answer = asking.answer().await;
        assert_eq!((answer.is_error, &answer.error[..]), (true, UNKNOWN));
    }
    asking.settle(Type::TransactionStatus, id, &[]).await;
    assert!(asking.answer().await.transaction_complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_itself_the_same_is_another_client_if_its_token_says_so() {
    let claims = |client: &str, subject: &str| json!({"client": client, "sub": subject});
    // Named by themselves, and bound by their tokens.
    for (client_claim, other) in [(None, claims("a", "2")), (Some("client"), claims("b", "1"))] {
        let authentication = AuthenticationConfig {
            client_claim: client_claim.map(str::to_owned),
            ..authentication()
        };
        let gateway = Gateway::secured(security(Some(authentication), None)).await;
        let mut client = gateway.client().await;
        let mine = token(&claims("a", "1"));
        let mut newer = claims("a", "1");
        newer["exp"] = 9_999_999_999_u64.into();
        let message = a_message("open", 1);
        let sent = client.send_queue_message(with_token(&mine, message)).await;
        assert!(!sent.unwrap().into_inner().is_error);
        let mut holding = Downstream::open_as(&mut client, "me", Some(&mine)).await;
        let id = holding.get("open", 1, false).await.transaction_id;
        let other = token(&other);
        let mut strange = Downstream::open_as(&mut client, "me", Some(&other)).await;
        assert_strange(&mut strange, &id).await;
        // A token may be renewed.
        let newer = token(&newer);
        let mut same = Downstream::open_as(&mut client, "me", Some(&newer)).await;
        same.settle(Type::AckAll, &id, &[]).await;
        same.half_close();
        same.end().await.unwrap();
        assert_eq!(counts(&gateway, "open").await, (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_stream_holds_goes_only_where_its_client_may_send() {
    let rules = rules(&[
        ("sender", ".*", "Queues", &["Write"]),
        ("consumer", ".*", "Queues", &["Read"]),
    ]);
    let gateway = Gateway::secured(security(None, Some(rules))).await;
    let Held {
        mut client,
        queue,
        holding: _holding,
        id,
    } = held(&gateway, 1).await;
    let target = unique("target");
    for kind in [Type::ReQueueAll, Type::ReQueueRange] {
        let denied = elsewhere(&mut client, kind, of(&id, &[1], &target)).await;
        assert_eq!(denied.unwrap().error, DENIED);
    }
    assert_eq!(
        elsewhere(&mut client, Type::AckAll, of(&id, &[], "")).await,
        None
    );
    assert_eq!(counts(&gateway, &queue).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_stream_that_held_it_a_transaction_is_gone() {
    let gateway = Gateway::start().await;
    let Held {
        mut client,
        queue,
        mut holding,
        id,
    } = held(&gateway, 2).await;
    holding.half_close();
    holding.end().await.unwrap();
    let mut asking = Downstream::open(&mut client).await;
    assert_strange(&mut asking, &id).await;
    assert_eq!(
        bodies(&asking.get(&queue, 2, true).await.messages),
        ["1", "2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reached_the_server_is_settled_though_its_stream_is_cancelled() {
    let gateway = Gateway::start().await;
    let Held {
        mut client,
        queue,
        holding: _holding,
        id,
    } = held(&gateway, 2).await;
    let mut asking = Downstream::open(&mut client).await;
    asking.settle(Type::AckAll, &id, &[]).await;
    // Refused without waiting for what came before it, which has arrived by then.
    asking.settle(Type::AckAll, "nothing", &[]).await;
    assert_eq!(asking.answer().await.error, UNKNOWN);
    drop(asking);
    soon(async {
        while leased(&gateway, &queue).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(counts(&gateway, &queue).await, (0, 0));
}
