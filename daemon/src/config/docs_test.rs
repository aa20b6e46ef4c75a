//! Holds `docs/configuration.md` against the table of keys.

use super::keys;

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// The beginning of a key's row: name, environment variable, default, what is allowed.
fn row(key: &keys::Key) -> String {
    let default = match key.default {
        "" => "\"\"",
        default => default,
    };
    format!(
        "| `{}` | `{}` | `{default}` | {} |",
        key.name,
        key.environment(),
        key.field.allowed()
    )
}

#[test]
fn the_document_lists_every_key_with_its_default_and_its_range() {
    let missing: Vec<_> = keys::all()
        .map(row)
        .filter(|row| !DOCUMENT.contains(row.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "rows to be put into docs/configuration.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_document_names_no_key_that_is_gone() {
    for line in DOCUMENT.lines().filter(|line| line.starts_with("| `")) {
        let name = line.split('`').nth(1).unwrap_or_default();
        assert!(keys::named(name).is_some(), "{name} is no key");
    }
}
