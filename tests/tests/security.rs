//! Who is let in: the real SDKs and the program itself, with certificates, tokens and rules.

use std::process::Output;

use flotilla_tests::credentials::{Credentials, Settings};
use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::server::{Options, Server};
use flotilla_tests::signed::Signer;
use flotilla_tests::workdir::WorkDir;

const ADDRESSES: [&str; 2] = ["localhost", "127.0.0.1"];

fn options(work: &WorkDir, settings: Settings) -> Options {
    let options = Options::new(&work.join("data"), &work.join("server.log"))
        .set("FLOTILLA_STORAGE_RESERVE", "16MiB");
    settings
        .into_iter()
        .fold(options, |options, (key, value)| options.set(key, value))
}

fn start(options: &Options) -> Server {
    options.start().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs the SDK's tests against a server with these settings.
fn run(
    sdk: Sdk,
    file: &str,
    settings: impl FnOnce(&Credentials) -> Settings,
    environment: impl FnOnce(&Credentials) -> Settings,
) {
    let work = WorkDir::new("security");
    let credentials = Credentials::new(&work, &ADDRESSES);
    let server = start(&options(&work, settings(&credentials)));
    let environment = environment(&credentials);
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    run_pytest(sdk, file, &server.kubemq().to_string(), &environment);
    let status = server.terminate().expect("a graceful end");
    assert!(status.success(), "the server ended with {status}");
}

#[test]
fn kubemq_1_1_0_under_rules() {
    run(
        Sdk::V1_1_0,
        "test_access_old.py",
        Credentials::rules,
        |_| Vec::new(),
    );
}

#[test]
fn kubemq_2_4_0_under_rules_with_tokens_over_tls() {
    run(
        Sdk::V2_4_0,
        "test_access_old.py",
        |files| [files.tls(), files.tokens(), files.rules()].concat(),
        Credentials::environment,
    );
}

fn mutual(files: &Credentials) -> Settings {
    [files.mutual_tls(), files.tokens(), files.rules()].concat()
}

#[test]
fn kubemq_3_6_0_under_rules_with_tokens_over_mutual_tls() {
    let file = "test_access_new.py";
    run(Sdk::V3_6_0, file, mutual, Credentials::environment);
}

#[test]
fn kubemq_4_1_5_under_rules_with_tokens_over_mutual_tls() {
    let file = "test_access_new.py";
    run(Sdk::V4_1_5, file, mutual, Credentials::environment);
}

#[test]
fn kubemq_3_6_0_is_denied_with_a_reason() {
    let file = "test_access_denied.py";
    run(Sdk::V3_6_0, file, mutual, Credentials::environment);
}

#[test]
fn kubemq_4_1_5_is_denied_with_a_reason() {
    let file = "test_access_denied.py";
    run(Sdk::V4_1_5, file, mutual, Credentials::environment);
}

#[test]
fn asynchronous_clients_of_kubemq_4_1_5_under_rules_with_tokens_over_mutual_tls() {
    let file = "test_access_async.py";
    run(Sdk::V4_1_5, file, mutual, Credentials::environment);
}

#[test]
fn kubemq_3_6_0_under_rules_with_tokens_over_tls() {
    run(
        Sdk::V3_6_0,
        "test_mid_access_tls.py",
        |files| [files.tls(), files.tokens(), files.rules()].concat(),
        Credentials::environment,
    );
}

#[test]
fn kubemq_4_1_5_under_rules_with_tokens_over_tls() {
    run(
        Sdk::V4_1_5,
        "test_access_tls.py",
        |files| [files.tls(), files.tokens(), files.rules()].concat(),
        Credentials::environment,
    );
}

/// Who only has the public key cannot make a token of it, by no algorithm.
#[test]
fn tokens_of_a_private_key_are_known_by_its_public_half() {
    let signer = Signer::new();
    let (key, signed) = (signer.public_key(), signer.token(r#"{"sub":"client"}"#));
    for sdk in [Sdk::V2_4_0, Sdk::V3_6_0, Sdk::V4_1_5] {
        run(
            sdk,
            "test_access_signed.py",
            |files| {
                files.write("public.pem", &key);
                vec![
                    ("FLOTILLA_AUTHENTICATION_ALGORITHM", "ES256".to_owned()),
                    ("FLOTILLA_AUTHENTICATION_KEY_FILE", files.path("public.pem")),
                ]
            },
            |files| {
                vec![
                    ("FLOTILLA_SIGNED_TOKEN", signed.clone()),
                    ("FLOTILLA_PUBLIC_KEY_FILE", files.path("public.pem")),
                ]
            },
        );
    }
}

fn health(options: &Options, arguments: &[&str]) -> Output {
    let mut program = options.program();
    program.arg("health").args(arguments);
    program.output().expect("the program runs")
}

#[test]
fn operators_are_known_by_their_certificates_too() {
    let work = WorkDir::new("security");
    let files = Credentials::new(&work, &ADDRESSES);
    let options = options(&work, files.mutual_tls());
    let server = start(&options);
    let url = format!("https://{}", server.admin());
    let (ca, cert, key) = (
        files.path("ca.pem"),
        files.path("client.pem"),
        files.path("client.key"),
    );
    let admin = ["--admin", url.as_str(), "--ca-file", ca.as_str()];
    let known = [&admin[..], &["--cert-file", &cert, "--key-file", &key]].concat();
    let answer = health(&options, &known);
    let text = String::from_utf8_lossy(&answer.stdout);
    assert!(
        answer.status.success() && text.contains("ready"),
        "{answer:?}"
    );
    let plain = url.replace("https", "http");
    for unknown in [&admin[..], &["--admin", &plain], &["--admin", &url]] {
        let answer = health(&options, unknown);
        assert!(!answer.status.success(), "{unknown:?}: {answer:?}");
    }
    server.terminate().expect("a graceful end");
}

#[test]
fn a_start_with_wrong_files_is_refused_with_their_keys() {
    let work = WorkDir::new("security");
    let files = Credentials::new(&work, &ADDRESSES);
    let refused = |settings: Settings, parts: &[&str]| {
        let output = options(&work, settings).command().output();
        let output = output.expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    };
    let mut other_key = files.tls();
    other_key[1].1 = files.path("client.key");
    refused(
        other_key,
        &["tls.key_file", "client.key", "does not go with"],
    );
    files.write("rules.json", "[{\"ClientID\":\"a\",\"Channel\":\"(\"}]");
    refused(
        files.rules(),
        &["rules.json", "access record 1", "Channel \"(\""],
    );
    let mut no_public_key = files.tokens();
    no_public_key[0].1 = "RS256".to_owned();
    refused(no_public_key, &["RS256", "no PUBLIC KEY section"]);
    refused(
        vec![("FLOTILLA_LISTEN_KUBEMQ", "0.0.0.0:0".to_owned())],
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
    let work = WorkDir::new("security");
    let mut settings = Credentials::new(&work, &ADDRESSES).tls();
    for listener in ["FLOTILLA_LISTEN_KUBEMQ", "FLOTILLA_LISTEN_ADMIN"] {
        settings.push((listener, "0.0.0.0:0".to_owned()));
    }
    let server = start(&options(&work, settings));
    server.terminate().expect("a graceful end");
}
