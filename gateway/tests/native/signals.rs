//! Signal and Listen.

use flotilla_gateway::native::protocol::error::Code;
use flotilla_gateway::native::protocol::listen_response::Kind;
use flotilla_gateway::native::protocol::{
    Ack, ListenRequest, ListenResponse, SignalDelivery, SignalRequest,
};

use crate::support::{Gateway, Talk, a_record, records, text_of, unique};

type Listener = Talk<ListenRequest, ListenResponse>;

async fn listen(gateway: &Gateway, pattern: &str, group: &str) -> Listener {
    let mut listener = gateway.listen().await;
    let request = ListenRequest {
        namespace: String::new(),
        pattern: pattern.to_owned(),
        group: group.to_owned(),
    };
    let first = listener.ask(request).await;
    assert!(matches!(first.kind, Some(Kind::Opened(_))));
    listener
}

/// So many signals, with their names written out.
async fn heard(listener: &mut Listener, count: usize) -> Vec<SignalDelivery> {
    let mut heard: Vec<SignalDelivery> = Vec::new();
    while heard.len() < count {
        let Some(Kind::Signals(frame)) = listener.hear().await.kind else {
            panic!("it was opened before");
        };
        assert!(!frame.signals[0].name.is_empty());
        let mut name = String::new();
        for mut signal in frame.signals {
            if signal.name.is_empty() {
                signal.name.clone_from(&name);
            } else {
                name.clone_from(&signal.name);
            }
            heard.push(signal);
        }
    }
    heard
}

fn signals(batch: u64, name: &str, numbers: std::ops::Range<u64>) -> SignalRequest {
    SignalRequest {
        batch,
        name: name.to_owned(),
        records: records(numbers),
        ..SignalRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_hears_all_signals_of_the_pattern_in_order() {
    let gateway = Gateway::start().await;
    let prefix = unique("s");
    let mut all = listen(&gateway, &format!("{prefix}.>"), "").await;
    let mut one = listen(&gateway, &format!("{prefix}.b"), "").await;
    // A client that has nothing more to say goes on listening.
    one.half_close();
    let mut sender = gateway.signal().await;
    for (batch, name) in [(1, "a"), (2, "b"), (3, "b")] {
        let name = format!("{prefix}.{name}");
        let answer = sender
            .ask(signals(batch, &name, batch * 10..batch * 10 + 10))
            .await;
        assert_eq!((answer.batch, answer.error), (batch, None));
    }
    let heard_by_all = heard(&mut all, 30).await;
    for (number, signal) in (10u64..).zip(&heard_by_all) {
        let name = if number < 20 { "a" } else { "b" };
        assert_eq!(signal.name, format!("{prefix}.{name}"));
        assert_eq!(signal.record, Some(a_record(&number.to_string())));
    }
    let heard_by_one = heard(&mut one, 20).await;
    assert_eq!(heard_by_one, heard_by_all[10..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_the_signals() {
    let gateway = Gateway::start().await;
    let name = unique("s");
    let mut one = listen(&gateway, &name, "g").await;
    let mut two = listen(&gateway, &name, "g").await;
    let mut sender = gateway.signal().await;
    sender.ask(signals(1, &name, 0..20)).await;
    let mut texts: Vec<u64> = Vec::new();
    for listener in [&mut one, &mut two] {
        for signal in heard(listener, 10).await {
            texts.push(text_of(&signal.record.unwrap()).parse().unwrap());
        }
    }
    texts.sort_unstable();
    assert_eq!(texts, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_failures_are_told_when_no_answer_is_wanted() {
    let gateway = Gateway::start().await;
    let name = unique("s");
    let mut listener = listen(&gateway, &name, "").await;
    let mut sender = gateway.signal().await;
    let unwanted = |request| SignalRequest {
        ack: Ack::None.into(),
        ..request
    };
    sender.say(unwanted(signals(1, &name, 0..1))).await;
    sender.say(unwanted(signals(2, "", 0..1))).await;
    sender.half_close();
    let answer = sender.hear().await;
    assert_eq!(answer.batch, 2);
    let error = answer.error.unwrap();
    assert_eq!(error.code(), Code::Invalid);
    assert_eq!(error.text, "a signal name must not be empty");
    sender.end().await.unwrap();
    assert_eq!(heard(&mut listener, 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_served_is_told_why() {
    let gateway = Gateway::start().await;
    let mut listener = gateway.listen().await;
    listener
        .say(ListenRequest {
            pattern: "a.>.b".to_owned(),
            ..ListenRequest::default()
        })
        .await;
    let status = listener.end().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    let mut listener = gateway.listen().await;
    listener
        .say(ListenRequest {
            pattern: "a".to_owned(),
            group: "g".repeat(1_025),
            ..ListenRequest::default()
        })
        .await;
    let status = listener.end().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().starts_with("the group has 1025 bytes"));
    let mut listener = listen(&gateway, "a", "").await;
    listener.say(ListenRequest::default()).await;
    let status = listener.end().await.unwrap_err();
    assert_eq!(status.message(), "only the first frame opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_count_in_the_frames_of_signals() {
    let gateway = Gateway::start().await;
    let prefix = unique("s");
    let mut listener = listen(&gateway, &format!("{prefix}.*"), "").await;
    let mut sender = gateway.signal().await;
    // The client's window takes the first of them. The others are given out together, and their names alone
    // are more than it reads in one frame.
    for batch in 0..135 {
        let token = if batch % 2 == 0 { "a" } else { "b" };
        let name = format!("{prefix}.{}", token.repeat(60_000));
        let answer = sender.ask(signals(batch, &name, 0..1)).await;
        assert_eq!(answer.error, None);
    }
    assert_eq!(heard(&mut listener, 135).await.len(), 135);
}
