//! Calls and conversations, and who is not listened to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_model::ids::NodeId;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{CLUSTER, Node, SOON, echo, introduce};
use crate::identity::ClusterId;

use crate::net::{
    Lane, LinkVersions, LocalIdentity, PeerError, PeerIdentity, PeerService, ServiceId, Talk,
    TrySendError,
};

const LANES: [Lane; 3] = [Lane::Control, Lane::Append, Lane::Bulk];

async fn ask(from: &Node, to: u64, request: &'static [u8]) -> Result<Bytes, PeerError> {
    let request = Bytes::from_static(request);
    from.links
        .peers()
        .call(NodeId(to), Lane::Control, ServiceId::BROKER, request, SOON)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_on_every_lane() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    two.links.register(ServiceId::BROKER, echo());
    for lane in LANES {
        let request = Bytes::from(vec![5; 3 << 20]);
        let answer = one
            .links
            .peers()
            .call(NodeId(2), lane, ServiceId::BROKER, request.clone(), SOON)
            .await;
        assert_eq!(answer, Ok(request));
    }
    let refusal = ask(&one, 2, b"").await.unwrap_err();
    assert_eq!(
        refusal,
        PeerError::Refused {
            reason: "nothing to say to node 1".to_owned()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_keeps_its_order_and_ends_on_both_sides() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    two.links.register(ServiceId::BROKER, echo());
    let talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await
        .unwrap();
    let Talk {
        sender,
        mut receiver,
    } = talk;
    let frames = 2_000_u32;
    let sending = tokio::spawn(async move {
        for number in 0..frames {
            let mut frame = number.to_le_bytes().to_vec();
            frame.resize(4 + number as usize, 1);
            sender.send(Bytes::from(frame)).await.unwrap();
        }
    });
    for number in 0..frames {
        let frame = receiver.recv().await.unwrap().unwrap();
        assert_eq!(frame[..4], number.to_le_bytes());
        assert_eq!(frame.len(), 4 + number as usize);
    }
    sending.await.unwrap();
    // The sender is gone, so the other side ended, and so does this one.
    let end = tokio::time::timeout(SOON, receiver.recv()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_every_window_arrives() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    two.links.register(ServiceId::BROKER, echo());
    let mut talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await
        .unwrap();
    let frame = Bytes::from(vec![9; 100 << 20]);
    talk.sender.send(frame.clone()).await.unwrap();
    assert!(talk.receiver.recv().await.unwrap().unwrap() == frame);
}

/// Hands its conversations to the test, unread.
struct Holder(mpsc::Sender<Talk>);

impl PeerService for Holder {
    fn call(&self, _: PeerIdentity, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(std::future::pending())
    }

    fn talk(&self, _: PeerIdentity, talk: Talk) -> BoxFuture<'static, ()> {
        let talks = self.0.clone();
        Box::pin(async move {
            let _ = talks.send(talk).await;
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_makes_the_sender_wait() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    let (talks, mut held) = mpsc::channel(1);
    two.links
        .register(ServiceId::BROKER, Arc::new(Holder(talks)));
    let talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await
        .unwrap();
    let mut theirs = held.recv().await.unwrap();
    let frame = Bytes::from(vec![1; 64 << 10]);
    let mut sent = 0;
    let sent_max = (32 << 20) / frame.len();
    // Full for a while, not only until the transport has taken what it can.
    while tokio::time::timeout(Duration::from_millis(500), talk.sender.send(frame.clone()))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < sent_max, "nothing holds the sender back");
    }
    assert_eq!(
        talk.sender.try_send(frame.clone()),
        Err(TrySendError::Full(frame.clone()))
    );
    for _ in 0..sent {
        assert_eq!(theirs.receiver.recv().await.unwrap().unwrap(), frame);
    }
    drop(theirs);
    tokio::time::timeout(SOON, talk.sender.closed())
        .await
        .unwrap();
    assert!(talk.sender.send(frame).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_with_the_reason() {
    let one = Node::start(Some(CLUSTER), 1);
    let two = Node::start(Some(ClusterId([8; 16])), 2);
    introduce(&[&one, &two]);
    two.links.register(ServiceId::BROKER, echo());
    let Err(PeerError::Refused { reason }) = ask(&one, 2, b"hello").await else {
        panic!("it was not refused");
    };
    assert!(reason.contains(&CLUSTER.to_string()), "{reason}");
    assert!(reason.contains(&ClusterId([8; 16]).to_string()), "{reason}");
    let talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await;
    assert!(matches!(talk, Err(PeerError::Refused { .. })));
}

/// A node of a release that speaks these versions.
fn release(number: u64, oldest: u32, greeting: u32, newest: u32) -> Node {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let identity = LocalIdentity {
        cluster: Some(CLUSTER),
        node: NodeId(number),
        incarnation: 1,
        versions: LinkVersions {
            oldest,
            greeting,
            newest,
        },
    };
    let node = Node::start_as(listener, identity);
    node.links.register(ServiceId::BROKER, echo());
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_two_releases_speak_the_newest_version_that_both_know() {
    let (before, after) = (release(1, 1, 1, 2), release(2, 2, 2, 3));
    introduce(&[&before, &after]);
    let spoken = |from: &Node, to| from.links.caller(NodeId(to)).version;
    // Two releases apart, the older one is not understood before it has heard the newer one.
    let Err(PeerError::Refused { reason }) = ask(&before, 2, b"hello").await else {
        panic!("it was not refused");
    };
    let expected = "link protocol version 1 is not spoken here, this node speaks 2 to 3";
    assert_eq!(reason, expected);
    assert_eq!(ask(&after, 1, b"hello").await.unwrap(), "hello");
    assert_eq!((spoken(&before, 2), spoken(&after, 1)), (2, 2));
    assert_eq!(ask(&before, 2, b"hello").await.unwrap(), "hello");

    // The newer one goes back to the release before, and is understood as soon as it is heard.
    drop(after);
    let again = release(2, 1, 1, 1);
    let addresses = [(NodeId(1), before.address.to_string())].into();
    again.links.set_addresses(addresses);
    assert_eq!(ask(&again, 1, b"hello").await.unwrap(), "hello");
    assert_eq!(spoken(&before, 2), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_not_meant_refuses() {
    let (one, three) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 3));
    three.links.register(ServiceId::BROKER, echo());
    let addresses = [(NodeId(2), three.address.to_string())].into();
    one.links.set_addresses(addresses);
    let Err(PeerError::Refused { reason }) = ask(&one, 2, b"hello").await else {
        panic!("it was not refused");
    };
    assert_eq!(reason, "this is node 3, and node 2 was meant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_may_only_ask_how_to_find_one() {
    let (fresh, member) = (Node::start(None, 0), Node::start(Some(CLUSTER), 2));
    member.links.register(ServiceId::BROKER, echo());
    member.links.register(ServiceId::FORMING, echo());
    let address = member.address.to_string();
    let request = Bytes::from_static(b"hello");
    let answer = fresh
        .links
        .call_address(&address, ServiceId::FORMING, request.clone(), SOON)
        .await;
    assert_eq!(answer, Ok(request.clone()));
    let answer = fresh
        .links
        .call_address(&address, ServiceId::BROKER, request.clone(), SOON)
        .await;
    assert!(
        matches!(answer, Err(PeerError::Refused { .. })),
        "{answer:?}"
    );
    // Once it belongs to the cluster it is heard.
    fresh.identity.send_modify(|identity| {
        identity.cluster = Some(CLUSTER);
        identity.node = NodeId(1);
    });
    introduce(&[&fresh, &member]);
    assert_eq!(ask(&fresh, 2, b"hello").await, Ok(request));
}

/// Its bytes are not gathered before it is known who sends them.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_name_the_cluster_is_not_listened_to_at_length() {
    let (fresh, member) = (Node::start(None, 0), Node::start(Some(CLUSTER), 2));
    member.links.register(ServiceId::FORMING, echo());
    let address = member.address.to_string();
    let ask = |bytes: usize| {
        let request = Bytes::from(vec![5; bytes]);
        fresh
            .links
            .call_address(&address, ServiceId::FORMING, request, SOON)
    };
    assert!(ask(500 << 10).await.is_ok());
    let answer = ask(3 << 20).await;
    assert!(
        matches!(answer, Err(PeerError::Refused { .. })),
        "{answer:?}"
    );
    fresh
        .links
        .set_addresses([(NodeId(2), address.clone())].into());
    let talk = fresh
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::FORMING)
        .await;
    assert!(matches!(talk, Err(PeerError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_breaks_what_runs_and_is_found_again() {
    let one = Node::start(Some(CLUSTER), 1);
    let mut two = Node::start(Some(CLUSTER), 2);
    introduce(&[&one, &two]);
    two.links.register(ServiceId::BROKER, echo());
    let mut talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await
        .unwrap();
    let address = two.address;
    two.stop();
    let end = tokio::time::timeout(SOON, talk.receiver.recv())
        .await
        .unwrap();
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let refused = super::eventually("it is gone", async || ask(&one, 2, b"hello").await.err());
    assert!(matches!(refused.await, PeerError::Unreachable { .. }));
    let listener = super::eventually("the port is free", async || {
        std::net::TcpListener::bind(address).ok()
    })
    .await;
    let two = Node::start_on(listener, Some(CLUSTER), 2);
    two.links.register(ServiceId::BROKER, echo());
    super::eventually("it is back", async || ask(&one, 2, b"hello").await.ok()).await;
}

/// Takes connections and never says anything, as a stopped process does.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_is_noticed() {
    let one = Node::start(Some(CLUSTER), 1);
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [(NodeId(2), frozen.local_addr().unwrap().to_string())].into();
    one.links.set_addresses(addresses);
    let begin = Instant::now();
    let peers = one.links.peers();
    let talk = peers.talk(NodeId(2), Lane::Bulk, ServiceId::BROKER);
    let outcome = tokio::time::timeout(SOON, talk).await.unwrap();
    assert!(matches!(outcome, Err(PeerError::Unreachable { .. })));
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_timeout() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    let (talks, _held) = mpsc::channel(1);
    two.links
        .register(ServiceId::BROKER, Arc::new(Holder(talks)));
    let answer = one
        .links
        .peers()
        .call(
            NodeId(2),
            Lane::Control,
            ServiceId::BROKER,
            Bytes::from_static(b"hello"),
            Duration::from_millis(200),
        )
        .await;
    assert_eq!(answer, Err(PeerError::Timeout));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_cut_off_exchange_nothing() {
    let (one, two) = (Node::start(Some(CLUSTER), 1), Node::start(Some(CLUSTER), 2));
    introduce(&[&one, &two]);
    one.links.register(ServiceId::BROKER, echo());
    two.links.register(ServiceId::BROKER, echo());
    let mut talk = one
        .links
        .peers()
        .talk(NodeId(2), Lane::Bulk, ServiceId::BROKER)
        .await
        .unwrap();
    // At the other end, which takes no more from node 1 and says no more to it.
    two.links.cut(NodeId(1), true);
    let end = tokio::time::timeout(SOON, talk.receiver.recv())
        .await
        .unwrap();
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let outcome = ask(&one, 2, b"hello").await;
    assert!(
        matches!(outcome, Err(PeerError::Unreachable { .. })),
        "{outcome:?}"
    );
    let outcome = ask(&two, 1, b"hello").await;
    assert!(
        matches!(outcome, Err(PeerError::Unreachable { .. })),
        "{outcome:?}"
    );
    two.links.cut(NodeId(1), false);
    assert!(ask(&one, 2, b"hello").await.is_ok());
    assert!(ask(&two, 1, b"hello").await.is_ok());
}
