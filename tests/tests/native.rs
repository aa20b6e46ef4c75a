//! The native protocol on the real server: what was acknowledged outlives it, and is stored once.

use std::time::Duration;

use flotilla_tests::native::broker_client::BrokerClient;
use flotilla_tests::native::subscribe_request::{Kind as Say, Open, open};
use flotilla_tests::native::subscribe_response::Kind as Hear;
use flotilla_tests::native::{PublishRequest, PublishResponse, Record, SubscribeRequest};
use flotilla_tests::server::{Options, Server};
use flotilla_tests::workdir::WorkDir;
use tokio_stream::StreamExt;

const BATCHES: u64 = 20;
const RECORDS: u64 = 50;

type Failure = Box<dyn std::error::Error>;

fn batch(number: u64) -> PublishRequest {
    let first = number * RECORDS;
    let body = |number: u64| Record {
        body: number.to_string().into_bytes().into(),
        ..Record::default()
    };
    PublishRequest {
        batch: number,
        topic: "orders".to_owned(),
        records: (first..first + RECORDS).map(body).collect(),
        producer: "shop".to_owned(),
        first_sequence: first,
        ..PublishRequest::default()
    }
}

async fn client(server: &Server) -> Result<BrokerClient<tonic::transport::Channel>, Failure> {
    Ok(BrokerClient::connect(format!("http://{}", server.kubemq())).await?)
}

/// Publishes all batches, several under way at a time.
async fn publish(server: &Server) -> Result<Vec<PublishResponse>, Failure> {
    let batches = tokio_stream::iter((0..BATCHES).map(batch));
    let answers = client(server).await?.publish(batches).await?.into_inner();
    Ok(answers.collect::<Result<_, _>>().await?)
}

/// Reads all records from the first on.
async fn read(server: &Server) -> Result<Vec<String>, Failure> {
    let open = SubscribeRequest {
        kind: Some(Say::Open(Open {
            topic: "orders".to_owned(),
            start: Some(open::Start::First(true)),
            ..Open::default()
        })),
    };
    let says = tokio_stream::once(open).chain(tokio_stream::pending());
    let mut frames = client(server).await?.subscribe(says).await?.into_inner();
    let mut texts = Vec::new();
    while texts.len() < (BATCHES * RECORDS) as usize {
        let frame = frames.message().await?.ok_or("the stream ended")?;
        if let Some(Hear::Deliveries(frame)) = frame.kind {
            for delivery in frame.deliveries {
                let record = delivery.record.ok_or("a delivery without a record")?;
                texts.push(String::from_utf8(record.body.to_vec())?);
            }
        }
    }
    Ok(texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_server_and_is_stored_once() -> Result<(), Failure> {
    let work = WorkDir::new("native");
    let options = Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
    let mut server = options.start()?;
    let all: Vec<u64> = (1..=BATCHES * RECORDS).collect();
    for is_repeated in [false, true] {
        let answers = tokio::time::timeout(Duration::from_secs(60), publish(&server)).await??;
        let offsets: Vec<u64> = answers
            .iter()
            .flat_map(|answer| answer.offsets.clone())
            .collect();
        assert_eq!(offsets, all);
        for answer in answers {
            assert!(answer.error.is_none() && answer.errors.is_empty());
            let repeats = if is_repeated { RECORDS } else { 0 };
            assert_eq!(answer.duplicates.len() as u64, repeats);
        }
        server.kill()?;
        server = options.start()?;
    }
    let texts = tokio::time::timeout(Duration::from_secs(60), read(&server)).await??;
    let expected: Vec<String> = (0..BATCHES * RECORDS).map(|n| n.to_string()).collect();
    assert_eq!(texts, expected);
    let status = server.terminate()?;
    assert!(status.success(), "the server ended with {status}");
    Ok(())
}
