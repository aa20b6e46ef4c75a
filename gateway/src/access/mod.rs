//! Who may come in, and what they may do there: one decision for every protocol of this node.
//!
//! ```text
//!   authorization header -> tokens (verified once, remembered) -> Caller
//!   Caller + client + channel -> rules (pure), read again when their file changes -> yes or no
//! ```
//!
//! A call is authenticated by whatever takes it in ([`Access::authenticate`]); what it may do is asked where its
//! names are known ([`Caller::may`]). With nothing configured everybody may do everything, at no cost.

mod algorithm;
mod decisions;
mod rsa_key;
mod rules;
mod signatures;
mod tokens;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;

use flotilla_model::name::{DEFAULT_NAMESPACE, Kind, NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, Name};

pub use self::algorithm::Algorithm;
pub use self::rules::{Action, Pattern, Rules, RulesError};
pub use self::tokens::TokenError;
pub use self::watch::{Reading, RulesSource};

use self::decisions::Decisions;
use self::tokens::{Claims, Tokens};
use crate::error::GatewayError;

/// Longest id of a client: that of tokens, and that of the protocols.
const CLIENT_BYTES_MAX: usize = 1_024;
/// Longest channel that there is, with its namespace.
const CHANNEL_BYTES_MAX: usize = NAMESPACE_BYTES_MAX + 1 + NAME_BYTES_MAX;

/// What is asked of those who call.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// `None`: nobody is asked who they are.
    pub authentication: Option<AuthenticationConfig>,
    /// `None`: everybody may do everything.
    pub authorization: Option<RulesSource>,
}

/// How tokens are verified.
#[derive(Clone)]
pub struct AuthenticationConfig {
    /// The only one that is accepted, whatever a token says.
    pub algorithm: Algorithm,
    /// A secret as it is, or a public key as PEM text.
    pub key: Vec<u8>,
    /// The claim that says which client a token is for. `None`: clients name themselves.
    pub client_claim: Option<String>,
}

impl std::fmt::Debug for AuthenticationConfig {
    /// The key is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticationConfig")
            .field("algorithm", &self.algorithm)
            .field("client_claim", &self.client_claim)
            .finish_non_exhaustive()
    }
}

/// Decides who may come in and what they may do; clones are the same.
#[derive(Clone, Default)]
pub struct Access {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    tokens: Option<Tokens>,
    decisions: Option<Decisions>,
}

impl Access {
    /// Reads keys and rules. What is wrong with them is to be told before anything is served.
    pub fn new(config: AccessConfig) -> Result<Self, GatewayError> {
        let AccessConfig {
            authentication,
            authorization,
        } = config;
        let tokens = authentication.as_ref().map(Tokens::new).transpose()?;
        let decisions = authorization.map(Decisions::new).transpose()?;
        if tokens.is_none() && decisions.is_none() {
            return Ok(Self::default());
        }
        Ok(Self {
            inner: Some(Arc::new(Inner { tokens, decisions })),
        })
    }

    /// Whether calls are to be looked at: if not, [`Caller::default`] may do everything.
    pub fn is_open(&self) -> bool {
        self.inner.is_none()
    }

    /// Who calls, by the text of the `authorization` header.
    pub fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Caller, TokenError> {
        let Some(inner) = &self.inner else {
            return Ok(Caller::default());
        };
        let claims = match &inner.tokens {
            Some(tokens) => tokens.verify(authorization)?,
            None => Claims::default(),
        };
        Ok(Caller {
            access: Some(Arc::clone(inner)),
            claims,
        })
    }

    /// Reads the rules again when their file changes, for as long as it is polled. Each attempt is told.
    pub(crate) async fn keep_current(self, told: impl Fn(Reading)) -> Infallible {
        match self
            .inner
            .as_ref()
            .and_then(|inner| inner.decisions.as_ref())
        {
            Some(decisions) => decisions.keep_current(told).await,
            None => std::future::pending().await,
        }
    }
}

