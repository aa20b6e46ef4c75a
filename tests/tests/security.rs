//! Who is let in: the real SDKs and the program itself, with certificates, tokens and rules.

use std::path::PathBuf;
use std::process::Output;

use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::server::{Options, Server};
use flotilla_tests::workdir::WorkDir;

#[path = "../../gateway/tests/kubemq/certificates.rs"]
mod certificates;

use certificates::Authority;

const SECRET: &str = "the secret of these tests";

/// `writer` may send to channels that begin with `open`, `reader` may read them, of every pattern.
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

/// A server's files, and what its clients need.
struct Secured {
    work: WorkDir,
    options: Options,
}

impl Secured {
    fn new() -> Self {
        let work = WorkDir::new("security");
        let options = Options::new(&work.join("data"), &work.join("server.log"))
            .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
        Self { work, options }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work.join(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }

    fn set(mut self, key: &str, value: impl Into<std::ffi::OsString>) -> Self {
        self.options = self.options.set(key, value);
        self
    }

    fn with_rules(self) -> Self {
        let path = self.file("rules.json", &rules());
        self.set("FLOTILLA_AUTHORIZATION_RULES_FILE", path)
    }

    fn with_tokens(self) -> Self {
        let path = self.file("secret", &format!("{SECRET}\n"));
        self.set("FLOTILLA_AUTHENTICATION_ALGORITHM", "HS256")
            .set("FLOTILLA_AUTHENTICATION_KEY_FILE", path)
    }

    /// Encrypted, and with certificates of clients if they are to have some.
    fn with_tls(self, is_mutual: bool) -> Self {
        let authority = Authority::new();
        let node = authority.server(&["localhost", "127.0.0.1"]);
        let client = authority.client();
        self.file("ca.pem", &authority.pem());
        self.file("client.pem", &client.certificate);
        self.file("client.key", &client.key);
        let certificate = self.file("node.pem", &node.certificate);
        let key = self.file("node.key", &node.key);
        let ca = self.work.join("ca.pem");
        let secured = self
            .set("FLOTILLA_TLS_CERT_FILE", certificate)
            .set("FLOTILLA_TLS_KEY_FILE", key);
        if is_mutual {
            secured.set("FLOTILLA_TLS_CLIENT_CA_FILE", ca)
        } else {
            secured
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.work.join(name);
        path.to_str().expect("a path of text").to_owned()
    }

    fn start(&self) -> Server {
        self.options
            .start()
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs the SDK's tests against it.
    fn run(&self, sdk: Sdk, file: &str, environment: &[(&str, &str)]) {
        let server = self.start();
        run_pytest(sdk, file, &server.kubemq().to_string(), environment);
        let status = server.terminate().expect("a graceful end");
        assert!(status.success(), "the server ended with {status}");
    }

    fn run_encrypted(&self, sdk: Sdk, file: &str) {
        let environment = [
            ("FLOTILLA_SECRET", SECRET),
            ("FLOTILLA_CA_FILE", &self.path("ca.pem")),
            ("FLOTILLA_CERT_FILE", &self.path("client.pem")),
            ("FLOTILLA_KEY_FILE", &self.path("client.key")),
        ];
        self.run(sdk, file, &environment);
    }
}

#[test]
fn kubemq_1_1_0_under_rules() {
    let secured = Secured::new().with_rules();
    secured.run(Sdk::V1_1_0, "test_access_old.py", &[]);
}

#[test]
fn kubemq_2_4_0_under_rules_with_tokens_over_tls() {
    let secured = Secured::new().with_rules().with_tokens().with_tls(false);
    secured.run_encrypted(Sdk::V2_4_0, "test_access_old.py");
}

#[test]
fn kubemq_3_6_0_under_rules_with_tokens_over_mutual_tls() {
    let secured = Secured::new().with_rules().with_tokens().with_tls(true);
    secured.run_encrypted(Sdk::V3_6_0, "test_access_new.py");
}

#[test]
fn kubemq_4_1_5_under_rules_with_tokens_over_mutual_tls() {
    let secured = Secured::new().with_rules().with_tokens().with_tls(true);
    secured.run_encrypted(Sdk::V4_1_5, "test_access_new.py");
}

fn health(secured: &Secured, arguments: &[&str]) -> Output {
    let mut program = secured.options.program();
    program.arg("health").args(arguments);
    program.output().expect("the program runs")
}

#[test]
fn operators_are_known_by_their_certificates_too() {
    let secured = Secured::new().with_tls(true);
    let server = secured.start();
    let url = format!("https://{}", server.admin());
    let (ca, cert, key) = (
        secured.path("ca.pem"),
        secured.path("client.pem"),
        secured.path("client.key"),
    );
    let admin = ["--admin", url.as_str(), "--ca-file", ca.as_str()];
    let known = [&admin[..], &["--cert-file", &cert, "--key-file", &key]].concat();
    let answer = health(&secured, &known);
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(
        answer.status.success() && text.contains("ready"),
        "{answer:?}"
    );
    for unknown in [&admin[..], &["--admin", &url.replace("https", "http")]] {
        let answer = health(&secured, unknown);
        assert!(!answer.status.success(), "{unknown:?}: {answer:?}");
    }
    server.terminate().expect("a graceful end");
}

#[test]
fn a_start_with_wrong_files_is_refused_with_their_keys() {
    let refused = |secured: &Secured, parts: &[&str]| {
        let output = secured.options.command().output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    };
    let secured = Secured::new().with_tls(false);
    let key = secured.work.join("client.key");
    let secured = secured.set("FLOTILLA_TLS_KEY_FILE", key);
    refused(
        &secured,
        &["tls.key_file", "client.key", "does not go with"],
    );
    let secured = Secured::new();
    let rules = secured.file("rules.json", "[{\"ClientID\":\"a\",\"Channel\":\"(\"}]");
    let secured = secured.set("FLOTILLA_AUTHORIZATION_RULES_FILE", rules);
    refused(
        &secured,
        &["rules.json", "access record 1", "Channel \"(\""],
    );
    let secured = Secured::new()
        .set("FLOTILLA_AUTHENTICATION_ALGORITHM", "RS256")
        .set("FLOTILLA_AUTHENTICATION_KEY", "no key");
    refused(&secured, &["RS256", "no PUBLIC KEY section"]);
    let secured = Secured::new().set("FLOTILLA_LISTEN_KUBEMQ", "0.0.0.0:0");
    refused(
        &secured,
        &[
            "listen.kubemq",
            "tls.cert_file",
            "listen.allow_insecure = true",
        ],
    );
}

/// Nothing is said of being insecure: a certificate is enough for clients and operators.
#[test]
fn an_encrypted_listener_may_be_reached_by_others() {
    let secured = Secured::new()
        .with_tls(false)
        .set("FLOTILLA_LISTEN_KUBEMQ", "0.0.0.0:0")
        .set("FLOTILLA_LISTEN_ADMIN", "0.0.0.0:0");
    let server = secured.start();
    server.terminate().expect("a graceful end");
}
