//! The broker's bounds. Each says what it protects.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Bounds of one node's broker. Every queue, buffer and cache above the shards has its limit here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Largest encoded message that is accepted.
    pub message_bytes_max: u64,
    /// Most items of one call (publishes, enqueues, signals): bounds what a call holds in memory.
    pub batch_items_max: usize,
    /// Payload bytes of one shard that wait to be proposed; callers wait while there are more.
    pub ingress_bytes_max: u64,
    /// How long a caller waits for room in the ingress before it is told `Busy`.
    pub ingress_wait_max: Duration,
    /// How long a proposal is repeated before its outcome is given up as unknown.
    pub propose_wait_max: Duration,
    /// How long a call looks for the leader of its shard, beyond the time it may wait anyhow.
    pub leader_wait_max: Duration,
    /// How long a subscription looks for the next leader of its shard before it ends.
    pub subscription_patience: Duration,
    /// Messages that wait in the mailbox of one actor; senders wait while it is full.
    pub mailbox_capacity: usize,
    /// Threads that run actors.
    pub arbiters: usize,
    /// An actor without subscribers or waiters goes to sleep after this long.
    pub idle_actor_timeout: Duration,
    /// More topic and queue actors than this, and idle ones go to sleep at once.
    pub actors_soft_max: usize,
    /// Topic and queue actors at most; more are refused as `Busy`.
    pub actors_max: usize,
    /// Subscriptions and waiting receivers of one name at most.
    pub waiters_per_name_max: usize,
    /// Largest `buffer_messages` of a topic subscription; larger wishes are cut.
    pub subscriber_messages_max: u32,
    /// Largest `buffer_bytes` of a topic subscription; larger wishes are cut.
    pub subscriber_bytes_max: u64,
    /// How much one read of a topic fetches ahead.
    pub read_run_bytes: u64,
    /// Bytes that all topic readers of the node hold or have asked for, outside subscribers' buffers.
    pub read_bytes_max: u64,
    /// How often the positions of durable cursors become commands, at most.
    pub cursor_flush_interval: Duration,
    /// Signals that wait for one listener before publishers have to wait for it.
    pub signal_buffer_messages: usize,
    /// How long publishers wait for a full listener before its surplus is dropped.
    pub signal_wait_max: Duration,
    /// Signals that wait for one listener in any case at most.
    pub signal_messages_max: usize,
    /// Signal bytes that wait for one listener in any case at most.
    pub signal_bytes_max: u64,
    /// Signal listeners at most.
    pub signal_listeners_max: usize,
    /// Requests under way on this node at most.
    pub request_calls_max: usize,
    /// Bytes of the requests under way on this node, and of the replies that wait for its clients. One
    /// client may have a quarter of each, and as much may wait for one responder.
    pub request_bytes_max: u64,
    /// Requests that one client may have under way, and one responder.
    pub request_calls_per_client_max: usize,
    /// Responders at most.
    pub request_responders_max: usize,
    /// Names of signals, and as many of requests, that are remembered for listing.
    pub signal_names_max: usize,
    /// Such a name is forgotten after this long without use.
    pub signal_name_idle: Duration,
    /// Topics of the cluster at most; `None`: no limit.
    pub topics_max: Option<u64>,
    /// Queues of the cluster at most; `None`: no limit.
    pub queues_max: Option<u64>,
    /// Names that have metric series of their own; the rest is in the sums only.
    pub metric_names_max: usize,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            message_bytes_max: 100 * MIB,
            batch_items_max: 65_536,
            ingress_bytes_max: 32 * MIB,
            ingress_wait_max: Duration::from_secs(5),
            propose_wait_max: Duration::from_secs(10),
            leader_wait_max: Duration::from_secs(10),
            subscription_patience: Duration::from_secs(15),
            mailbox_capacity: 1_024,
            arbiters: processors.min(4),
            idle_actor_timeout: Duration::from_secs(10),
            actors_soft_max: 10_000,
            actors_max: 100_000,
            waiters_per_name_max: 10_000,
            subscriber_messages_max: 65_536,
            subscriber_bytes_max: 64 * MIB,
            read_run_bytes: MIB,
            read_bytes_max: 64 * MIB,
            cursor_flush_interval: Duration::from_millis(100),
            signal_buffer_messages: 100,
            signal_wait_max: Duration::from_secs(2),
            signal_messages_max: 8_192,
            signal_bytes_max: 16 * MIB,
            signal_listeners_max: 100_000,
            request_calls_max: 65_536,
            request_bytes_max: 128 * MIB,
            request_calls_per_client_max: 8_192,
            request_responders_max: 100_000,
            signal_names_max: 10_000,
            signal_name_idle: Duration::from_secs(3_600),
            topics_max: None,
            queues_max: None,
            metric_names_max: 100,
        }
    }
}
