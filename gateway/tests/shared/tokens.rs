//! Gateways that ask who calls, and tokens for them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flotilla_gateway::Security;
use flotilla_gateway::access::{
    Access, AccessConfig, Algorithm, AuthenticationConfig, RulesSource,
};
use ring::hmac;
use serde_json::{Value, json};
use tonic::Request;

const SECRET: &[u8] = b"the secret of these tests";

/// Tokens are asked for.
pub fn authentication() -> AuthenticationConfig {
    AuthenticationConfig {
        algorithm: Algorithm::Hs256,
        key: SECRET.to_vec(),
        client_claim: None,
    }
}

/// With tokens, and with rules or without.
pub fn security(
    authentication: Option<AuthenticationConfig>,
    rules: Option<RulesSource>,
) -> Security {
    let access = Access::new(AccessConfig {
        authentication,
        authorization: rules,
    });
    Security {
        access: access.expect("a right configuration"),
        tls: None,
    }
}

/// Rules that are written here, one for each record: client, channel, pattern, actions.
pub fn rules(records: &[(&str, &str, &str, &[&str])]) -> RulesSource {
    RulesSource::Inline(rules_text(records))
}

pub fn rules_text(records: &[(&str, &str, &str, &[&str])]) -> String {
    let records: Vec<Value> = records
        .iter()
        .map(|(client, channel, pattern, actions)| {
            let mut record = json!({"ClientID": client, "Channel": channel});
            record[pattern] = true.into();
            for action in *actions {
                record[action] = true.into();
            }
            record
        })
        .collect();
    Value::from(records).to_string()
}

pub fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET),
        unsigned.as_bytes(),
    );
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A call with a token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let text = token.parse().expect("a header's text");
    request.metadata_mut().insert("authorization", text);
    request
}
