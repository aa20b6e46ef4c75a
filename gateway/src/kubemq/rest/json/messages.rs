//! Which messages there are, and what their fields are called: the names of `kubemq.proto`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};

use super::value::{Room, Seed, Shown, Value};
use crate::kubemq::protocol::{
    AckAllQueueMessagesRequest, AckAllQueueMessagesResponse, Event, EventReceive, PingResult,
    QueueInfo, QueueMessage, QueueMessageAttributes, QueueMessagePolicy, QueueMessagesBatchRequest,
    QueueMessagesBatchResponse, QueuesInfo, QueuesInfoRequest, QueuesInfoResponse,
    ReceiveQueueMessagesRequest, ReceiveQueueMessagesResponse, Request, Response,
    Result as EventResult, SendQueueMessageResult, StreamQueueMessagesRequest,
    StreamQueueMessagesResponse,
};

macro_rules! message {
    ($message:ident { $($key:literal: $field:ident),* $(,)? }) => {
        impl Value for $message {
            fn is_zero(&self) -> bool {
                false
            }

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(if !self.$field.is_zero() {
                    map.serialize_entry($key, &Shown(&self.$field))?;
                })*
                map.end()
            }

            fn read<'de, D: Deserializer<'de>>(
                deserializer: D,
                room: &Room,
            ) -> Result<Self, D::Error> {
                struct Fields<'r>(&'r Room);

                impl<'de> Visitor<'de> for Fields<'_> {
                    type Value = $message;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_unit<E: Error>(self) -> Result<$message, E> {
                        Ok($message::default())
                    }

                    fn visit_map<A: MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$message, A::Error> {
                        let mut message = $message::default();
                        while let Some(key) = map.next_key::<String>()? {
                            self.0.part()?;
                            $(if key.eq_ignore_ascii_case($key) {
                                let value = map.next_value_seed(Seed(self.0, PhantomData));
                                message.$field = value.map_err(|error| {
                                    A::Error::custom(format_args!("{}: {error}", $key))
                                })?;
                                continue;
                            })*
                            map.next_value::<IgnoredAny>()?;
                        }
                        Ok(message)
                    }
                }

                deserializer.deserialize_any(Fields(room))
            }
        }
    };
}

message!(PingResult {
    "Host": host,
    "Version": version,
    "ServerStartTime": server_start_time,
    "ServerUpTimeSeconds": server_up_time_seconds,
});

message!(Event {
    "EventID": event_id,
    "ClientID": client_id,
    "Channel": channel,
    "Metadata": metadata,
    "Body": body,
    "Store": store,
    "Tags": tags,
});

message!(EventResult {
    "EventID": event_id,
    "Sent": sent,
    "Error": error,
});

message!(EventReceive {
    "EventID": event_id,
    "Channel": channel,
    "Metadata": metadata,
    "Body": body,
    "Timestamp": timestamp,
    "Sequence": sequence,
    "Tags": tags,
});

message!(Request {
    "RequestID": request_id,
    "RequestTypeData": request_type_data,
    "ClientID": client_id,
    "Channel": channel,
    "Metadata": metadata,
    "Body": body,
    "ReplyChannel": reply_channel,
    "Timeout": timeout,
    "CacheKey": cache_key,
    "CacheTTL": cache_ttl,
    "Span": span,
    "Tags": tags,
});

message!(Response {
    "ClientID": client_id,
    "RequestID": request_id,
    "ReplyChannel": reply_channel,
    "Metadata": metadata,
    "Body": body,
    "CacheHit": cache_hit,
    "Timestamp": timestamp,
    "Executed": executed,
    "Error": error,
    "Span": span,
    "Tags": tags,
});

message!(QueueMessage {
    "MessageID": message_id,
    "ClientID": client_id,
    "Channel": channel,
    "Metadata": metadata,
    "Body": body,
    "Tags": tags,
    "Attributes": attributes,
    "Policy": policy,
});

message!(QueueMessageAttributes {
    "Timestamp": timestamp,
    "Sequence": sequence,
    "MD5OfBody": md5_of_body,
    "ReceiveCount": receive_count,
    "ReRouted": re_routed,
    "ReRoutedFromQueue": re_routed_from_queue,
    "ExpirationAt": expiration_at,
    "DelayedTo": delayed_to,
});

message!(QueueMessagePolicy {
    "ExpirationSeconds": expiration_seconds,
    "DelaySeconds": delay_seconds,
    "MaxReceiveCount": max_receive_count,
    "MaxReceiveQueue": max_receive_queue,
});

message!(QueueMessagesBatchRequest {
    "BatchID": batch_id,
    "Messages": messages,
});

message!(QueueMessagesBatchResponse {
    "BatchID": batch_id,
    "Results": results,
    "HaveErrors": have_errors,
});

message!(SendQueueMessageResult {
    "MessageID": message_id,
    "SentAt": sent_at,
    "ExpirationAt": expiration_at,
    "DelayedTo": delayed_to,
    "IsError": is_error,
    "Error": error,
});

message!(ReceiveQueueMessagesRequest {
    "RequestID": request_id,
    "ClientID": client_id,
    "Channel": channel,
    "MaxNumberOfMessages": max_number_of_messages,
    "WaitTimeSeconds": wait_time_seconds,
    "IsPeak": is_peak,
});

message!(ReceiveQueueMessagesResponse {
    "RequestID": request_id,
    "Messages": messages,
    "MessagesReceived": messages_received,
    "MessagesExpired": messages_expired,
    "IsPeak": is_peak,
    "IsError": is_error,
    "Error": error,
});

message!(AckAllQueueMessagesRequest {
    "RequestID": request_id,
    "ClientID": client_id,
    "Channel": channel,
    "WaitTimeSeconds": wait_time_seconds,
});

message!(AckAllQueueMessagesResponse {
    "RequestID": request_id,
    "AffectedMessages": affected_messages,
    "IsError": is_error,
    "Error": error,
});

message!(StreamQueueMessagesRequest {
    "RequestID": request_id,
    "ClientID": client_id,
    "StreamRequestTypeData": stream_request_type_data,
    "Channel": channel,
    "VisibilitySeconds": visibility_seconds,
    "WaitTimeSeconds": wait_time_seconds,
    "RefSequence": ref_sequence,
    "ModifiedMessage": modified_message,
});

message!(StreamQueueMessagesResponse {
    "RequestID": request_id,
    "StreamRequestTypeData": stream_request_type_data,
    "Message": message,
    "IsError": is_error,
    "Error": error,
});

message!(QueueInfo {
    "Name": name,
    "Messages": messages,
    "Bytes": bytes,
    "FirstSequence": first_sequence,
    "LastSequence": last_sequence,
    "Sent": sent,
    "Delivered": delivered,
    "Waiting": waiting,
    "Subscribers": subscribers,
});

message!(QueuesInfo {
    "TotalQueue": total_queue,
    "Sent": sent,
    "Delivered": delivered,
    "Waiting": waiting,
    "Queues": queues,
});

message!(QueuesInfoRequest {
    "RequestID": request_id,
    "QueueName": queue_name,
});

message!(QueuesInfoResponse {
    "RefRequestID": ref_request_id,
    "Info": info,
});
