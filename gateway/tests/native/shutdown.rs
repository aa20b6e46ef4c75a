//! The end of a gateway, and frames that are none.

use bytes::Bytes;
use flotilla_gateway::native::protocol::consume_request::Lease;
use flotilla_gateway::native::protocol::subscribe_request::Open;
use flotilla_gateway::native::protocol::{ConsumeRequest, ListenRequest, SignalRequest};
use tonic::Code;

use crate::requests::{asking, calls, serve};
use crate::support::{Gateway, a_batch, a_sending, fill, opening, records, soon, unique};

#[tokio::test(flavor = "multi_thread")]
async fn all_streams_end_with_unavailable_and_leases_go_back() {
    let mut gateway = Gateway::start().await;
    let (topic, queue) = (unique("t"), unique("q"));
    fill(&gateway, &queue, 1..3).await;
    let mut publishes = gateway.publish().await;
    publishes.ask(a_batch(1, &topic, records(0..1))).await;
    let mut sends = gateway.send().await;
    sends.ask(a_sending(1, &unique("q"), records(0..1))).await;
    let mut reader = gateway.subscribe().await;
    let open = Open {
        topic,
        ..Open::default()
    };
    reader.ask(opening(open)).await;
    let mut listener = gateway.listen().await;
    let pattern = ListenRequest {
        pattern: "a".to_owned(),
        ..ListenRequest::default()
    };
    listener.ask(pattern).await;
    let mut signals = gateway.signal().await;
    let signal = SignalRequest {
        name: "b".to_owned(),
        records: records(0..1),
        ..SignalRequest::default()
    };
    signals.ask(signal).await;
    let name = unique("r");
    let mut responder = serve(&gateway, &name, "", 0).await;
    let mut requester = gateway.request().await;
    requester.say(asking(&name, 1..2)).await;
    calls(&mut responder, 1).await;
    let mut unopened = gateway.subscribe().await;
    let mut consumer = gateway.consume().await;
    let leases = ["idle", &queue].map(|queue| Lease {
        queue: queue.to_owned(),
        messages_max: 5,
        wait_ms: 3_600_000,
        ..Lease::default()
    });
    let request = ConsumeRequest {
        leases: leases.to_vec(),
        ..ConsumeRequest::default()
    };
    assert_eq!(consumer.ask(request).await.leased[0].messages.len(), 2);

    gateway.stop();
    let ends = [
        publishes.end().await,
        sends.end().await,
        reader.end().await,
        listener.end().await,
        signals.end().await,
        responder.end().await,
        requester.end().await,
        unopened.end().await,
        consumer.end().await,
    ];
    for end in ends {
        let status = end.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "the server is shutting down");
    }
    let broker = gateway.broker.clone();
    gateway.ended().await.unwrap();
    let name = flotilla_model::name::Name::queue(&queue).unwrap();
    assert_eq!(broker.queue(&name).await.unwrap().leased, 0);
}

/// A stream that always has more must end too, with answers to what was stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_batches_ends_with_the_server() {
    let mut gateway = Gateway::start().await;
    let topic = unique("t");
    let mut client = gateway.client().await;
    let endless = futures::stream::repeat_with(move || a_batch(1, &topic, records(0..50)));
    let answers = soon(client.publish(endless)).await.unwrap();
    let mut answers = answers.into_inner();
    soon(answers.message()).await.unwrap().unwrap();
    gateway.stop();
    let status = soon(async {
        loop {
            if let Err(status) = answers.message().await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable);
    gateway.ended().await.unwrap();
}

/// A batch that is none.
#[derive(Clone, PartialEq, prost::Message)]
struct Garbage {
    #[prost(bytes = "bytes", tag = "4")]
    record: Bytes,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_none_ends_its_stream_and_says_so() {
    let gateway = Gateway::start().await;
    let mut client = tonic::client::Grpc::new(
        tonic::transport::Endpoint::from_shared(format!("http://{}", gateway.address))
            .unwrap()
            .connect()
            .await
            .unwrap(),
    );
    client.ready().await.unwrap();
    let path = "/flotilla.v1.Broker/Publish".parse().unwrap();
    // A record whose body is longer than the record.
    let garbage = futures::stream::iter([Garbage {
        record: Bytes::from_static(&[0x0a, 0x7f]),
    }]);
    let codec = tonic_prost::ProstCodec::<Garbage, Garbage>::default();
    let answers = client
        .streaming(tonic::Request::new(garbage), path, codec)
        .await
        .unwrap();
    let status = soon(answers.into_inner().message()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("records"), "{}", status.message());
    // The server is none the worse for it.
    let mut publishes = gateway.publish().await;
    let answer = publishes.ask(a_batch(1, "t", records(0..1))).await;
    assert_eq!(answer.offsets, [1]);
}
