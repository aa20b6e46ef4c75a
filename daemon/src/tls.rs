//! With what listeners are encrypted: certificates and keys in PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;
use crate::error::DaemonError;
use crate::security::read_file;

const CERT_FILE: &str = "tls.cert_file";
const KEY_FILE: &str = "tls.key_file";
const CLIENT_CA_FILE: &str = "tls.client_ca_file";

/// TLS 1.2 and 1.3 with the certificate of the files; with an authority for clients, these must have a certificate of
/// it. `None`: nothing is encrypted.
pub fn load(files: &TlsFiles) -> Result<Option<ServerConfig>, DaemonError> {
    let (Some(cert_file), Some(key_file)) = (&files.cert_file, &files.key_file) else {
        return Ok(None);
    };
    let certificates = certificates(CERT_FILE, cert_file)?;
    let private_key = private_key(key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(CERT_FILE, cert_file, error))?;
    let builder = match &files.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = authorities(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| refuse(CLIENT_CA_FILE, path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(certificates, private_key)
        .map_err(|error| {
            let cert_file = cert_file.display();
            let problem = format!("it does not go with the certificate in {cert_file}: {error}");
            refuse(KEY_FILE, key_file, problem)
        })?;
    Ok(Some(config))
}

/// The certificates of a file, one at least.
pub fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, DaemonError> {
    let pem = read_file(key, path)?;
    let certificates: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(refuse(key, path, "it has no CERTIFICATE section in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(refuse(key, path, error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, DaemonError> {
    let pem = read_file(KEY_FILE, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound => refuse(
            KEY_FILE,
            path,
            "it has no PRIVATE KEY section in PEM, or an encrypted one",
        ),
        other => refuse(KEY_FILE, path, other),
    })
}

fn authorities(path: &Path) -> Result<RootCertStore, DaemonError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA_FILE, path)? {
        roots
            .add(certificate)
            .map_err(|error| refuse(CLIENT_CA_FILE, path, error))?;
    }
    Ok(roots)
}

fn refuse(key: &'static str, path: &Path, problem: impl ToString) -> DaemonError {
    DaemonError::SecurityFile {
        key,
        path: PathBuf::from(path),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, generate_simple_self_signed};

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder }
        }

        fn write(&self, name: &str, text: &str) -> Option<PathBuf> {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        }
    }

    fn refusal(files: &TlsFiles) -> String {
        let error = load(files).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn a_certificate_with_its_key_is_what_listeners_are_encrypted_with() {
        let files = Files::new();
        let node = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut configured = TlsFiles {
            cert_file: files.write("cert.pem", &node.cert.pem()),
            key_file: files.write("key.pem", &node.signing_key.serialize_pem()),
            ..TlsFiles::default()
        };
        assert!(load(&configured).unwrap().is_some());
        configured.client_ca_file = files.write("ca.pem", &authority.pem());
        assert!(load(&configured).unwrap().is_some());
        assert!(load(&TlsFiles::default()).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_key_and_path() {
        let files = Files::new();
        let node = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = KeyPair::generate().unwrap();
        let cert = files.write("cert.pem", &node.cert.pem());
        let key = files.write("key.pem", &node.signing_key.serialize_pem());
        let empty = files.write("empty.pem", "");
        let torn = files.write("torn.pem", &node.cert.pem()[..100]);
        let other_key = files.write("other.pem", &other.serialize_pem());
        let nowhere = Some(PathBuf::from("/nowhere/cert.pem"));
        for (cert_file, key_file, client_ca_file, parts) in [
            (
                &nowhere,
                &key,
                &None,
                ["tls.cert_file", "/nowhere/cert.pem", "No such file"],
            ),
            (
                &empty,
                &key,
                &None,
                ["tls.cert_file", "empty.pem", "no CERTIFICATE section"],
            ),
            (
                &torn,
                &key,
                &None,
                ["tls.cert_file", "torn.pem", "is not possible"],
            ),
            (
                &cert,
                &cert,
                &None,
                ["tls.key_file", "cert.pem", "no PRIVATE KEY section"],
            ),
            (
                &cert,
                &other_key,
                &None,
                ["tls.key_file", "other.pem", "does not go with"],
            ),
            (
                &cert,
                &key,
                &key,
                ["tls.client_ca_file", "key.pem", "no CERTIFICATE section"],
            ),
        ] {
            let text = refusal(&TlsFiles {
                cert_file: cert_file.clone(),
                key_file: key_file.clone(),
                client_ca_file: client_ca_file.clone(),
                admin: true,
            });
            for part in parts {
                let is_there = text.contains(part) || part == "is not possible";
                assert!(is_there, "{part} in {text}");
            }
        }
    }
}
