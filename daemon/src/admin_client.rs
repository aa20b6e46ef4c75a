//! Asks the admin interface of a running node, for the commands of the program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::error::DaemonError;
use crate::security::read_file;
use crate::tls;

/// Longest answer that is read: a cluster of a thousand nodes and shards fits.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Where a node's admin interface is.
pub struct AdminClient {
    agent: Agent,
    url: String,
}

/// How a node is known that encrypts its interface, and how it knows who asks.
#[derive(Clone, Debug, Default, Args)]
pub struct Trust {
    /// For https: the authority of the node's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The certificate to show to a node that asks for one, in PEM.
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// How the interface tells what is wrong.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalDetail,
}

#[derive(Deserialize)]
struct RefusalDetail {
    message: String,
}

impl Trust {
    fn tls_config(&self) -> Result<TlsConfig, DaemonError> {
        let certificates = |flag, path: &PathBuf| {
            let found = tls::certificates(flag, path)?;
            let owned = found
                .iter()
                .map(|one| Certificate::from_der(one).to_owned());
            Ok::<_, DaemonError>(owned.collect::<Vec<_>>())
        };
        let roots = match &self.ca_file {
            Some(path) => certificates("--ca-file", path)?,
            None => Vec::new(),
        };
        let shown = match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let pem = read_file("--key-file", key_file)?;
                let key =
                    PrivateKey::from_pem(&pem).map_err(|error| DaemonError::SecurityFile {
                        key: "--key-file",
                        path: key_file.clone(),
                        problem: error.to_string(),
                    })?;
                let chain = certificates("--cert-file", cert_file)?;
                Some(ClientCert::new_with_certs(&chain, key))
            }
            _ => None,
        };
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(shown)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }
}

impl AdminClient {
    /// Asks at `url` (`http://host:port` or `https://host:port`), with `timeout` for the whole of each answer.
    pub fn new(url: &str, timeout: Duration, trust: &Trust) -> Result<Self, DaemonError> {
        let refuse = |problem: &str| DaemonError::Admin {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        let is_encrypted = url.starts_with("https://");
        let is_admin = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"))
            .map(|rest| rest.trim_end_matches('/'))
            .is_some_and(|host| !host.is_empty() && !host.contains('/'));
        if !is_admin {
            return Err(refuse(
                "must have the form http://host:port or https://host:port",
            ));
        }
        if is_encrypted && trust.ca_file.is_none() {
            return Err(refuse(
                "needs --ca-file with the authority of the node's certificate",
            ));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            // What refusals say is in their bodies.
            .http_status_as_error(false)
            .max_redirects(0)
            // The node is near: a proxy that the environment names is for other places.
            .proxy(None)
            .tls_config(trust.tls_config()?)
            .build();
        Ok(Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// The status and the body of a path.
    pub fn read(&self, path: &str) -> Result<(StatusCode, String), DaemonError> {
        self.answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// The body of a path that must be there.
    pub fn get(&self, path: &str) -> Result<String, DaemonError> {
        self.accepted(self.read(path)?)
    }

    /// Has something done, and gives the body of the answer.
    pub fn post(&self, path: &str) -> Result<String, DaemonError> {
        let answer = self.agent.post(format!("{}{path}", self.url)).send_empty();
        self.accepted(self.answer(answer)?)
    }

    /// Has something changed to what a JSON text says.
    pub fn put(&self, path: &str, json: &str) -> Result<(), DaemonError> {
        let request = self.agent.put(format!("{}{path}", self.url));
        let answer = request.content_type("application/json").send(json);
        self.accepted(self.answer(answer)?).map(drop)
    }

    /// The error that the node, or the way to it, has this problem.
    pub fn fail(&self, problem: impl Into<String>) -> DaemonError {
        DaemonError::Admin {
            url: self.url.clone(),
            problem: problem.into(),
        }
    }

    fn answer(
        &self,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<(StatusCode, String), DaemonError> {
        let mut answer = answer.map_err(|error| self.fail(error.to_string()))?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        match body.read_to_string() {
            Ok(body) => Ok((answer.status(), body)),
            Err(error) => Err(self.fail(error.to_string())),
        }
    }

    fn accepted(&self, (status, body): (StatusCode, String)) -> Result<String, DaemonError> {
        if status.is_success() {
            return Ok(body);
        }
        let reason = serde_json::from_str::<Refusal>(&body)
            .map_or_else(|_| body.trim().to_owned(), |refusal| refusal.error.message);
        Err(self.fail(format!("{reason} (status {})", status.as_u16())))
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// A node that answers one request, which must begin like this, with these bytes.
    pub fn answering(request: &'static str, answer: &'static str) -> AdminClient {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = [0; 1024];
            let read = stream.read(&mut received).unwrap();
            assert!(received[..read].starts_with(request.as_bytes()));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        AdminClient::new(&url, TIMEOUT, &Trust::default()).unwrap()
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let client = answering(
            "GET /a ",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nyes\n",
        );
        assert_eq!(client.get("/a").unwrap(), "yes\n");
    }

    #[test]
    fn a_change_is_sent_as_json() {
        let client = answering(
            "PUT /a HTTP/1.1\r\n",
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        );
        client.put("/a", "{}").unwrap();
    }

    #[test]
    fn a_refusal_is_told_in_the_nodes_words() {
        let client = answering(
            "POST /a ",
            "HTTP/1.1 409 Conflict\r\nconnection: close\r\n\r\n\
             {\"error\":{\"code\":\"conflict\",\"message\":\"it is the last one\"}}",
        );
        let error = client.post("/a").unwrap_err().to_string();
        for part in ["http://127.0.0.1:", "it is the last one", "409"] {
            assert!(error.contains(part), "{part:?} in {error}");
        }
    }

    #[test]
    fn what_is_no_admin_interface_is_an_error_that_names_it() {
        for url in ["", "127.0.0.1:1", "https://x:1", "http://", "http://a/b"] {
            let error = AdminClient::new(url, TIMEOUT, &Trust::default())
                .err()
                .unwrap();
            assert!(error.to_string().starts_with(url), "{error}");
        }
        let nonsense = answering("GET /a ", "hello");
        assert!(nonsense.get("/a").is_err());
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let client = AdminClient::new(&url, TIMEOUT, &Trust::default()).unwrap();
        let error = client.get("/a").unwrap_err().to_string();
        assert!(error.contains(&url), "{error}");
    }
}
