//! Which node a client is connected to.

use super::protocol::kubemq_client::KubemqClient;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// A node that does not even answer pings is left.
const PING_EVERY: Duration = Duration::from_secs(1);
const PONG_WITHIN: Duration = Duration::from_secs(2);
/// Away from home for at most this long.
const AWAY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

pub type Client = KubemqClient<Channel>;

/// The connection of one client, to its home node while that works.
pub struct Route {
    nodes: Vec<SocketAddr>,
    home: usize,
    present: usize,
    client: Option<Client>,
    left_home: Option<Instant>,
}

impl Route {
    pub fn new(nodes: &[SocketAddr], home: usize) -> Self {
        let home = home % nodes.len();
        Self {
            nodes: nodes.to_vec(),
            home,
            present: home,
            client: None,
            left_home: None,
        }
    }

    /// The number of the node that it is connected to, from 1.
    pub fn node(&self) -> u32 {
        self.present as u32 + 1
    }

    /// A client of some node; none when nobody could be reached now.
    pub async fn client(&mut self) -> Option<Client> {
        if self.left_home.is_some_and(|at| at.elapsed() > AWAY) {
            self.left_home = None;
            self.client = None;
            self.present = self.home;
        }
        if let Some(client) = &self.client {
            return Some(client.clone());
        }
        match connect(self.nodes[self.present]).await {
            Ok(client) => {
                self.client = Some(client.clone());
                Some(client)
            }
            Err(_) => {
                self.leave().await;
                None
            }
        }
    }

    /// Goes to the next node, after a moment.
    pub async fn leave(&mut self) {
        self.client = None;
        self.present = (self.present + 1) % self.nodes.len();
        if self.present != self.home {
            self.left_home.get_or_insert_with(Instant::now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Connects to one node.
pub async fn connect(node: SocketAddr) -> Result<Client, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{node}"))?
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(Client::new(endpoint.connect().await?).max_decoding_message_size(64 << 20))
}
