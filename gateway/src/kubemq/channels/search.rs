//! Which channels are searched for. Clients disagree about what a search is: a regular expression, a pattern
//! with `*`, or a part of the name. Each finds here what it means.

use regex_lite::{Regex, RegexBuilder};

use crate::kubemq::error::RequestError;

/// Longest search, in bytes.
const SEARCH_BYTES_MAX: usize = 1_024;
/// What a compiled expression may take, in bytes: as much as the longest pattern. Looking at a name takes as long
/// as the product of both.
const COMPILED_BYTES_MAX: usize = 96 * 1024;

/// A search for channels.
pub struct Search {
    text: String,
    /// `None`: for all.
    pattern: Option<Regex>,
}

impl Search {
    /// All for nothing and for `*`; else a regular expression somewhere in the name; if it is none, `*` and
    /// `?` stand for any text and any character.
    pub fn new(text: &str) -> Result<Self, RequestError> {
        if text.len() > SEARCH_BYTES_MAX {
            return Err(RequestError::Carried {
                what: "the search",
                bytes: text.len(),
                allowed: SEARCH_BYTES_MAX,
            });
        }
        let pattern = match text {
            "" | "*" => None,
            _ => Some(
                compile(text)
                    .or_else(|| compile(&glob(text)))
                    .ok_or(RequestError::SearchTooLarge)?,
            ),
        };
        Ok(Self {
            text: text.to_owned(),
            pattern,
        })
    }

    /// Whether it finds every name.
    pub fn is_for_all(&self) -> bool {
        self.pattern.is_none()
    }

    /// A full name always finds itself, whatever its characters mean.
    pub fn matches(&self, name: &str) -> bool {
        match &self.pattern {
            Some(pattern) => name == self.text || pattern.is_match(name),
            None => true,
        }
    }
}

fn compile(expression: &str) -> Option<Regex> {
    RegexBuilder::new(expression)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .ok()
}

fn glob(text: &str) -> String {
    let mut expression = String::from("^(?s:");
    for character in text.chars() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            literal => expression.push_str(&regex_lite::escape(literal.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push_str(")$");
    expression
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 6] = [
        "orders",
        "orders.eu",
        "orders.us",
        "my-orders",
        "a+b",
        "häuser",
    ];

    fn found(text: &str) -> Vec<&'static str> {
        let search = Search::new(text).unwrap();
        let names = NAMES.into_iter();
        names.filter(|name| search.matches(name)).collect()
    }

    #[test]
    fn each_client_finds_what_it_means() {
        assert_eq!(found(""), NAMES);
        assert_eq!(found("*"), NAMES);
        let orders = &NAMES[..4];
        assert_eq!(found("orders"), orders, "a part of the name");
        assert_eq!(found("^orders"), &NAMES[..3], "an expression");
        assert_eq!(found("orders.*"), orders, "an expression, and no pattern");
        assert_eq!(found("(eu|us)$"), ["orders.eu", "orders.us"]);
        assert_eq!(found("*orders"), ["orders", "my-orders"], "a pattern");
        assert_eq!(found("*ders.?s"), ["orders.us"]);
        assert_eq!(found("*(eu"), [""; 0]);
        assert_eq!(found("a+b"), ["a+b"], "a name finds itself");
        assert_eq!(found("*äus*"), ["häuser"]);
    }

    #[test]
    fn a_search_that_takes_too_much_is_refused() {
        let huge = Search::new(&"x".repeat(1_025)).err().unwrap();
        assert_eq!(
            huge.to_string(),
            "the search has 1025 bytes, at most 1024 are allowed"
        );
        // An expression beyond its bound is taken for a pattern, which is small.
        assert!(!Search::new("(x{1000}){1000}").unwrap().matches("x"));
    }

    #[test]
    fn no_pattern_is_too_large() {
        for part in ["*", "?", "*?", "*a", "+*"] {
            let text = part.repeat(SEARCH_BYTES_MAX / part.len());
            assert!(Search::new(&text).is_ok(), "{part}");
            assert!(compile(&glob(&text)).is_some(), "{part}");
        }
    }

    proptest! {
        #[test]
        fn any_search_finds_the_name_that_it_is(text in "\\PC{0,40}") {
            prop_assert!(Search::new(&text).unwrap().matches(&text));
        }
    }
}
