//! What a request must look like, checked in the protocol's order: the first failure is the answer.

use flotilla_broker::Start;
use flotilla_model::ids::{Offset, WallTime};
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};

use super::config::KubemqLimits;
use super::error::RequestError;
use super::protocol::subscribe::{EventsStoreType, SubscribeType};
use super::protocol::{
    AckAllQueueMessagesRequest, Event, QueueMessage, QueueMessagePolicy, QueuesDownstreamRequest,
    ReceiveQueueMessagesRequest, StreamQueueMessagesRequest, Subscribe,
};

/// Longest id of a request, or of a client: it is kept until the answer is with the client, and echoed; rules are
/// asked about it.
pub const ID_BYTES_MAX: usize = 1_024;

/// What a valid `Subscribe` asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscription {
    /// To plain events.
    Events,
    /// To stored events, from here.
    Store(Name, Start),
}

/// An event to send, and where it goes: a topic if it is to be stored, else a signal.
pub fn event(event: &Event) -> Result<Name, RequestError> {
    client_id(&event.client_id)?;
    let name = name(event_kind(event), &event.channel)?;
    content(&event.metadata, &event.body)?;
    Ok(name)
}

/// What a sender of this event sends to.
pub fn event_kind(event: &Event) -> Kind {
    if event.store {
        Kind::Topic
    } else {
        Kind::Signal
    }
}

/// An event or queue message has metadata or a body.
pub fn content(metadata: &str, body: &[u8]) -> Result<(), RequestError> {
    if metadata.is_empty() && body.is_empty() {
        return Err(RequestError::MessageEmpty);
    }
    Ok(())
}

/// A subscription to events, stored or not.
pub fn subscription(request: &Subscribe) -> Result<Subscription, RequestError> {
    let is_store = match request.subscribe_type_data() {
        SubscribeType::Events => false,
        SubscribeType::EventsStore => true,
        _ => return Err(RequestError::SubscribeType),
    };
    client_id(&request.client_id)?;
    channel(&request.channel)?;
    if is_store {
        no_wildcards(&request.channel)?;
        Ok(Subscription::Store(
            Name::topic(&request.channel)?,
            start(request)?,
        ))
    } else if request.events_store_type_data == EventsStoreType::Undefined as i32 {
        pattern(Kind::Signal, &request.channel)?;
        Ok(Subscription::Events)
    } else {
        Err(RequestError::StartOfPlainEvents)
    }
}

/// A message for a queue, and its queue.
pub fn queue_message(message: &QueueMessage, limits: &KubemqLimits) -> Result<Name, RequestError> {
    client_id(&message.client_id)?;
    let queue = queue_name(&message.channel)?;
    queue_content(message, limits)?;
    Ok(queue)
}

/// All of a queue message but where it goes.
pub fn queue_content(message: &QueueMessage, limits: &KubemqLimits) -> Result<(), RequestError> {
    content(&message.metadata, &message.body)?;
    match &message.policy {
        Some(asked) => policy(asked, limits),
        None => Ok(()),
    }
}

/// A unary receive or peek, and its queue.
pub fn receive(
    request: &ReceiveQueueMessagesRequest,
    limits: &KubemqLimits,
) -> Result<Name, RequestError> {
    id("request id", &request.request_id)?;
    client_id(&request.client_id)?;
    let queue = queue_name(&request.channel)?;
    if !within(request.max_number_of_messages, limits.receive_messages_max)
        || request.max_number_of_messages == 0
    {
        return Err(RequestError::MessagesMax);
    }
    wait_seconds(request.wait_time_seconds, limits)?;
    Ok(queue)
}

/// A request to empty a queue, and its queue.
pub fn ack_all(
    request: &AckAllQueueMessagesRequest,
    limits: &KubemqLimits,
) -> Result<Name, RequestError> {
    id("request id", &request.request_id)?;
    client_id(&request.client_id)?;
    let queue = queue_name(&request.channel)?;
    wait_seconds(request.wait_time_seconds, limits)?;
    Ok(queue)
}

/// A get on a downstream, and its queue.
pub fn downstream_get(
    request: &QueuesDownstreamRequest,
    limits: &KubemqLimits,
) -> Result<Name, RequestError> {
    client_id(&request.client_id)?;
    let queue = queue_name(&request.channel)?;
    if !within(
        request.wait_timeout,
        limits.wait_seconds_max.saturating_mul(1_000),
    ) {
        return Err(RequestError::WaitTimeout);
    }
    Ok(queue)
}

/// The receive of a transaction of one message, and its queue.
pub fn transaction_receive(
    request: &StreamQueueMessagesRequest,
    limits: &KubemqLimits,
) -> Result<Name, RequestError> {
    id("request id", &request.request_id)?;
    client_id(&request.client_id)?;
    let queue = queue_name(&request.channel)?;
    visibility(request.visibility_seconds, limits)?;
    wait_seconds(request.wait_time_seconds, limits)?;
    Ok(queue)
}

/// How long a message is to be held; 0 leaves it to the settings.
pub fn visibility(seconds: i32, limits: &KubemqLimits) -> Result<(), RequestError> {
    if !within(seconds, limits.visibility_seconds_max) {
        return Err(RequestError::Visibility);
    }
    Ok(())
}

