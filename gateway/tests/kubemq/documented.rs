//! The page on this protocol names all that clients can send and get.

use std::collections::BTreeSet;

const PROTO: &str = include_str!("../../../proto/kubemq/kubemq.proto");
const PAGE: &str = include_str!("../../../docs/kubemq.md");

/// Methods, fields, and values of enums but for those that say nothing.
fn named_in_proto() -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for line in PROTO.lines().map(str::trim) {
        let declared = if let Some(method) = line.strip_prefix("rpc ") {
            method.split('(').next()
        } else if line.starts_with("//") || line.starts_with("syntax") {
            None
        } else {
            let declaration = line.split(" = ").next().filter(|_| line.contains(" = "));
            declaration.and_then(|declaration| declaration.split(' ').next_back())
        };
        let says_something =
            |name: &&str| !name.ends_with("Unknown") && !name.ends_with("Undefined");
        names.extend(declared.filter(says_something));
    }
    names
}

/// What stands between backticks, and in links to parts of the page.
fn named_on_page() -> BTreeSet<&'static str> {
    let marked = PAGE.split('`').skip(1).step_by(2);
    let linked = PAGE
        .lines()
        .filter(|line| line.starts_with("| [") || line.starts_with("### "));
    let words = |text: &'static str| text.split(|c: char| !c.is_ascii_alphanumeric());
    marked.chain(linked).flat_map(words).collect()
}

#[test]
fn every_call_field_and_value_is_on_the_page() {
    let (in_proto, on_page) = (named_in_proto(), named_on_page());
    assert!(in_proto.len() > 100, "{in_proto:?}");
    let missing: Vec<_> = in_proto.difference(&on_page).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
