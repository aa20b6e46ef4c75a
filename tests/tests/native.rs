//! The native protocol on the real server: what was acknowledged outlives it, and is stored once; requests are
//! answered as long as it lives.

use std::time::Duration;

use flotilla_tests::native::broker_client::BrokerClient;
use flotilla_tests::native::error::Code;
use flotilla_tests::native::reply_batch::item::Outcome;
use flotilla_tests::native::request_batch::Item;
use flotilla_tests::native::serve_request::reply::Outcome as Answer;
use flotilla_tests::native::serve_request::{Open as Serve, Reply};
use flotilla_tests::native::subscribe_request::{Kind as Say, Open, open};
use flotilla_tests::native::subscribe_response::Kind as Hear;
use flotilla_tests::native::{
    PublishRequest, PublishResponse, Record, ReplyBatch, RequestBatch, ServeRequest,
    SubscribeRequest,
};
use flotilla_tests::server::{Options, Server};
use flotilla_tests::workdir::WorkDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

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

const REQUESTS: u64 = 64;
/// For anything that should come at once; a loaded machine may be slow.
const SOON: Duration = Duration::from_secs(20);

/// Serves a name: says again what it is asked, but answers "hold" never. Resolves with how its stream ended.
async fn echo(server: &Server, name: &str) -> Result<JoinHandle<Option<Status>>, Failure> {
    let (frames, says) = mpsc::channel(64);
    let open = Serve {
        pattern: name.to_owned(),
        group: "echoes".to_owned(),
        ..Serve::default()
    };
    let first = ServeRequest {
        open: Some(open),
        replies: Vec::new(),
    };
    frames.send(first).await?;
    let says = ReceiverStream::new(says);
    let mut calls = client(server).await?.serve(says).await?.into_inner();
    let first = calls.message().await?.ok_or("the stream ended")?;
    first.opened.ok_or("it is not open")?;
    Ok(tokio::spawn(async move {
        loop {
            let frame = match calls.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return None,
                Err(status) => return Some(status),
            };
            let held = |record: &Record| record.body == "hold";
            let replies = frame.calls.into_iter().filter_map(|call| {
                let record = call.record.filter(|record| !held(record))?;
                Some(Reply {
                    call: call.call,
                    outcome: Some(Answer::Record(record)),
                })
            });
            let frame = ServeRequest {
                open: None,
                replies: replies.collect(),
            };
            // The end of the calls tells why.
            let _ = frames.send(frame).await;
        }
    }))
}

fn question(request: u64, name: &str, body: &str) -> Item {
    Item {
        request,
        name: name.to_owned(),
        timeout_ms: 60_000,
        record: Some(Record {
            body: body.to_owned().into(),
            ..Record::default()
        }),
        ..Item::default()
    }
}

/// What becomes of the next requests, each under its number.
async fn outcomes(
    replies: &mut Streaming<ReplyBatch>,
    count: u64,
) -> Result<Vec<(u64, Outcome)>, Failure> {
    let mut outcomes = Vec::new();
    while (outcomes.len() as u64) < count {
        let batch = tokio::time::timeout(SOON, replies.message()).await??;
        for item in batch.ok_or("the stream ended")?.replies {
            outcomes.push((item.request, item.outcome.ok_or("no outcome")?));
        }
    }
    outcomes.sort_by_key(|(request, _)| *request);
    Ok(outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_until_the_server_goes_and_when_it_is_back() -> Result<(), Failure> {
    let work = WorkDir::new("native-requests");
    let options = Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
    for _ in 0..2 {
        let server = options.start()?;
        let echo = echo(&server, "echo").await?;
        let (frames, asks) = mpsc::channel(64);
        let asks = ReceiverStream::new(asks);
        let mut replies = client(&server).await?.request(asks).await?.into_inner();
        for request in 0..REQUESTS {
            let requests = vec![question(request, "echo", &request.to_string())];
            frames.send(RequestBatch { requests }).await?;
        }
        for (request, outcome) in outcomes(&mut replies, REQUESTS).await? {
            let Outcome::Record(record) = outcome else {
                return Err(format!("request {request}: {outcome:?}").into());
            };
            assert_eq!(record.body, request.to_string());
        }
        // Both come to the node, and only one of them to somebody.
        let requests = vec![question(1, "echo", "hold"), question(2, "nobody", "?")];
        frames.send(RequestBatch { requests }).await?;
        let (request, outcome) = outcomes(&mut replies, 1).await?.remove(0);
        let Outcome::Error(error) = outcome else {
            return Err(format!("request {request}: {outcome:?}").into());
        };
        assert_eq!((request, error.code()), (2, Code::NoResponder));

        let status = server.terminate()?;
        assert!(status.success(), "the server ended with {status}");
        let unanswered = tokio::time::timeout(SOON, replies.message()).await?;
        let status = unanswered.expect_err("nobody replied");
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
        let ended = tokio::time::timeout(SOON, echo).await??;
        let status = ended.ok_or("the server left without a word")?;
        assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    }
    Ok(())
}
