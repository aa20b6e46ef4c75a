//! Configured routes: which targets a key stands for.

use std::collections::BTreeMap;

use flotilla_model::name::Kind;
use serde::Deserialize;

use super::{Item, Target, items};
use crate::error::GatewayError;

/// Routes at most: they are all kept in memory.
const ROUTES_MAX: usize = 10_000;

/// What `routes:KEY` stands for, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(BTreeMap<String, Vec<Configured>>);

/// A target of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    kind: Option<Kind>,
    channel: String,
}

/// A route as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "Key", alias = "key")]
    key: String,
    #[serde(rename = "Routes", alias = "routes")]
    routes: String,
}

impl Configured {
    pub(super) fn as_target(&self) -> Target<'_> {
        Target {
            kind: self.kind,
            channel: &self.channel,
        }
    }
}

impl Routes {
    /// Reads `[{"Key":"k","Routes":"events:a;queues:b"}]`; nothing at all is no routes.
    pub fn from_json(text: &str) -> Result<Self, GatewayError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let written: Vec<Written> =
            serde_json::from_str(text).map_err(|source| GatewayError::RoutesSyntax { source })?;
        if written.len() > ROUTES_MAX {
            return Err(GatewayError::RoutesMax {
                routes: written.len(),
                allowed: ROUTES_MAX,
            });
        }
        let mut routes = BTreeMap::new();
        for Written { key, routes: list } in written {
            let wrong = |problem: String| GatewayError::Route {
                key: key.clone(),
                problem,
            };
            // Other keys could not be named in a list.
            if key.is_empty() || key.contains(super::DIVIDER) || key.trim() != key {
                return Err(wrong(
                    "a key has at least one character, no `;`, and no white space around it"
                        .to_owned(),
                ));
            }
            let targets = configured(&list).map_err(wrong)?;
            if routes.insert(key.clone(), targets).is_some() {
                return Err(wrong("the key is there twice".to_owned()));
            }
        }
        Ok(Self(routes))
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The route with the most targets, and how many those are.
    pub fn longest(&self) -> Option<(&str, usize)> {
        let lengths = self
            .0
            .iter()
            .map(|(key, route)| (key.as_str(), route.len()));
        lengths.max_by_key(|(_, targets)| *targets)
    }

    pub(super) fn get(&self, key: &str) -> Option<&[Configured]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

/// The targets of a route; `Err` says what is wrong with it.
fn configured(list: &str) -> Result<Vec<Configured>, String> {
    let target = |item| match item {
        Item::Route(other) => Err(format!(
            "it names route {other:?}, and a route may not name another one"
        )),
        Item::Target(target) => {
            // A bare name is held to the rules that all senders share; a queue's have another text only.
            let checked = target.name(Kind::Topic);
            checked.map_err(|error| format!("its target {:?}: {error}", target.channel))?;
            Ok(Configured {
                kind: target.kind,
                channel: target.channel.to_owned(),
            })
        }
    };
    items(list).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Routes::from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn routes_are_read_from_json_in_either_case() {
        let routes = Routes::from_json(
            r#"[{"Key":"a","Routes":"events:x; queues:y"},{"key":"b","routes":"z"}]"#,
        )
        .unwrap();
        assert_eq!(routes.longest(), Some(("a", 2)));
        assert_eq!(routes.get("b").map(<[_]>::len), Some(1));
        assert!(routes.get("c").is_none());
        assert!(Routes::from_json(" ").unwrap().is_empty());
        assert!(Routes::from_json("[]").unwrap().is_empty());
    }

    #[test]
    fn a_route_that_names_another_one_is_refused_by_name() {
        assert_eq!(
            refusal(r#"[{"Key":"a","Routes":"x"},{"Key":"b","Routes":"y;routes:a"}]"#),
            "route \"b\": it names route \"a\", and a route may not name another one"
        );
    }

    #[test]
    fn what_could_never_be_sent_to_is_refused_at_the_start() {
        assert_eq!(
            refusal(r#"[{"Key":"a","Routes":"x;events:y.*"}]"#),
            "route \"a\": its target \"y.*\": Error 107: invalid channel value, no wildcards are allowed"
        );
        assert!(refusal(r#"[{"Key":"a","Routes":""}]"#).contains("Error 102"));
        assert!(refusal(r#"[{"Key":"a","Routes":"queues:x y"}]"#).contains("Error 120"));
    }

    #[test]
    fn keys_are_names_of_their_own() {
        let twice = r#"[{"Key":"a","Routes":"x"},{"Key":"a","Routes":"y"}]"#;
        assert_eq!(refusal(twice), "route \"a\": the key is there twice");
        for key in ["", "a;b", " a"] {
            let text = refusal(&format!(r#"[{{"Key":"{key}","Routes":"x"}}]"#));
            assert!(text.contains("a key has at least one character"), "{text}");
        }
    }

    #[test]
    fn other_json_is_refused_with_what_is_expected() {
        for text in [
            "{}",
            "[1]",
            "x",
            r#"[{"Key":"a"}]"#,
            r#"[{"Key":"a","Routes":"x","y":1}]"#,
        ] {
            let said = refusal(text);
            assert!(said.starts_with("routes are JSON such as [{"), "{said}");
        }
    }
}
