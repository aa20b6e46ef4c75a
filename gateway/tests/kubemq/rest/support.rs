//! What the tests say to the REST and WebSocket listener.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Gateway, leased, soon};

/// Waits until a gauge of the broker says this.
pub async fn until_gauge(gateway: &Gateway, series: &str, wanted: u64) {
    soon(async {
        loop {
            let text = gateway.broker.metrics_text();
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
            if value == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Receivers that wait for messages.
pub const WAITING: &str = "flotilla_subscribers{kind=\"queue\"}";
/// Listeners to plain events.
pub const LISTENERS: &str = "flotilla_signal_listeners";

/// Waits until nobody holds a message of a queue.
pub async fn until_none_is_leased(gateway: &Gateway, queue: &str) {
    soon(async {
        while leased(gateway, queue).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let status = head.split(' ').nth(1).expect("a status");
        Self {
            status: status.parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// The envelope.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The data of a call that went well.
    pub fn data(&self) -> Value {
        let envelope = self.json();
        assert_eq!(self.status, 200, "{envelope}");
        assert_eq!(envelope["is_error"], false);
        assert_eq!(envelope["message"], "OK");
        envelope["data"].clone()
    }

    /// Status and text of one that did not.
    pub fn refused(&self) -> (u16, String) {
        let envelope = self.json();
        assert_eq!(envelope["is_error"], true, "{envelope}");
        assert_eq!(envelope["data"], Value::Null);
        (
            self.status,
            envelope["message"].as_str().unwrap().to_owned(),
        )
    }
}

/// Sends a request as it is written, and reads to the end of the connection.
pub async fn raw(address: SocketAddr, request: &str) -> Answer {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon(connection.read_to_string(&mut text)).await.unwrap();
    Answer::of(&text)
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    raw(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    )
    .await
}

pub async fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    raw(address, &a_post(path, body)).await
}

pub fn a_post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// A client's side of a WebSocket.
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        Self::try_open(address, path).await.unwrap()
    }

    /// The status and text of a refusal, if it is one.
    pub async fn try_open(address: SocketAddr, path: &str) -> Result<Self, (u16, String)> {
        let connection = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}{path}");
        match soon(tokio_tungstenite::client_async(url, connection)).await {
            Ok((socket, response)) => {
                assert_eq!(response.headers()["access-control-allow-origin"], "*");
                Ok(Self(socket))
            }
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
                let text = envelope["message"].as_str().unwrap_or_default();
                Err((response.status().as_u16(), text.to_owned()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    pub async fn say(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub async fn send(&mut self, message: Value) {
        self.say(Message::text(message.to_string())).await;
    }

    pub async fn next(&mut self) -> Value {
        loop {
            match soon(self.0.next()).await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn ask(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.next().await
    }

    /// The same to a server that may have closed it: whether it went out.
    pub async fn try_say(&mut self, message: Message) -> bool {
        self.0.send(message).await.is_ok()
    }

    /// What comes next, whatever it is; `None` when the connection is over.
    pub async fn any(&mut self) -> Option<Message> {
        soon(self.0.next()).await?.ok()
    }

    /// How the server closes it: code and reason. What comes before does not matter.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match soon(self.0.next()).await.unwrap().unwrap() {
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Message::Close(None) => return (1005, String::new()),
                _ => {}
            }
        }
    }

    /// Has the server answer a ping: it is there.
    pub async fn pinged_back(&mut self) {
        self.say(Message::Ping(vec![1].into())).await;
        loop {
            if let Message::Pong(_) = soon(self.0.next()).await.unwrap().unwrap() {
                return;
            }
        }
    }

    /// The next ping of the server.
    pub async fn pinged(&mut self) {
        loop {
            if let Message::Ping(_) = soon(self.0.next()).await.unwrap().unwrap() {
                return;
            }
        }
    }

    /// The connection, for a client that does not keep to the protocol.
    pub fn into_connection(self) -> TcpStream {
        self.0.into_inner()
    }
}
