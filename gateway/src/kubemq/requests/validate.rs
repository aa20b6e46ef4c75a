//! What requests, responses and subscriptions to requests must look like, in the protocol's order.

use flotilla_broker::REQUEST_EXTRA_BYTES_MAX;
use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, Name};

use crate::kubemq::error::RequestError;
use crate::kubemq::protocol::request::RequestType;
use crate::kubemq::protocol::subscribe::SubscribeType;
use crate::kubemq::protocol::{Request, Response, Subscribe};
use crate::kubemq::validate::{channel, client_id, no_wildcards, pattern};

/// Bytes of the fields that are carried beside a message; the rest of what the broker carries is for the
/// numbers among them.
pub const CARRIED_BYTES_MAX: usize = REQUEST_EXTRA_BYTES_MAX - 64;

/// A command or query, and its name.
pub fn request(request: &Request) -> Result<Name, RequestError> {
    let kind = match request.request_type_data() {
        RequestType::Command => Kind::Command,
        RequestType::Query => Kind::Request,
        RequestType::Unknown => return Err(RequestError::RequestType),
    };
    client_id(&request.client_id)?;
    channel(&request.channel)?;
    no_wildcards(&request.channel)?;
    if request.timeout <= 0 {
        return Err(RequestError::Timeout);
    }
    if request.metadata.is_empty() && request.body.is_empty() {
        return Err(RequestError::RequestEmpty);
    }
    if !request.cache_key.is_empty() && request.cache_ttl <= 0 {
        return Err(RequestError::CacheTtl);
    }
    carried(
        "the cache key with the span",
        request.cache_key.len() + request.span.len(),
        CARRIED_BYTES_MAX,
    )?;
    Ok(Name::new(DEFAULT_NAMESPACE, kind, &request.channel)?)
}

/// What a subscriber serves: commands or queries.
pub fn subscription(request: &Subscribe) -> Result<Kind, RequestError> {
    let kind = match request.subscribe_type_data() {
        SubscribeType::Commands => Kind::Command,
        SubscribeType::Queries => Kind::Request,
        _ => return Err(RequestError::SubscribeType),
    };
    client_id(&request.client_id)?;
    channel(&request.channel)?;
    pattern(kind, &request.channel)?;
    Ok(kind)
}

/// What a responder says.
pub fn response(response: &Response) -> Result<(), RequestError> {
    client_id(&response.client_id)?;
    channel(&response.reply_channel)?;
    no_wildcards(&response.reply_channel)?;
    if response.request_id.is_empty() {
        return Err(RequestError::RequestIdEmpty);
    }
    carried("the span", response.span.len(), CARRIED_BYTES_MAX)?;
    carried("the error", response.error.len(), REQUEST_EXTRA_BYTES_MAX)
}

