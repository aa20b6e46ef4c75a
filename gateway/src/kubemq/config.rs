//! Settings of the KubeMQ gateway. Their defaults are those of the servers its clients know.

use std::time::Duration;

use flotilla_model::LEASE_MESSAGES_MAX;

use super::rest::RestConfig;
use super::routing::Routes;
use crate::error::GatewayError;
use crate::transport::codec::MESSAGES_MAX;

const MIB: usize = 1024 * 1024;

/// Settings of the KubeMQ listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubemqConfig {
    /// What `Ping` names as its host: the node. Not empty.
    pub host: String,
    /// What `Ping` names as the server's version. The newest clients warn outside 2.4.0 to 2.6.0.
    pub version: String,
    /// Whether a reader of an Events Store channel goes on where its client id or group stopped
    /// (and the start position counts for new ones only), or always starts where it asks to.
    pub durable_resume: bool,
    /// Answer a queue receive this long after its first message; `None`: only when it is full or
    /// its wait time is over.
    pub receive_linger: Option<Duration>,
    /// End a stream of queues that was opened when the server had just begun to serve, and on which no request is
    /// there within this time: its client may believe that it is not connected. `None`: leave it.
    pub silence_after_start_max: Option<Duration>,
    /// Bounds of single requests, with error texts that name them.
    pub limits: KubemqLimits,
    /// A message taken through `QueuesDownstream` goes back to its queue when it is not settled
    /// after this long, even if its client is still connected.
    pub downstream_hold_max: Duration,
    /// Largest request that is read, in bytes.
    pub request_bytes_max: usize,
    /// Responses with several messages stay below this: the newest clients refuse more than 4 MiB.
    pub response_bytes_max: usize,
    /// Bytes of one stream on which queues are read that waiting receives may fetch, and that the client
    /// has not taken, together.
    pub downstream_bytes_max: usize,
    /// Connections at most; further ones are closed as they come.
    pub connections_max: usize,
    /// A connection that has not begun to speak after this long is closed.
    pub handshake_wait_max: Duration,
    /// Calls and streams of one connection at most; clients hold further ones back.
    pub streams_per_connection_max: u32,
    /// Requests of one stream that are read but not answered at most; further ones stay unread.
    pub requests_in_flight_max: usize,
    /// Request bytes of one stream that are read and worked on together, at least one request.
    pub request_batch_bytes_max: usize,
    /// Transactions of one `QueuesDownstream` stream that are open or waiting for messages at most.
    pub transactions_per_stream_max: usize,
    /// Messages in one queue batch at most.
    pub batch_messages_max: usize,
    /// What `routes:KEY` stands for in the channel of a send.
    pub routes: Routes,
    /// Targets of one send at most, those of its routes included.
    pub route_targets_max: usize,
    /// Lists of channels that are made at a time at most; further ones wait, within their time.
    pub channel_lists_max: usize,
    /// Stored events of one subscription that are on their way at most.
    pub subscription_messages_max: u32,
    /// Bytes of them at most.
    pub subscription_bytes_max: u64,
    /// Responses to queries that are kept for whoever asks the same again, at most; 0: none are.
    pub query_cache_entries_max: usize,
    /// Bytes of them at most. A response that takes more than an eighth of it is not kept.
    pub query_cache_bytes_max: usize,
    /// HTTP/2 pings to idle clients: how often.
    pub keepalive_interval: Duration,
    /// And how long to wait for an answer before the client counts as gone.
    pub keepalive_wait_max: Duration,
    /// HTTP/2 receive window of a stream, in bytes.
    pub stream_window_bytes: u32,
    /// HTTP/2 receive window of a connection, in bytes.
    pub connection_window_bytes: u32,
    /// How long a shutdown waits for connections to end.
    pub shutdown_wait_max: Duration,
    /// The REST and WebSocket listener.
    pub rest: RestConfig,
}

/// Bounds of the values in single requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubemqLimits {
    /// Messages of one receive.
    pub receive_messages_max: u32,
    /// Wait time of a receive.
    pub wait_seconds_max: u32,
    /// Wait time of a unary receive that names none.
    pub wait_seconds_default: u32,
    /// Expiry of a queue message.
    pub expiration_seconds_max: u32,
    /// Delay of a queue message.
    pub delay_seconds_max: u32,
    /// Deliveries that a message may ask for.
    pub receive_count_max: u32,
    /// How long a transaction of one message (`StreamQueueMessage`) may hold it unsettled.
    pub visibility_seconds_max: u32,
    /// How long it does if it does not say.
    pub visibility_seconds_default: u32,
}

impl KubemqLimits {
    /// How long a receive waits that asks for this.
    pub fn wait(&self, seconds: i32) -> Duration {
        asked_or(seconds, self.wait_seconds_default)
    }

    /// How long a message is held by a transaction that asks for this.
    pub fn visibility(&self, seconds: i32) -> Duration {
        asked_or(seconds, self.visibility_seconds_default)
    }
}

fn asked_or(seconds: i32, default: u32) -> Duration {
    let asked = u32::try_from(seconds).ok().filter(|asked| *asked > 0);
    Duration::from_secs(asked.unwrap_or(default).into())
}

impl Default for KubemqLimits {
    fn default() -> Self {
        Self {
            receive_messages_max: 1_024,
            wait_seconds_max: 3_600,
            wait_seconds_default: 1,
            expiration_seconds_max: 43_200,
            delay_seconds_max: 43_200,
            receive_count_max: 1_024,
            visibility_seconds_max: 43_200,
            visibility_seconds_default: 60,
        }
    }
}

