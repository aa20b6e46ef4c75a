//! Tokens: who calls, as somebody says whose key is known.
//!
//! A token that was found good is remembered until it expires, in bounds and by its digest, so that a call costs
//! no signature. What was found bad is not: whoever sends it pays for it each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode};
use parking_lot::RwLock;
use serde_json::{Map, Value};

use super::signatures;
use super::{Algorithm, AuthenticationConfig, CLIENT_BYTES_MAX};
use crate::error::GatewayError;

/// Longest token: what a server of this protocol accepts as header fields, about.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Tokens that are remembered.
const REMEMBERED_MAX: usize = 4_096;
/// The word that may stand before a token.
const SCHEME: &[u8] = b"Bearer ";

/// Why a call is not taken. The texts are those of KubeMQ's protocol, which other protocols share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "Error 421: authentication verification failed, the call has no token in its authorization metadata"
    )]
    Missing,
    #[error(
        "Error 421: authentication verification failed, the token has {bytes} bytes, at most {TOKEN_BYTES_MAX} are allowed"
    )]
    TooLong { bytes: usize },
    #[error("Error 421: authentication verification failed, the token has expired")]
    Expired,
    #[error("Error 421: authentication verification failed, the token is not valid yet")]
    TooEarly,
    #[error("Error 421: authentication verification failed, the signature of the token is wrong")]
    Signature,
    #[error(
        "Error 421: authentication verification failed, the token must be signed with {allowed}"
    )]
    Algorithm { allowed: Algorithm },
    #[error(
        "Error 421: authentication verification failed, the token must name its client as {claim}"
    )]
    Client { claim: String },
    #[error("Error 421: authentication verification failed, the token cannot be read: {reason}")]
    Malformed { reason: String },
}

/// What a token says of who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The client that it is for, where tokens say so.
    pub client: Option<Arc<str>>,
    pub subject: Option<Arc<str>>,
}

/// Verifies tokens.
pub struct Tokens {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
    client_claim: Option<String>,
    remembered: RwLock<HashMap<[u8; 32], Good>>,
}

/// A token that was good.
struct Good {
    claims: Claims,
    expires_unix_s: Option<f64>,
}

impl Good {
    fn is_over(&self, now_unix_s: f64) -> bool {
        self.expires_unix_s
            .is_some_and(|expires| expires <= now_unix_s)
    }
}

impl Tokens {
    pub fn new(config: &AuthenticationConfig) -> Result<Self, GatewayError> {
        // An error says that this was done before.
        let _ = signatures::PROVIDER.install_default();
        let algorithm = config.algorithm;
        let of_tokens = algorithm.of_tokens();
        let wrong = |reason| GatewayError::TokenKey { algorithm, reason };
        let key = if algorithm.is_secret() {
            if config.key.is_empty() {
                return Err(wrong("the secret is empty".to_owned()));
            }
            DecodingKey::from_secret(&config.key)
        } else {
            let key = signatures::public_key(of_tokens, &config.key).map_err(wrong)?;
            match algorithm {
                Algorithm::Es256 | Algorithm::Es384 => DecodingKey::from_ec_der(&key),
                _ => DecodingKey::from_rsa_der(&key),
            }
        };
        let mut validation = Validation::new(of_tokens);
        // A token without an end is good for ever, as with the servers that clients know.
        validation.required_spec_claims.clear();
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.leeway = 0;
        Ok(Self {
            algorithm,
            key,
            validation,
            client_claim: config.client_claim.clone(),
            remembered: RwLock::new(HashMap::new()),
        })
    }

    /// Who calls with this header.
    pub fn verify(&self, authorization: Option<&[u8]>) -> Result<Claims, TokenError> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        self.verify_at(authorization, since_epoch.unwrap_or_default().as_secs_f64())
    }

    fn verify_at(
        &self,
        authorization: Option<&[u8]>,
        now_unix_s: f64,
    ) -> Result<Claims, TokenError> {
        let token = token_of(authorization.unwrap_or_default());
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: token.len() });
        }
        let digest: [u8; 32] = blake3::hash(token).into();
        if let Some(good) = self.remembered.read().get(&digest) {
            return if good.is_over(now_unix_s) {
                Err(TokenError::Expired)
            } else {
                Ok(good.claims.clone())
            };
        }
        let good = self.look_at(token)?;
        if good.is_over(now_unix_s) {
            return Err(TokenError::Expired);
        }
        let claims = good.claims.clone();
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, good| !good.is_over(now_unix_s));
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, good);
        Ok(claims)
    }

    fn look_at(&self, token: &[u8]) -> Result<Good, TokenError> {
        let decoded = decode::<Map<String, Value>>(token, &self.key, &self.validation)
            .map_err(|error| self.refusal(error.into_kind()))?;
        // What a token says to be critical must be understood, and nothing of that kind is.
        if decoded.header.crit.is_some_and(|names| !names.is_empty()) {
            return Err(TokenError::Malformed {
                reason: "it has critical header fields".to_owned(),
            });
        }
        let claims = decoded.claims;
        let text = |claim: &str| {
            claims
                .get(claim)
                .and_then(Value::as_str)
                .filter(|text| (1..=CLIENT_BYTES_MAX).contains(&text.len()))
                .map(Arc::from)
        };
        let client = match &self.client_claim {
            None => None,
            Some(claim) => Some(text(claim).ok_or_else(|| TokenError::Client {
                claim: claim.clone(),
            })?),
        };
        Ok(Good {
            expires_unix_s: claims.get("exp").and_then(Value::as_f64),
            claims: Claims {
                client,
                subject: text("sub"),
            },
        })
    }

    fn refusal(&self, kind: ErrorKind) -> TokenError {
        match kind {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::TooEarly,
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm => TokenError::Algorithm {
                allowed: self.algorithm,
            },
            other => TokenError::Malformed {
                reason: jsonwebtoken::errors::new_error(other).to_string(),
            },
        }
    }
}

/// A header's token: clients send it as it is, or with a word before it.
fn token_of(authorization: &[u8]) -> &[u8] {
    let text = authorization.trim_ascii_start();
    let token = match text.split_at_checked(SCHEME.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(SCHEME) => token,
        _ => text,
    };
    token.trim_ascii()
}

#[cfg(test)]
#[path = "tokens_any_test.rs"]
mod any_tests;
#[cfg(test)]
#[path = "tokens_test.rs"]
mod tests;
