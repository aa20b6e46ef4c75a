//! Gateways that encrypt, and clients that do.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flotilla_gateway::Security;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint, Error};

use crate::certificates::{Authority, Identity};

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes());
    found.collect::<Result<_, _>>().expect("certificates")
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key")
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority.pem()) {
        roots.add(certificate).expect("an authority");
    }
    roots
}

fn provider() -> Arc<tokio_rustls::rustls::crypto::CryptoProvider> {
    Arc::new(tokio_rustls::rustls::crypto::ring::default_provider())
}

/// A gateway that encrypts, and asks for certificates of clients if there is somebody to vouch for them.
pub fn encrypted(server: &Identity, clients: Option<&Authority>) -> Security {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(roots(authority));
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let config = builder.with_single_cert(certificates(&server.certificate), key(&server.key));
    let config = config.expect("a certificate with its key");
    Security {
        tls: Some(Arc::new(config)),
        ..Security::default()
    }
}

/// A connection of a client that trusts an authority and shows who it is, if it can.
pub async fn connect(
    address: SocketAddr,
    authority: &Authority,
    client: Option<&Identity>,
) -> Result<Channel, Error> {
    let connector = Encrypting {
        address,
        tls: connector(authority, client, b"h2"),
    };
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await
}

fn connector(authority: &Authority, client: Option<&Identity>, protocol: &[u8]) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(authority));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder
            .with_client_auth_cert(certificates(&client.certificate), key(&client.key))
            .expect("a certificate with its key"),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A socket of a client that trusts an authority and speaks a protocol.
pub async fn socket(
    address: SocketAddr,
    authority: &Authority,
    protocol: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let connector = Encrypting {
        address,
        tls: connector(authority, None, protocol),
    };
    connector.socket().await
}

#[derive(Clone)]
struct Encrypting {
    address: SocketAddr,
    tls: TlsConnector,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl Service<http::Uri> for Encrypting {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { Ok(TokioIo::new(connector.socket().await?)) })
    }
}

impl Encrypting {
    async fn socket(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        self.tls.connect(name, stream).await
    }
}
