//! Requests and responses of the protocol to the broker's and back.

use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{
    REQUEST_TIMEOUT_MAX, Reply, ReplyToken, Request as Asked, RequestDelivery, WhenNobody,
};
use flotilla_model::message::{Message, Text};
use flotilla_model::name::{Kind, Name};

use super::carried::{pack, unpack};
use crate::kubemq::convert::{id_or_new, tags_in, tags_out};
use crate::kubemq::protocol::request::RequestType;
use crate::kubemq::protocol::{Request, Response};

/// A checked request for the broker; its id must have been filled in.
pub fn request_in(name: Name, request: Request) -> Asked {
    let carried = Request {
        timeout: request.timeout,
        cache_key: request.cache_key,
        cache_ttl: request.cache_ttl,
        span: request.span,
        ..Request::default()
    };
    let timeout = Duration::from_millis(u64::try_from(request.timeout).unwrap_or(0));
    Asked {
        name: Arc::new(name),
        message: Arc::new(Message {
            id: Text::from(request.request_id),
            source: Text::from(request.client_id),
            metadata: Text::from(request.metadata),
            tags: tags_in(request.tags),
            body: request.body,
        }),
        extra: pack(&carried),
        timeout: timeout.min(REQUEST_TIMEOUT_MAX),
        // In this protocol nobody is told that nobody is there.
        when_nobody: WhenNobody::Wait,
    }
}

/// A request as a responder gets it. Other protocols know no ids: such a request gets one, since responders
/// must give it back.
pub fn request_out(delivery: &RequestDelivery, token: ReplyToken) -> Request {
    let carried: Request = unpack(&delivery.extra);
    let message = &delivery.message;
    let kind = match delivery.name.kind() {
        Kind::Command => RequestType::Command,
        _ => RequestType::Query,
    };
    Request {
        request_id: id_or_new(message.id.as_str().to_owned()),
        request_type_data: kind as i32,
        client_id: message.source.as_str().to_owned(),
        channel: delivery.name.text().to_owned(),
        metadata: message.metadata.as_str().to_owned(),
        body: message.body.clone(),
        reply_channel: token.to_string(),
        timeout: if carried.timeout > 0 {
            carried.timeout
        } else {
            i32::try_from(delivery.timeout_left.as_millis()).unwrap_or(i32::MAX)
        },
        tags: tags_out(&message.tags),
        ..carried
    }
}

/// What a responder says, for the broker.
pub fn response_in(response: Response) -> Reply {
    let carried = Response {
        timestamp: response.timestamp,
        span: response.span,
        ..Response::default()
    };
    Reply {
        executed: response.executed,
        error: Text::from(response.error),
        message: Message {
            id: Text::from(response.request_id),
            source: Text::from(response.client_id),
            metadata: Text::from(response.metadata),
            tags: tags_in(response.tags),
            body: response.body,
        },
        extra: pack(&carried),
    }
}

/// What whoever asked is told: as the responder said it, but for what only the server knows.
pub fn response_out(reply: Reply, request_id: String) -> Response {
    let carried: Response = unpack(&reply.extra);
    let message = reply.message;
    Response {
        client_id: message.source.as_str().to_owned(),
        // Responders of other protocols know no ids.
        request_id: match message.id.as_str() {
            "" => request_id,
            id => id.to_owned(),
        },
        reply_channel: String::new(),
        metadata: message.metadata.as_str().to_owned(),
        body: message.body,
        cache_hit: false,
        executed: reply.executed,
        error: reply.error.as_str().to_owned(),
        tags: tags_out(&message.tags),
        ..carried
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use flotilla_broker::CallId;

    use super::*;

    fn a_request() -> Request {
        Request {
            request_id: "1".to_owned(),
            request_type_data: RequestType::Command as i32,
            client_id: "asker".to_owned(),
            channel: "a.b".to_owned(),
            metadata: "m".to_owned(),
            body: Bytes::from_static(b"b"),
            reply_channel: String::new(),
            timeout: 1_500,
            cache_key: "k".to_owned(),
            cache_ttl: 7,
            span: Bytes::from_static(b"\x00span"),
            tags: [("k".to_owned(), "v".to_owned())].into(),
        }
    }

    fn a_name(kind: Kind) -> Name {
        Name::new("default", kind, "a.b").unwrap()
    }

    fn a_token() -> ReplyToken {
        "1-2-3".parse().unwrap()
    }

    fn delivered(asked: Asked) -> RequestDelivery {
        RequestDelivery {
            call: CallId(2),
            name: asked.name,
            message: asked.message,
            extra: asked.extra,
            timeout_left: Duration::from_millis(900),
        }
    }

    #[test]
    fn a_responder_gets_the_request_as_it_was_sent_with_a_reply_channel_of_the_servers() {
        let asked = request_in(a_name(Kind::Command), a_request());
        assert_eq!(asked.timeout, Duration::from_millis(1_500));
        assert_eq!(asked.when_nobody, WhenNobody::Wait);
        let expected = Request {
            reply_channel: "1-2-3".to_owned(),
            ..a_request()
        };
        assert_eq!(request_out(&delivered(asked), a_token()), expected);
    }

    #[test]
    fn a_request_of_another_protocol_is_one_that_responders_can_answer() {
        let mut asked = request_in(a_name(Kind::Request), a_request());
        asked.message = Arc::new(Message::default());
        asked.extra = Bytes::new();
        let request = request_out(&delivered(asked), a_token());
        assert!(!request.request_id.is_empty());
        assert_eq!(request.timeout, 900);
        assert_eq!(request.request_type_data(), RequestType::Query);
    }

    #[test]
    fn no_time_is_longer_than_the_broker_waits() {
        let mut request = a_request();
        request.timeout = i32::MAX;
        let asked = request_in(a_name(Kind::Request), request);
        assert_eq!(asked.timeout, REQUEST_TIMEOUT_MAX);
        let request = request_out(&delivered(asked), a_token());
        assert_eq!(request.timeout, i32::MAX, "responders get what was asked");
    }

    #[test]
    fn whoever_asked_gets_the_response_as_it_was_given_but_for_what_the_server_knows() {
        let given = Response {
            client_id: "responder".to_owned(),
            request_id: "1".to_owned(),
            reply_channel: "1-2-3".to_owned(),
            metadata: "m".to_owned(),
            body: Bytes::from_static(b"b"),
            cache_hit: true,
            timestamp: -5,
            executed: true,
            error: "None".to_owned(),
            span: Bytes::from_static(b"span"),
            tags: [("k".to_owned(), "v".to_owned())].into(),
        };
        let expected = Response {
            reply_channel: String::new(),
            cache_hit: false,
            ..given.clone()
        };
        let told = response_out(response_in(given), "other".to_owned());
        assert_eq!(told, expected);
        let told = response_out(Reply::of(Message::default()), "other".to_owned());
        assert_eq!(told.request_id, "other");
        assert!(told.executed);
    }
}
