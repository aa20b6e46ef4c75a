//! Who may come in, and what they may do: encryption, tokens, access rules.

use std::path::PathBuf;

use flotilla_gateway::access::Algorithm;

use super::*;

/// Longest list of rules that is written where other keys are.
const RULES_BYTES_MAX: usize = 64 * 1024;

pub(super) const KEYS: &[Key] = &[
    text("tls.cert_file", "", FILE, |c, path| {
        c.tls.cert_file = file(path);
        true
    }),
    text("tls.key_file", "", FILE, |c, path| {
        c.tls.key_file = file(path);
        true
    }),
    text("tls.client_ca_file", "", FILE, |c, path| {
        c.tls.client_ca_file = file(path);
        true
    }),
    flag("tls.admin", "true", |c, on| c.tls.admin = on),
    text(
        "authentication.algorithm",
        OFF,
        "off, HS256, HS384, HS512, RS256, RS384, RS512, ES256 or ES384",
        |c, name| {
            c.authentication.algorithm = Algorithm::named(name);
            c.authentication.algorithm.is_some() || name == OFF
        },
    ),
    secret(text(
        "authentication.key",
        "",
        "a secret, a public key in PEM, or \"\" for none",
        |c, key| {
            key.clone_into(&mut c.authentication.key);
            true
        },
    )),
    text("authentication.key_file", "", FILE, |c, path| {
        c.authentication.key_file = file(path);
        true
    }),
    text(
        "authentication.client_claim",
        "",
        "up to 255 bytes, or \"\" for none",
        |c, claim| {
            c.authentication.client_claim = (!claim.is_empty()).then(|| claim.to_owned());
            claim.len() <= 255
        },
    ),
    text(
        "authorization.rules",
        "",
        "a JSON array of up to 64 KiB, or \"\" for none",
        |c, rules| {
            c.authorization.rules = (!rules.is_empty()).then(|| rules.to_owned());
            rules.len() <= RULES_BYTES_MAX
        },
    ),
    text("authorization.rules_file", "", FILE, |c, path| {
        c.authorization.rules_file = file(path);
        true
    }),
    period_or_off(
        "authorization.reload_interval",
        "10s",
        SECOND_MS / 10,
        DAY_MS,
        |c, ms| c.authorization.reload_interval = ms.map(Duration::from_millis),
    ),
];

const FILE: &str = "the path of a file, or \"\" for none";

fn file(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}