fn carried(what: &'static str, bytes: usize, allowed: usize) -> Result<(), RequestError> {
    if bytes > allowed {
        return Err(RequestError::Carried {
            what,
            bytes,
            allowed,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// What is wrong with something, and what is said of it.
    type Case<T, E> = (fn(&mut T), E);

    fn a_query() -> Request {
        Request {
            request_type_data: RequestType::Query as i32,
            client_id: "c".to_owned(),
            channel: "a.b".to_owned(),
            metadata: "m".to_owned(),
            timeout: 1,
            ..Request::default()
        }
    }

    fn refused(change: impl FnOnce(&mut Request)) -> String {
        let mut wrong = a_query();
        change(&mut wrong);
        request(&wrong).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_with_a_request_is_told_in_the_protocols_order() {
        // Each is wrong in this and in all that is checked later.
        let cases: [Case<Request, &str>; 9] = [
            (
                |r| r.request_type_data = 0,
                "Error 206: invalid request type",
            ),
            (
                |r| r.client_id.clear(),
                "Error 101: invalid clientID value, cannot be empty",
            ),
            (
                |r| r.channel.clear(),
                "Error 102: invalid channel value, cannot be empty",
            ),
            (
                |r| r.channel = "a *.".to_owned(),
                "Error 119: invalid channel value, cannot end with `.`",
            ),
            (
                |r| r.channel = "a *".to_owned(),
                "Error 108: invalid channel value, no white spaces are allowed",
            ),
            (
                |r| r.channel = "a.*".to_owned(),
                "Error 107: invalid channel value, no wildcards are allowed",
            ),
            (
                |r| r.timeout = 0,
                "Error 109: invalid set timeout value, cannot be 0 or negative",
            ),
            (
                |r| r.metadata.clear(),
                "Error 115: invalid request, cannot be empty",
            ),
            (
                |r| r.cache_key = "k".to_owned(),
                "Error 116: invalid cache ttl value, cannot be 0 or negative",
            ),
        ];
        for first in 0..cases.len() {
            let text = refused(|request| {
                for (change, _) in cases[first..].iter().rev() {
                    change(request);
                }
            });
            assert_eq!(text, cases[first].1);
        }
    }

    #[test]
    fn commands_and_queries_are_different_names() {
        let mut command = a_query();
        command.request_type_data = RequestType::Command as i32;
        assert_eq!(request(&command).unwrap().kind(), Kind::Command);
        assert_eq!(request(&a_query()).unwrap().kind(), Kind::Request);
        assert_eq!(
            refused(|request| request.request_type_data = 3),
            "Error 206: invalid request type"
        );
    }

    #[test]
    fn a_body_alone_and_metadata_alone_are_requests_but_tags_alone_are_not() {
        let mut of_tags = a_query();
        of_tags.tags = [("k".to_owned(), "v".to_owned())].into();
        assert!(request(&of_tags).is_ok());
        of_tags.metadata.clear();
        assert_eq!(request(&of_tags), Err(RequestError::RequestEmpty));
        of_tags.body = Bytes::from_static(b"b");
        assert!(request(&of_tags).is_ok());
    }

    #[test]
    fn what_is_carried_beside_a_message_is_bounded_with_a_text_that_says_so() {
        let span = |request: &mut Request| request.span = Bytes::from(vec![0; 70_000]);
        assert_eq!(
            refused(span),
            "the cache key with the span has 70000 bytes, at most 65472 are allowed"
        );
    }

    #[test]
    fn wildcards_are_allowed_to_subscribers_and_other_types_are_not() {
        let subscribe = |kind: SubscribeType, channel: &str| Subscribe {
            subscribe_type_data: kind as i32,
            client_id: "c".to_owned(),
            channel: channel.to_owned(),
            ..Subscribe::default()
        };
        for (kind, channel, outcome) in [
            (SubscribeType::Commands, "a.*", Ok(Kind::Command)),
            (SubscribeType::Queries, ">", Ok(Kind::Request)),
            (SubscribeType::Queries, "", Err(RequestError::ChannelEmpty)),
            (
                SubscribeType::Queries,
                "a b",
                Err(RequestError::ChannelSpace),
            ),
            (SubscribeType::Commands, "a.", Err(RequestError::ChannelDot)),
            (SubscribeType::Events, "a", Err(RequestError::SubscribeType)),
            (
                SubscribeType::EventsStore,
                "a",
                Err(RequestError::SubscribeType),
            ),
        ] {
            assert_eq!(subscription(&subscribe(kind, channel)), outcome);
        }
    }

    #[test]
    fn a_response_names_its_client_its_reply_channel_and_its_request() {
        let whole = Response {
            client_id: "c".to_owned(),
            request_id: "1".to_owned(),
            reply_channel: "1-2-3".to_owned(),
            ..Response::default()
        };
        assert_eq!(response(&whole), Ok(()));
        let cases: [Case<Response, RequestError>; 6] = [
            (|r| r.client_id.clear(), RequestError::ClientId),
            (|r| r.reply_channel.clear(), RequestError::ChannelEmpty),
            (
                |r| r.reply_channel = "a.".to_owned(),
                RequestError::ChannelDot,
            ),
            (
                |r| r.reply_channel = "a b".to_owned(),
                RequestError::ChannelSpace,
            ),
            (
                |r| r.reply_channel = ">".to_owned(),
                RequestError::ChannelWildcard,
            ),
            (|r| r.request_id.clear(), RequestError::RequestIdEmpty),
        ];
        for (change, error) in cases {
            let mut wrong = whole.clone();
            change(&mut wrong);
            assert_eq!(response(&wrong), Err(error));
        }
    }
}
