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
fn operators_from_elsewhere_show_certificates_where_clients_show_tokens() {
    let open = "[listen]\nadmin = \"10.0.0.1:7777\"\n";
    let tls = "[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n";
    for asked in [
        "[authentication]\nalgorithm = \"HS256\"\nkey = \"k\"\n",
        "[authorization]\nrules = \"[]\"\n",
        "[authorization]\nrules_file = \"f\"\n",
    ] {
        let text = refusal(from_toml(&format!("{open}{tls}{asked}")));
        for part in [
            "listen.admin",
            "it takes no tokens",
            "tls.client_ca_file",
            "listen.allow_insecure = true",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        from_toml(&format!("{open}{tls}client_ca_file = \"a\"\n{asked}")).unwrap();
        from_toml(&format!("{open}allow_insecure = true\n{tls}{asked}")).unwrap();
        let loopback = open.replace("10.0.0.1", "127.0.0.1");
        from_toml(&format!("{loopback}{tls}{asked}")).unwrap();
        let clients = open.replace("admin", "kubemq");
        from_toml(&format!("{clients}{tls}{asked}")).unwrap();
    }
}

#[test]
fn a_secret_is_not_shown() {
    let config = from_toml("[authentication]\nalgorithm = \"HS256\"\nkey = \"sesame\"").unwrap();
    assert!(!format!("{config:?}").contains("sesame"));
    for wrong in [
        "[authentication]\nkey = \"sesame\"",
        "[authentication]\nkey = [[\"sesame\"]]",
        "[authentication.key]\nsesame = 1",
    ] {
        let text = refusal(from_toml(wrong));
        assert!(!text.contains("sesame"), "{text}");
    }
    let text = refusal(from_toml("[authentication]\nkey = [[\"sesame\"]]"));
    assert!(text.starts_with("authentication.key = \"…\" "), "{text}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_place_and_not_with_what_stands_there() {
    for (text, line, column) in [
        ("[authentication]\nkey = \"sesame", 2, 14),
        ("[authentication]\nkey = sesame\n", 2, 7),
        (
            "[authentication]\nalgorithm = \"\"\"ö\nö\"\"\" sesame",
            3,
            6,
        ),
    ] {
        let refused = refusal(from_toml(text));
        assert!(!refused.contains("sesame"), "{refused}");
        let place = format!("is not valid TOML at line {line}, column {column}: ");
        assert!(refused.contains(&place), "{place} in {refused}");
    }
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
