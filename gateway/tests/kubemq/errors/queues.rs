//! Of queue messages and unary receives.

use flotilla_gateway::kubemq::protocol::{
    AckAllQueueMessagesRequest, QueueMessage, QueueMessagePolicy, QueueMessagesBatchRequest,
    QueuesUpstreamRequest, ReceiveQueueMessagesRequest,
};
use tonic::Code;

use super::{CHANNELS, CLIENT_LONG, E101, E110, E120, E122, E133, E134, E135, E136, long, rows};
use crate::support::{Gateway, a_message, soon, unique};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_queue_messages_are_refused_on_every_call_each_alone() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let right = QueueMessage {
        policy: Some(QueueMessagePolicy::default()),
        ..a_message(&unique("q"), 7)
    };
    let policy = |message: &mut QueueMessage| message.policy.take().unwrap();
    let mut cases = rows(
        &right,
        &[
            (E101, |one: &mut QueueMessage| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E110, |one| one.body.clear()),
            (E133, |one| {
                one.policy.as_mut().unwrap().expiration_seconds = -1
            }),
            (E133, |one| {
                one.policy.as_mut().unwrap().expiration_seconds = 43_201
            }),
            (E134, |one| {
                one.policy.as_mut().unwrap().max_receive_count = -1
            }),
            (E134, |one| {
                one.policy.as_mut().unwrap().max_receive_count = 1_025
            }),
            (E135, |one| one.policy.as_mut().unwrap().delay_seconds = -1),
            (E135, |one| {
                one.policy.as_mut().unwrap().delay_seconds = 43_201
            }),
        ],
    );
    for (channel, _) in CHANNELS {
        let channel = channel.to_owned();
        if !channel.is_empty() {
            let mut dead = right.clone();
            let max_receive_queue = channel.clone();
            dead.policy = Some(QueueMessagePolicy {
                max_receive_queue,
                ..policy(&mut dead)
            });
            cases.push((dead, E120.to_owned()));
        }
        cases.push((
            QueueMessage {
                channel,
                ..right.clone()
            },
            E120.to_owned(),
        ));
    }
    for (wrong, text) in cases {
        let sent = client
            .send_queue_message(wrong.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!((sent.is_error, &sent.error), (true, &text));
        assert_eq!(sent.message_id, "7");
        let messages = vec![right.clone(), wrong.clone()];
        let expected = [(false, String::new()), (true, text)];
        let batch = QueueMessagesBatchRequest {
            batch_id: "b".to_owned(),
            messages: messages.clone(),
        };
        let batch = client
            .send_queue_messages_batch(batch)
            .await
            .unwrap()
            .into_inner();
        assert!(batch.have_errors);
        let results = batch.results.into_iter();
        let told: Vec<_> = results.map(|one| (one.is_error, one.error)).collect();
        assert_eq!(told, expected);
        let request = QueuesUpstreamRequest {
            request_id: "u".to_owned(),
            messages,
        };
        let answers = client
            .queues_upstream(futures::stream::iter([request]))
            .await;
        let answer = soon(answers.unwrap().into_inner().message()).await;
        let answer = answer.unwrap().unwrap();
        assert!(!answer.is_error);
        let results = answer.results.into_iter();
        let told: Vec<_> = results.map(|one| (one.is_error, one.error)).collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_batches_have_texts_of_their_own() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let refused = client.send_queue_messages_batch(QueueMessagesBatchRequest::default());
    let refused = refused.await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unknown, "empty messages batch")
    );
    let request = QueuesUpstreamRequest::default();
    let answers = client
        .queues_upstream(futures::stream::iter([request]))
        .await;
    let answer = soon(answers.unwrap().into_inner().message()).await;
    let answer = answer.unwrap().unwrap();
    assert_eq!(
        (answer.is_error, &answer.error[..]),
        (true, "no messages to send")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_receives_are_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let right = ReceiveQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        channel: "a".to_owned(),
        max_number_of_messages: 1,
        ..ReceiveQueueMessagesRequest::default()
    };
    let mut cases = rows(
        &right,
        &[
            (E101, |one: &mut ReceiveQueueMessagesRequest| {
                one.client_id.clear()
            }),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E122, |one| one.max_number_of_messages = 0),
            (E122, |one| one.max_number_of_messages = -1),
            (E122, |one| one.max_number_of_messages = 1_025),
            (E136, |one| one.wait_time_seconds = -1),
            (E136, |one| one.wait_time_seconds = 3_601),
        ],
    );
    for (channel, _) in CHANNELS {
        let channel = channel.to_owned();
        let wrong = ReceiveQueueMessagesRequest {
            channel,
            ..right.clone()
        };
        cases.push((wrong, E120.to_owned()));
    }
    for (request, text) in cases {
        for is_peak in [false, true] {
            let request = ReceiveQueueMessagesRequest {
                is_peak,
                ..request.clone()
            };
            let answer = client
                .receive_queue_messages(request)
                .await
                .unwrap()
                .into_inner();
            assert_eq!((answer.is_error, &answer.error), (true, &text));
            assert_eq!(answer.request_id, "r");
        }
    }
    let right = AckAllQueueMessagesRequest {
        request_id: "r".to_owned(),
        client_id: "c".to_owned(),
        channel: "a".to_owned(),
        wait_time_seconds: 0,
    };
    let cases = rows(
        &right,
        &[
            (E101, |one: &mut AckAllQueueMessagesRequest| {
                one.client_id.clear()
            }),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E120, |one| one.channel.clear()),
            (E120, |one| one.channel.push('.')),
            (E136, |one| one.wait_time_seconds = -1),
            (E136, |one| one.wait_time_seconds = 3_601),
        ],
    );
    for (request, text) in cases {
        let answer = client
            .ack_all_queue_messages(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((answer.is_error, answer.error), (true, text));
    }
}
