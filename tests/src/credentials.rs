//! What servers and clients of a test know each other by: certificates, tokens, access rules.

use std::path::PathBuf;

use crate::workdir::WorkDir;

#[path = "../../gateway/tests/kubemq/certificates.rs"]
mod certificates;

use certificates::Authority;

const SECRET: &str = "the secret of these tests";

/// The files of a test.
pub struct Credentials {
    folder: PathBuf,
}

/// Settings of a server.
pub type Settings = Vec<(&'static str, String)>;

impl Credentials {
    /// With a certificate for servers at these addresses.
    pub fn new(work: &WorkDir, addresses: &[&str]) -> Self {
        let credentials = Self {
            folder: work.path().to_owned(),
        };
        let authority = Authority::new();
        let node = authority.server(addresses);
        let client = authority.client();
        for (name, text) in [
            ("ca.pem", authority.pem()),
            ("node.pem", node.certificate),
            ("node.key", node.key),
            ("client.pem", client.certificate),
            ("client.key", client.key),
            ("secret", format!("{SECRET}\n")),
            ("rules.json", rules()),
        ] {
            credentials.write(name, &text);
        }
        credentials
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }

    pub fn path(&self, name: &str) -> String {
        let path = self.folder.join(name);
        path.to_str().expect("a path of text").to_owned()
    }

    /// Encrypted.
    pub fn tls(&self) -> Settings {
        vec![
            ("FLOTILLA_TLS_CERT_FILE", self.path("node.pem")),
            ("FLOTILLA_TLS_KEY_FILE", self.path("node.key")),
        ]
    }

    /// And for those only that show a certificate.
    pub fn mutual_tls(&self) -> Settings {
        let mut settings = self.tls();
        settings.push(("FLOTILLA_TLS_CLIENT_CA_FILE", self.path("ca.pem")));
        settings
    }

    /// For those only that have a token.
    pub fn tokens(&self) -> Settings {
        vec![
            ("FLOTILLA_AUTHENTICATION_ALGORITHM", "HS256".to_owned()),
            ("FLOTILLA_AUTHENTICATION_KEY_FILE", self.path("secret")),
        ]
    }

    /// `writer` may send to channels that begin with `open`, `reader` may read them, of every pattern.
    pub fn rules(&self) -> Settings {
        vec![("FLOTILLA_AUTHORIZATION_RULES_FILE", self.path("rules.json"))]
    }

    /// What the Python tests need to be let in.
    pub fn environment(&self) -> Settings {
        vec![
            ("FLOTILLA_SECRET", SECRET.to_owned()),
            ("FLOTILLA_CA_FILE", self.path("ca.pem")),
            ("FLOTILLA_CERT_FILE", self.path("client.pem")),
            ("FLOTILLA_KEY_FILE", self.path("client.key")),
        ]
    }
}

fn rules() -> String {
    let record = |client: &str, action: &str| {
        serde_json::json!({
            "ClientID": client,
            "Channel": "open.*",
            "Events": true,
            "EventsStore": true,
            "Queues": true,
            "Commands": true,
            "Queries": true,
            action: true,
        })
    };
    serde_json::json!([record("writer", "Write"), record("reader", "Read")]).to_string()
}