impl Default for KubemqConfig {
    fn default() -> Self {
        Self {
            host: "flotilla".to_owned(),
            version: "2.6.0".to_owned(),
            durable_resume: true,
            receive_linger: None,
            silence_after_start_max: Some(Duration::from_secs(1)),
            limits: KubemqLimits::default(),
            downstream_hold_max: Duration::from_secs(12 * 3_600),
            request_bytes_max: 100 * MIB,
            response_bytes_max: 7 * MIB / 2,
            downstream_bytes_max: 32 * MIB,
            connections_max: 10_000,
            handshake_wait_max: Duration::from_secs(10),
            streams_per_connection_max: 1_000,
            requests_in_flight_max: 1_024,
            request_batch_bytes_max: MIB,
            transactions_per_stream_max: 1_024,
            batch_messages_max: MESSAGES_MAX,
            routes: Routes::default(),
            route_targets_max: 64,
            channel_lists_max: 4,
            subscription_messages_max: 1_024,
            subscription_bytes_max: 4 * MIB as u64,
            query_cache_entries_max: 10_000,
            query_cache_bytes_max: 64 * MIB,
            keepalive_interval: Duration::from_secs(30),
            keepalive_wait_max: Duration::from_secs(10),
            stream_window_bytes: 2 * MIB as u32,
            connection_window_bytes: 8 * MIB as u32,
            shutdown_wait_max: Duration::from_secs(5),
            rest: RestConfig::default(),
        }
    }
}

/// The largest window that HTTP/2 allows.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

impl KubemqConfig {
    /// Refuses values with which the gateway could not work.
    pub fn check(&self) -> Result<(), GatewayError> {
        let windows = 65_535..=WINDOW_BYTES_MAX;
        let limits = &self.limits;
        let checks: [(&'static str, bool, String, &'static str); 24] = [
            ("host", !self.host.is_empty(), self.host.clone(), "a name"),
            (
                "version",
                is_version(&self.version),
                self.version.clone(),
                "three numbers with dots between them",
            ),
            at_least_one("request_bytes_max", self.request_bytes_max),
            at_least_one("response_bytes_max", self.response_bytes_max),
            at_least_one("downstream_bytes_max", self.downstream_bytes_max),
            at_least_one("connections_max", self.connections_max),
            at_least_one("rest.body_bytes_max", self.rest.body_bytes_max),
            at_least_one("rest.connections_max", self.rest.connections_max),
            at_least_one(
                "streams_per_connection_max",
                self.streams_per_connection_max as usize,
            ),
            at_least_one("requests_in_flight_max", self.requests_in_flight_max),
            at_least_one("request_batch_bytes_max", self.request_batch_bytes_max),
            at_least_one(
                "transactions_per_stream_max",
                self.transactions_per_stream_max,
            ),
            (
                "batch_messages_max",
                (1..=MESSAGES_MAX).contains(&self.batch_messages_max),
                self.batch_messages_max.to_string(),
                "from 1 to 65536",
            ),
            at_least_one("route_targets_max", self.route_targets_max),
            at_least_one("channel_lists_max", self.channel_lists_max),
            at_least_one(
                "subscription_messages_max",
                self.subscription_messages_max as usize,
            ),
            at_least_one("wait_seconds_default", limits.wait_seconds_default as usize),
            at_least_one("receive_count_max", limits.receive_count_max as usize),
            at_least_one(
                "visibility_seconds_default",
                limits.visibility_seconds_default as usize,
            ),
            (
                "receive_messages_max",
                (1..=LEASE_MESSAGES_MAX).contains(&limits.receive_messages_max),
                limits.receive_messages_max.to_string(),
                "from 1 to 4096",
            ),
            (
                "stream_window_bytes",
                windows.contains(&self.stream_window_bytes),
                self.stream_window_bytes.to_string(),
                "from 65535 to 2147483647",
            ),
            (
                "connection_window_bytes",
                windows.contains(&self.connection_window_bytes),
                self.connection_window_bytes.to_string(),
                "from 65535 to 2147483647",
            ),
            (
                "keepalive_interval",
                !self.keepalive_interval.is_zero(),
                format!("{:?}", self.keepalive_interval),
                "longer than 0",
            ),
            (
                "downstream_hold_max",
                self.downstream_hold_max >= Duration::from_secs(1),
                format!("{:?}", self.downstream_hold_max),
                "at least 1s",
            ),
        ];
        for (setting, is_right, value, allowed) in checks {
            if !is_right {
                return Err(GatewayError::Setting {
                    protocol: "kubemq",
                    setting,
                    value,
                    allowed,
                });
            }
        }
        Ok(())
    }
}

fn at_least_one(setting: &'static str, value: usize) -> (&'static str, bool, String, &'static str) {
    (setting, value > 0, value.to_string(), "at least 1")
}

/// Clients take the version apart and some fail on anything else.
fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed() {
        KubemqConfig::default().check().unwrap();
    }

    #[test]
    fn a_refused_setting_is_named_with_its_value() {
        let config = KubemqConfig {
            version: "2.6".to_owned(),
            ..KubemqConfig::default()
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "kubemq setting version is 2.6, it must be three numbers with dots between them"
        );
        let config = KubemqConfig {
            connections_max: 0,
            ..KubemqConfig::default()
        };
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "kubemq setting connections_max is 0, it must be at least 1"
        );
    }
}