/// One who calls, as far as that was asked. The default one may do everything.
#[derive(Clone, Default)]
pub struct Caller {
    access: Option<Arc<Inner>>,
    claims: Claims,
}

impl Caller {
    /// Whether it may do this to a name, as the client that it says to be. What a token says to be the client
    /// comes first; who does not say it is the token's subject.
    pub fn may(&self, client: &str, action: Action, name: &Name) -> bool {
        self.may_in(client, action, name.kind(), name.namespace(), name.text())
    }

    /// The same of a name, or a pattern of names, of a namespace: where that is not the default one, rules see
    /// both as one text.
    pub fn may_in(
        &self,
        client: &str,
        action: Action,
        kind: Kind,
        namespace: &str,
        text: &str,
    ) -> bool {
        if self.is_unrestricted() {
            return true;
        }
        if namespace == DEFAULT_NAMESPACE {
            return self.may_channel(client, action, Pattern::of(kind), text);
        }
        let channel = format!("{namespace}/{text}");
        self.may_channel(client, action, Pattern::of(kind), &channel)
    }

    /// The same of a channel, or a pattern of channels, by its text. What is longer than there is any is nobody's,
    /// and not looked through.
    pub fn may_channel(
        &self,
        client: &str,
        action: Action,
        pattern: Pattern,
        channel: &str,
    ) -> bool {
        let Some(decisions) = self.decisions() else {
            return true;
        };
        let client = self.client(client);
        if client.len() > CLIENT_BYTES_MAX || channel.len() > CHANNEL_BYTES_MAX {
            return false;
        }
        decisions.allow(client, pattern, channel, action)
    }

    /// Whether no rules are in force.
    pub fn is_unrestricted(&self) -> bool {
        self.decisions().is_none()
    }

    fn decisions(&self) -> Option<&Decisions> {
        self.access.as_ref()?.decisions.as_ref()
    }

    /// Whether both are the same, as far as their tokens say. Without tokens all are.
    pub fn is_same(&self, other: &Self) -> bool {
        self.claims == other.claims
    }

    /// The client that its token binds it to, whatever it says to be.
    pub fn bound_client(&self) -> Option<&str> {
        self.claims.client.as_deref()
    }

    fn client<'a>(&'a self, named: &'a str) -> &'a str {
        match (&self.claims.client, &self.claims.subject) {
            (Some(client), _) => client,
            (None, Some(subject)) if named.is_empty() => subject,
            _ => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_the_same_if_their_tokens_say_the_same_of_them() {
        let caller = |client: Option<&str>, subject: Option<&str>| Caller {
            access: None,
            claims: Claims {
                client: client.map(Arc::from),
                subject: subject.map(Arc::from),
            },
        };
        let one = caller(Some("c"), Some("s"));
        assert!(one.is_same(&caller(Some("c"), Some("s"))));
        assert!(caller(None, None).is_same(&Caller::default()));
        for other in [
            caller(Some("d"), Some("s")),
            caller(Some("c"), Some("t")),
            caller(None, Some("s")),
            caller(Some("c"), None),
        ] {
            assert!(!one.is_same(&other));
        }
    }

    #[test]
    fn what_is_longer_than_any_client_or_channel_is_nobodys_whatever_rules_say() {
        let all = r#"[{"ClientID":".*","Channel":".*","Queues":true,"Read":true}]"#;
        let access = Access::new(AccessConfig {
            authentication: None,
            authorization: Some(RulesSource::Inline(all.to_owned())),
        });
        let caller = access.unwrap().authenticate(None).unwrap();
        let may = |client: usize, channel: usize| {
            let (client, channel) = ("c".repeat(client), "q".repeat(channel));
            caller.may_channel(&client, Action::Read, Pattern::Queues, &channel)
        };
        assert!(may(CLIENT_BYTES_MAX, CHANNEL_BYTES_MAX));
        assert!(!may(CLIENT_BYTES_MAX + 1, 1));
        assert!(!may(1, CHANNEL_BYTES_MAX + 1));
    }
}
