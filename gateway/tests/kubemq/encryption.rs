//! Connections under TLS: who can speak, and that nobody holds up others.

use std::time::Duration;

use flotilla_gateway::KubemqConfig;
use flotilla_gateway::kubemq::protocol::Empty;
use flotilla_gateway::kubemq::protocol::kubemq_client::KubemqClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error};

use crate::certificates::{Authority, Identity};
use crate::encrypting::{connect, encrypted};
use crate::support::{Downstream, Gateway, bodies, fill, soon, unique};

async fn client(
    gateway: &Gateway,
    authority: &Authority,
    identity: Option<&Identity>,
) -> Result<KubemqClient<Channel>, Error> {
    let channel = soon(connect(gateway.address, authority, identity)).await?;
    Ok(KubemqClient::new(channel).max_decoding_message_size(200 << 20))
}

/// Whether somebody who connects like this can call.
async fn is_served(gateway: &Gateway, authority: &Authority, identity: Option<&Identity>) -> bool {
    match client(gateway, authority, identity).await {
        Ok(mut client) => soon(client.ping(Empty {})).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_encrypts_is_served_and_one_that_does_not_is_not() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let gateway = Gateway::secured(encrypted(&server, None)).await;
    let mut encrypting = client(&gateway, &authority, None).await.unwrap();
    let queue = unique("q");
    fill(&mut encrypting, &queue, 100).await;
    let mut downstream = Downstream::open(&mut encrypting).await;
    let got = downstream.get(&queue, 100, true).await;
    let expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got.messages), expected);

    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.address)).unwrap();
    let plain = soon(endpoint.connect()).await;
    if let Ok(channel) = plain {
        let answer = soon(KubemqClient::new(channel).ping(Empty {})).await;
        assert!(answer.is_err(), "an unencrypted call was answered");
    }
    assert!(
        !is_served(&gateway, &Authority::new(), None).await,
        "trusted whom it should not"
    );
    assert!(is_served(&gateway, &authority, None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_clients_need_certificates_only_those_with_a_right_one_are_served() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.server(&["localhost"]);
    let gateway = Gateway::secured(encrypted(&server, Some(&clients))).await;
    let right = clients.client();
    assert!(is_served(&gateway, &authority, Some(&right)).await);
    assert!(!is_served(&gateway, &authority, None).await);
    let wrong = Authority::new().client();
    assert!(!is_served(&gateway, &authority, Some(&wrong)).await);
    assert!(is_served(&gateway, &authority, Some(&right)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_or_fails_is_ended_and_holds_up_nobody() {
    let authority = Authority::new();
    let server = authority.server(&["localhost"]);
    let config = KubemqConfig {
        connections_max: 8,
        handshake_wait_max: Duration::from_secs(3),
        ..KubemqConfig::default()
    };
    let gateway = Gateway::secured_with(config, encrypted(&server, None)).await;
    let mut stalled = Vec::new();
    for number in 0..6_u8 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // Nothing at all, or the beginning of a handshake, or what is none.
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => &[22, 3, 1, 2, 0, 1],
            _ => b"GET / HTTP/1.1\r\n\r\n",
        };
        stream.write_all(said).await.unwrap();
        stalled.push(stream);
    }
    assert!(
        is_served(&gateway, &authority, None).await,
        "others wait for them"
    );
    for mut stream in stalled {
        // An alert perhaps, then the end.
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    // All their places are free again.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = client(&gateway, &authority, None).await.unwrap();
        soon(client.ping(Empty {})).await.unwrap();
        clients.push(client);
    }
}
