//! Keys of encryption, tokens and rules: what goes together, and what is not shown.

use super::tests::{from_toml, refusal};

#[test]
fn what_is_encrypted_may_be_reached_by_others_and_links_between_nodes_are_not() {
    let tls = "[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n";
    let open = |listener: &str| format!("{tls}[listen]\n{listener} = \"10.0.0.1:7777\"");
    from_toml(&open("kubemq")).unwrap();
    from_toml(&open("admin")).unwrap();
    let text = refusal(from_toml(&open("cluster")));
    for part in [
        "listen.cluster",
        "nodes do not encrypt",
        "listen.allow_insecure = true",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let plain_admin = format!("[listen]\nadmin = \"10.0.0.1:7777\"\n{tls}admin = false");
    let text = refusal(from_toml(&plain_admin));
    assert!(
        text.contains("listen.admin") && text.contains("tls.admin = false"),
        "{text}"
    );
}

#[test]
fn a_secret_is_not_shown() {
    let config = from_toml("[authentication]\nalgorithm = \"HS256\"\nkey = \"sesame\"").unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
    let text = refusal(from_toml("[authentication]\nkey = \"sesame\""));
    assert!(!text.contains("sesame"), "{text}");
}

#[test]
fn what_does_not_go_together_is_refused_at_the_key_to_change() {
    for (text, key) in [
        ("[tls]\ncert_file = \"c\"", "tls.key_file"),
        ("[tls]\nkey_file = \"k\"", "tls.cert_file"),
        ("[tls]\nclient_ca_file = \"c\"", "tls.cert_file"),
        (
            "[authentication]\nalgorithm = \"HS256\"",
            "authentication.key_file",
        ),
        (
            "[authentication]\nalgorithm = \"HS256\"\nkey = \"k\"\nkey_file = \"f\"",
            "authentication.key_file",
        ),
        (
            "[authentication]\nkey_file = \"f\"",
            "authentication.algorithm",
        ),
        (
            "[authentication]\nclient_claim = \"sub\"",
            "authentication.client_claim",
        ),
        (
            "[authorization]\nrules = \"[]\"\nrules_file = \"f\"",
            "authorization.rules_file",
        ),
        (
            "[kubemq]\nvisibility_default = \"13h\"",
            "kubemq.visibility_default",
        ),
    ] {
        let text = refusal(from_toml(text));
        assert!(text.starts_with(key), "{key} in {text}");
    }
}
