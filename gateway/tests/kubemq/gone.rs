//! A client that is gone without a word: its machine lost its power, or the network between.

use std::net::SocketAddr;
use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::ReceiveQueueMessagesRequest;
use tokio::io::copy;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Downstream, Gateway, client_of, fill, leased, sequences, soon, unique};

/// How long a client may leave a ping of the server without an answer, with the time between two pings.
const KNOWN_WITHIN: Duration = Duration::from_millis(400);

/// A way to a server that can be cut: nothing comes through any more, and nobody is told.
async fn a_way_to(server: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (from_client, to_client) = client.into_split();
            let Ok(server) = TcpStream::connect(server).await else {
                // It has ended with its test.
                return;
            };
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass_on(from_client, to_server, is_cut.clone()));
            tokio::spawn(pass_on(from_server, to_client, is_cut.clone()));
        }
    });
    (address, cut)
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let is_over = tokio::select! {
        _ = copy(&mut from, &mut to) => true,
        cut = is_cut.wait_for(|is_cut| *is_cut) => cut.is_err(),
    };
    if !is_over {
        // Both sides stay open.
        std::future::pending::<()>().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_held_that_is_gone_without_a_word_is_given_to_others() {
    let config = KubemqConfig {
        keepalive_interval: KNOWN_WITHIN / 2,
        keepalive_wait_max: KNOWN_WITHIN / 2,
        ..KubemqConfig::default()
    };
    let gateway = Gateway::with(config).await;
    let (way, cut) = a_way_to(gateway.address).await;
    let (mut gone, mut other) = (client_of(way).await, gateway.client().await);
    let (queue, polled) = (unique("q"), unique("polled"));
    fill(&mut other, &queue, 3).await;
    let mut holding = Downstream::open(&mut gone).await;
    assert_eq!(holding.get(&queue, 3, false).await.messages.len(), 3);
    let polling = tokio::spawn({
        let (mut gone, queue) = (gone.clone(), polled.clone());
        async move {
            let request = ReceiveQueueMessagesRequest {
                client_id: "consumer".to_owned(),
                channel: queue,
                max_number_of_messages: 1,
                wait_time_seconds: 3_000,
                ..ReceiveQueueMessagesRequest::default()
            };
            gone.receive_queue_messages(request).await
        }
    });
    // It answers the server's pings as long as there is a way.
    tokio::time::sleep(3 * KNOWN_WITHIN).await;
    assert_eq!(leased(&gateway, &queue).await, 3);

    cut.send_replace(true);
    soon(async {
        while leased(&gateway, &queue).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut downstream = Downstream::open(&mut other).await;
    let again = downstream.get(&queue, 3, true).await;
    assert_eq!(sequences(&again.messages), [1, 2, 3]);
    for message in &again.messages {
        assert_eq!(message.attributes.as_ref().unwrap().receive_count, 2);
    }
    // Its poll takes nothing any more.
    fill(&mut other, &polled, 1).await;
    let left = downstream.get(&polled, 1, true).await;
    assert_eq!(
        left.messages[0].attributes.as_ref().unwrap().receive_count,
        1
    );
    polling.abort();
}
