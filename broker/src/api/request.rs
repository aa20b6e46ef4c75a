//! Messages that ask whoever serves a name now for a reply; nothing is stored.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use bytes::Bytes;
use flotilla_model::ids::NodeId;
use flotilla_model::message::{Message, Text};
use flotilla_model::name::{Kind, Name};

use crate::api::error::BrokerError;

/// Longest time that a reply is waited for.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Most bytes of `extra`, and of the text of a refusal.
pub const REQUEST_EXTRA_BYTES_MAX: usize = 64 * 1024;

/// A message that asks for a reply.
#[derive(Clone, Debug)]
pub struct Request {
    /// Of kind request or command.
    pub name: Arc<Name>,
    /// Shared by all who get it.
    pub message: Arc<Message>,
    /// What only the protocol of the client understands, carried along unread; usually empty.
    pub extra: Bytes,
    /// How long a reply is waited for.
    pub timeout: Duration,
    /// What becomes of it where nobody serves its name.
    pub when_nobody: WhenNobody,
}

/// What becomes of a request that nobody can answer (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenNobody {
    /// It fails at once: with [`BrokerError::NoResponder`] if nobody took it, with
    /// [`BrokerError::ResponderLost`] if all who took it are gone.
    Fail,
    /// It fails when its time is over, like one that is not answered.
    Wait,
}

/// What a responder says to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// It did what it was asked for.
    pub executed: bool,
    /// Why not. Some say something here in any case.
    pub error: Text,
    /// What else it has to say.
    pub message: Message,
    /// What only the protocol of the responder understands, carried along unread; usually empty.
    pub extra: Bytes,
}

impl Reply {
    /// A request was carried out, and this is what comes of it.
    pub fn of(message: Message) -> Self {
        Self {
            executed: true,
            message,
            ..Self::default()
        }
    }

    /// A request was not carried out.
    pub fn refusal(error: Text) -> Self {
        Self {
            error,
            ..Self::default()
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let texts = self.error.len() + self.extra.len();
        self.message.encoded_len() as u64 + texts as u64
    }
}

/// The answer to a request of a requester.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the requester gave with the request.
    pub tag: u64,
    /// What was said, or why nothing was; [`BrokerError::OutcomeUnknown`] if something was, but there was no
    /// room for it because replies were not taken.
    pub outcome: Result<Reply, BrokerError>,
}

/// Which requests a responder serves.
#[derive(Clone, Debug)]
pub struct SubscribeRequests {
    /// Request or command.
    pub kind: Kind,
    /// Of the names.
    pub namespace: String,
    /// Tokens divided by `.`; `*` stands for one token, a last `>` for one or more.
    pub pattern: String,
    /// One of those with the same pattern and group gets each request. Who has no group gets all of
    /// them, and the first reply of all who got a request counts.
    pub group: Option<String>,
    /// Requests that it may have without having replied; more go to others, or are refused as busy.
    /// Larger wishes are cut to the broker's own bound.
    pub calls_max: u32,
}

/// The number of a request at the node where a responder got it; never used twice while that node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A request as a responder gets it.
#[derive(Clone, Debug)]
pub struct RequestDelivery {
    /// To be given with the reply.
    pub call: CallId,
    /// What was asked, not the pattern.
    pub name: Arc<Name>,
    /// Shared by all who get it.
    pub message: Arc<Message>,
    /// As the requester's protocol gave it.
    pub extra: Bytes,
    /// How long a reply is still waited for.
    pub timeout_left: Duration,
}

/// Whoever shows this may reply to a request, through any node and any connection.
///
/// As a text it has no blanks, no dots and no wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyToken {
    /// Where the responder got the request.
    pub(crate) node: NodeId,
    pub(crate) call: CallId,
    /// That nobody guesses: only the node can make it.
    pub(crate) seal: [u8; 16],
}

/// A text that is no [`ReplyToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token to reply with")]
pub struct NotAToken;

impl fmt::Display for ReplyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seal = u128::from_be_bytes(self.seal);
        write!(f, "{:x}-{:x}-{seal:x}", self.node.0, self.call.0)
    }
}

impl FromStr for ReplyToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let mut parts = text.split('-');
        let mut number = || {
            let part = parts.next().ok_or(NotAToken)?;
            u128::from_str_radix(part, 16).map_err(|_| NotAToken)
        };
        let node = u64::try_from(number()?).map_err(|_| NotAToken)?;
        let call = u64::try_from(number()?).map_err(|_| NotAToken)?;
        let seal = number()?.to_be_bytes();
        if parts.next().is_some() {
            return Err(NotAToken);
        }
        Ok(Self {
            node: NodeId(node),
            call: CallId(call),
            seal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_as_a_text() {
        let token = ReplyToken {
            node: NodeId(3),
            call: CallId(u64::MAX),
            seal: [0, 7, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        };
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in [
            "",
            "1",
            "1-2",
            "1-2-3-4",
            "1-2-x",
            "-1-2-3",
            "1-2-",
            "1ffffffffffffffff-2-3",
        ] {
            assert_eq!(bad.parse::<ReplyToken>(), Err(NotAToken), "{bad:?}");
        }
    }
}
