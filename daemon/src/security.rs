//! Certificates, keys and access rules, read once before anything else starts, so that what is wrong with them is
//! told at once.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flotilla_gateway::access::{Access, AccessConfig, AuthenticationConfig, RulesSource};
use rustls::ServerConfig;

use crate::config::{Authentication, Authorization, Config};
use crate::error::DaemonError;
use crate::tls;

/// Longest file with certificates or a key.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How those who connect are let in.
pub struct Security {
    /// At the listeners for clients.
    pub clients: flotilla_gateway::Security,
    /// With what the admin interface is encrypted, if it is.
    pub admin_tls: Option<ServerConfig>,
}

impl Security {
    /// Reads all files that the configuration names for it.
    pub fn load(config: &Config) -> Result<Self, DaemonError> {
        let tls = tls::load(&config.tls)?;
        let access = Access::new(AccessConfig {
            authentication: authentication(&config.authentication)?,
            authorization: authorization(&config.authorization),
        });
        Ok(Self {
            clients: flotilla_gateway::Security {
                access: access.map_err(DaemonError::Access)?,
                tls: tls.clone().map(Arc::new),
            },
            admin_tls: tls.filter(|_| config.tls.admin),
        })
    }
}

fn authentication(
    configured: &Authentication,
) -> Result<Option<AuthenticationConfig>, DaemonError> {
    let Some(algorithm) = configured.algorithm else {
        return Ok(None);
    };
    let key = match &configured.key_file {
        None => configured.key.clone().into_bytes(),
        Some(path) => {
            let mut key = read_file("authentication.key_file", path)?;
            // Editors end each line; no secret is meant to.
            while key.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                key.pop();
            }
            key
        }
    };
    Ok(Some(AuthenticationConfig {
        algorithm,
        key,
        client_claim: configured.client_claim.clone(),
    }))
}

fn authorization(configured: &Authorization) -> Option<RulesSource> {
    match (&configured.rules, &configured.rules_file) {
        (Some(rules), _) => Some(RulesSource::Inline(rules.clone())),
        (None, Some(path)) => Some(RulesSource::File {
            path: path.clone(),
            reload_interval: configured.reload_interval,
        }),
        (None, None) => None,
    }
}

/// The bytes of a file that a key names.
pub fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, DaemonError> {
    let refuse = |problem: String| DaemonError::SecurityFile {
        key,
        path: path.to_owned(),
        problem,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_gateway::access::Algorithm;

    fn key_of(text: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        let configured = Authentication {
            algorithm: Some(Algorithm::Hs256),
            key_file: Some(path),
            ..Authentication::default()
        };
        authentication(&configured).unwrap().unwrap().key
    }

    #[test]
    fn a_secret_in_a_file_does_not_end_with_its_line() {
        assert_eq!(key_of("secret\n"), b"secret");
        assert_eq!(key_of("secret\r\n"), b"secret");
        assert_eq!(key_of(" se cret"), b" se cret");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_key() {
        let error = read_file("tls.key_file", Path::new("/nowhere/key.pem")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        for part in ["tls.key_file", "/nowhere/key.pem", "No such file"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
