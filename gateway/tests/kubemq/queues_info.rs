//! Figures of queues.

use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_gateway::kubemq::protocol::{QueueInfo, QueuesInfo, QueuesInfoRequest};
use tonic::Code;

use crate::support::{Client, Downstream, Gateway, a_get, a_message, fill, soon, unique};

async fn info(client: &mut Client, names: &str) -> QueuesInfo {
    let request = QueuesInfoRequest {
        request_id: "r".to_owned(),
        queue_name: names.to_owned(),
    };
    let answer = soon(client.queues_info(request)).await.unwrap();
    assert_eq!(answer.get_ref().ref_request_id, "r");
    answer.into_inner().info.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_told_by_name_or_all_with_their_sums() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    assert_eq!(info(&mut client, "").await, QueuesInfo::default());
    let names: Vec<String> = (0..40).map(|number| format!("q-{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        fill(&mut client, name, number % 3 + 1).await;
    }
    let all = info(&mut client, "").await;
    let told: Vec<&String> = all.queues.iter().map(|queue| &queue.name).collect();
    assert_eq!(told, names.iter().collect::<Vec<_>>());
    let sent: i64 = all.queues.iter().map(|queue| queue.sent).sum();
    assert_eq!((all.total_queue, all.sent, all.waiting), (40, sent, sent));
    assert_eq!(all.delivered, 0);
    let some = info(&mut client, "q-05; q-01;never-used;q-05").await;
    let told: Vec<&str> = some
        .queues
        .iter()
        .map(|queue| queue.name.as_str())
        .collect();
    assert_eq!(told, ["q-01", "q-05"]);
    assert_eq!((some.total_queue, some.sent), (2, 5));
    let refused = client
        .queues_info(QueuesInfoRequest {
            request_id: String::new(),
            queue_name: "a;b c".to_owned(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(refused.message().starts_with("Error 120"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_follow_what_happens_to_the_messages() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let queue = unique("q");
    fill(&mut client, &queue, 5).await;
    let mut delayed = a_message(&queue, 6);
    delayed.policy = Some(flotilla_gateway::kubemq::protocol::QueueMessagePolicy {
        delay_seconds: 600,
        ..Default::default()
    });
    client.send_queue_message(delayed).await.unwrap();
    let mut downstream = Downstream::open(&mut client).await;
    let got = downstream.get(&queue, 3, false).await;
    downstream
        .settle(Type::AckRange, &got.transaction_id, &[1, 2])
        .await;
    // Its answer comes once the settlement is made.
    downstream
        .settle(Type::TransactionStatus, &got.transaction_id, &[])
        .await;
    downstream.answer().await;
    let told = info(&mut client, &queue).await.queues.remove(0);
    let expected = QueueInfo {
        name: queue.clone(),
        messages: 4,
        bytes: told.bytes,
        first_sequence: 3,
        last_sequence: 5,
        sent: 6,
        delivered: 3,
        waiting: 2,
        subscribers: 0,
    };
    assert_eq!(told, expected);
    assert!(told.bytes > 0);
    let idle = unique("idle");
    fill(&mut client, &idle, 1).await;
    downstream.get(&idle, 1, true).await;
    downstream
        .send(Type::Get, a_get(&idle, 1, 600_000, false))
        .await;
    let told = soon(async {
        loop {
            let told = info(&mut client, &idle).await.queues.remove(0);
            if told.subscribers == 1 && told.messages == 0 {
                return told;
            }
        }
    })
    .await;
    assert_eq!((told.first_sequence, told.last_sequence), (0, 1));
}