/// The ids of a request on a downstream, which all its answers carry.
pub fn downstream_ids(request: &QueuesDownstreamRequest) -> Result<(), RequestError> {
    id("request id", &request.request_id)?;
    id("transaction id", &request.ref_transaction_id)
}

/// An id that is echoed.
pub fn id(what: &'static str, given: &str) -> Result<(), RequestError> {
    let bytes = given.len();
    if bytes > ID_BYTES_MAX {
        return Err(RequestError::IdLength { what, bytes });
    }
    Ok(())
}

/// What is echoed of an id: one that is too long is cut.
pub fn echoed(id: &str) -> &str {
    &id[..id.floor_char_boundary(ID_BYTES_MAX)]
}

/// Every call but a ping names its client.
pub fn client_id(client_id: &str) -> Result<(), RequestError> {
    if client_id.is_empty() {
        return Err(RequestError::ClientId);
    }
    id("client id", client_id)
}

/// A channel, or a pattern of channels.
pub fn channel(channel: &str) -> Result<(), RequestError> {
    if channel.is_empty() {
        return Err(RequestError::ChannelEmpty);
    }
    if channel.ends_with('.') {
        return Err(RequestError::ChannelDot);
    }
    if channel.contains(char::is_whitespace) {
        return Err(RequestError::ChannelSpace);
    }
    Ok(())
}

/// A pattern of channels of this kind: its text obeys the rules of a name.
pub fn pattern(kind: Kind, text: &str) -> Result<(), RequestError> {
    Name::new(DEFAULT_NAMESPACE, kind, text)?;
    Ok(())
}

/// Where only a channel is meant, not a pattern.
pub fn no_wildcards(channel: &str) -> Result<(), RequestError> {
    if channel.contains(['*', '>']) {
        return Err(RequestError::ChannelWildcard);
    }
    Ok(())
}

/// A channel of this kind, by the rules of its pattern.
pub fn name(kind: Kind, text: &str) -> Result<Name, RequestError> {
    if kind == Kind::Queue {
        return queue_name(text);
    }
    channel(text)?;
    no_wildcards(text)?;
    Ok(Name::new(DEFAULT_NAMESPACE, kind, text)?)
}

/// Queue names have one text for all that can be wrong with them.
pub fn queue_name(name: &str) -> Result<Name, RequestError> {
    channel(name)
        .and_then(|()| no_wildcards(name))
        .map_err(|_| RequestError::QueueName)?;
    Ok(Name::queue(name)?)
}

fn policy(policy: &QueueMessagePolicy, limits: &KubemqLimits) -> Result<(), RequestError> {
    if !within(policy.expiration_seconds, limits.expiration_seconds_max) {
        return Err(RequestError::Expiration);
    }
    if !within(policy.max_receive_count, limits.receive_count_max) {
        return Err(RequestError::ReceiveCount);
    }
    if !within(policy.delay_seconds, limits.delay_seconds_max) {
        return Err(RequestError::Delay);
    }
    if !policy.max_receive_queue.is_empty() {
        queue_name(&policy.max_receive_queue)?;
    }
    Ok(())
}

fn wait_seconds(seconds: i32, limits: &KubemqLimits) -> Result<(), RequestError> {
    if !within(seconds, limits.wait_seconds_max) {
        return Err(RequestError::WaitTimeout);
    }
    Ok(())
}

fn within(value: i32, max: u32) -> bool {
    u32::try_from(value).is_ok_and(|value| value <= max)
}

/// The start position of a subscription to stored events.
fn start(request: &Subscribe) -> Result<Start, RequestError> {
    let value = u64::try_from(request.events_store_type_value)
        .ok()
        .filter(|value| *value > 0);
    let kind = EventsStoreType::try_from(request.events_store_type_data)
        .unwrap_or(EventsStoreType::Undefined);
    Ok(match kind {
        EventsStoreType::Undefined => return Err(RequestError::StartUndefined),
        EventsStoreType::StartNewOnly => Start::NewOnly,
        EventsStoreType::StartFromFirst => Start::First,
        EventsStoreType::StartFromLast => Start::Last,
        EventsStoreType::StartAtSequence => {
            Start::Offset(Offset(value.ok_or(RequestError::StartSequence)?))
        }
        EventsStoreType::StartAtTime => {
            Start::Wall(wall_time(value.ok_or(RequestError::StartTime)?))
        }
        EventsStoreType::StartAtTimeDelta => Start::Ago(std::time::Duration::from_secs(
            value.ok_or(RequestError::StartDelta)?,
        )),
    })
}

/// Client libraries disagree about the unit of a start time; its size tells it.
///
/// The bounds lie between the years 1973 (as the larger unit) and 5138 (as the smaller one), so no
/// time that is meant is taken for another.
fn wall_time(value: u64) -> WallTime {
    let nanoseconds_each: u64 = match value {
        ..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    WallTime(value.saturating_mul(nanoseconds_each))
}

#[cfg(test)]
#[path = "validate_test.rs"]
mod tests;
