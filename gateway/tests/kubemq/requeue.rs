//! Messages that a consumer sends on from its downstream to another queue.

use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequest;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_model::name::Name;

use crate::support::{Downstream, Gateway, bodies, fill, sequences, unique};

async fn requeue(
    downstream: &Downstream,
    kind: Type,
    transaction: &str,
    target: &str,
    sequences: &[i64],
) {
    let request = QueuesDownstreamRequest {
        request_id: "requeue".to_owned(),
        ref_transaction_id: transaction.to_owned(),
        re_queue_channel: target.to_owned(),
        sequence_range: sequences.to_vec(),
        ..QueuesDownstreamRequest::default()
    };
    downstream.send(kind, request).await;
}

async fn is_complete(downstream: &mut Downstream, transaction: &str) -> bool {
    downstream
        .settle(Type::TransactionStatus, transaction, &[])
        .await;
    let status = downstream.answer().await;
    assert!(!status.is_error, "{}", status.error);
    assert_eq!(status.request_type_data, Type::TransactionStatus as i32);
    status.transaction_complete
}

#[tokio::test(flavor = "multi_thread")]
async fn some_messages_and_then_the_rest_go_to_other_queues_in_silence() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    // Of as many targets some are in the other shard.
    for _ in 0..8 {
        let (queue, some, rest) = (unique("q"), unique("some"), unique("rest"));
        fill(&mut client, &queue, 5).await;
        let mut downstream = Downstream::open(&mut client).await;
        let got = downstream.get(&queue, 5, false).await;
        let id = got.transaction_id;
        requeue(&downstream, Type::ReQueueRange, &id, &some, &[4, 2]).await;
        assert!(!is_complete(&mut downstream, &id).await);
        requeue(&downstream, Type::ReQueueAll, &id, &rest, &[]).await;
        assert!(is_complete(&mut downstream, &id).await);
        for (target, expected) in [(&some, vec!["2", "4"]), (&rest, vec!["1", "3", "5"])] {
            let got = downstream.get(target, expected.len() as i32, true).await;
            assert_eq!(bodies(&got.messages), expected);
            let all: Vec<i64> = (1..=expected.len() as i64).collect();
            assert_eq!(sequences(&got.messages), all);
            for message in &got.messages {
                let attributes = message.attributes.as_ref().unwrap();
                assert!(attributes.re_routed);
                assert_eq!(attributes.re_routed_from_queue, queue);
                assert_eq!(attributes.receive_count, 1);
            }
        }
        let name = Name::queue(&queue).unwrap();
        assert_eq!(gateway.broker.queue(&name).await.unwrap().messages, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_requeue_is_told_and_moves_only_what_came_before_the_mistake() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (queue, target) = (unique("q"), unique("target"));
    fill(&mut client, &queue, 3).await;
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 3, false).await;
    let id = got.transaction_id;
    let bad_name = "Error 120: invalid queue name value, cannot be empty, contains wildcards ,white spaces and end with dot";
    let unknown = "transaction is completed or transaction id not found";
    for (kind, transaction, to, numbers, text) in [
        (
            Type::ReQueueAll,
            id.as_str(),
            "",
            vec![],
            "cannot requeue messages with empty channel destination ",
        ),
        (
            Type::ReQueueRange,
            &id,
            "",
            vec![1],
            "cannot requeue messages with empty channel destination ",
        ),
        (Type::ReQueueAll, &id, "a b", vec![], bad_name),
        (Type::ReQueueAll, "nothing", &target, vec![], unknown),
        (
            Type::ReQueueRange,
            &id,
            &target,
            vec![],
            "cannot requeue empty list of of offsets",
        ),
        (
            Type::ReQueueRange,
            &id,
            &target,
            vec![1, 99, 2],
            "invalid ack sequence id 99",
        ),
    ] {
        requeue(&downstream, kind, transaction, to, &numbers).await;
        let refused = downstream.answer().await;
        assert!(refused.is_error);
        assert_eq!(refused.error, text);
        assert_eq!(refused.request_type_data, kind as i32);
        assert_eq!(refused.ref_request_id, "requeue");
    }
    downstream.settle(Type::ActiveOffsets, &id, &[]).await;
    assert_eq!(downstream.answer().await.active_offsets, [2, 3]);
    let moved = downstream.get(&target, 1, true).await;
    assert_eq!(bodies(&moved.messages), ["1"]);
    requeue(
        &downstream,
        Type::ReQueueAll,
        &moved.transaction_id,
        &target,
        &[],
    )
    .await;
    assert_eq!(
        downstream.answer().await.error,
        "cannot requeue messages with closed response "
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_go_back_to_the_queue_it_came_from() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 2).await;
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 1, false).await;
    requeue(
        &downstream,
        Type::ReQueueAll,
        &got.transaction_id,
        &queue,
        &[],
    )
    .await;
    let again = downstream.get(&queue, 2, true).await;
    assert_eq!(bodies(&again.messages), ["2", "1"]);
    let attributes = again.messages[1].attributes.as_ref().unwrap();
    assert_eq!((attributes.sequence, attributes.receive_count), (3, 1));
}
