//! Sends to several channels at once: `events:a;queues:b;routes:k`.
//!
//! ```text
//!   item of the list              goes to
//!   events:, events_store:,       the channel of that pattern
//!   queues:
//!   no prefix                     the channel of the sender's own pattern
//!   routes:KEY                    what is configured under the key        (routes)
//! ```
//!
//! Nothing is sent unless every target may be one. What has neither `;` nor one of the prefixes is a plain
//! channel, and no more than that is looked at.

mod routes;

use flotilla_model::name::{Kind, Name};

use super::error::{RequestError, shown};
use super::validate;

pub use routes::Routes;

/// What divides the items of a list.
const DIVIDER: char = ';';
const ROUTE_PREFIX: &str = "routes:";
/// The other prefixes, and what the channels after them are.
const PREFIXES: [(&str, Kind); 3] = [
    ("events:", Kind::Signal),
    ("events_store:", Kind::Topic),
    ("queues:", Kind::Queue),
];

/// Whether the channel of a send is a list of targets. A colon elsewhere is part of a name.
pub fn is_list(channel: &str) -> bool {
    channel.contains(DIVIDER)
        || channel.starts_with(ROUTE_PREFIX)
        || PREFIXES
            .iter()
            .any(|(prefix, _)| channel.starts_with(prefix))
}

/// One channel that a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target<'a> {
    /// What it is; nothing: what the sender sends to.
    kind: Option<Kind>,
    channel: &'a str,
}

/// An item of a list.
#[derive(Debug, PartialEq, Eq)]
enum Item<'a> {
    Target(Target<'a>),
    /// All that is configured under a key.
    Route(&'a str),
}

impl Target<'_> {
    /// Its name, for a sender of this kind.
    fn name(&self, own: Kind) -> Result<Name, RequestError> {
        validate::name(self.kind.unwrap_or(own), self.channel)
    }
}

fn items(list: &str) -> impl Iterator<Item = Item<'_>> {
    list.split(DIVIDER).map(|item| {
        let item = item.trim();
        if let Some(key) = item.strip_prefix(ROUTE_PREFIX) {
            return Item::Route(key);
        }
        let prefixed = PREFIXES
            .iter()
            .find_map(|(prefix, kind)| Some((item.strip_prefix(prefix)?, *kind)));
        Item::Target(match prefixed {
            Some((channel, kind)) => Target {
                kind: Some(kind),
                channel,
            },
            None => Target {
                kind: None,
                channel: item,
            },
        })
    })
}

/// The targets of a list, for a sender of this kind: each once, in the order in which they are named.
///
/// Refused where one of them may not be a target, or where there are more than `targets_max`, those that
/// are named twice included.
pub fn targets(
    list: &str,
    own: Kind,
    routes: &Routes,
    targets_max: usize,
) -> Result<Vec<Name>, RequestError> {
    let mut found: Vec<Name> = Vec::new();
    let mut named = 0;
    let mut add = |target: Target<'_>| {
        named += 1;
        if named > targets_max {
            return Err(RequestError::TargetsMax {
                allowed: targets_max,
            });
        }
        let name = target.name(own)?;
        if !found.contains(&name) {
            found.push(name);
        }
        Ok(())
    };
    for item in items(list) {
        match item {
            Item::Target(target) => add(target)?,
            Item::Route(key) => {
                let route = routes
                    .get(key)
                    .ok_or_else(|| RequestError::RouteUnknown { key: shown(key) })?;
                route
                    .iter()
                    .try_for_each(|target| add(target.as_target()))?;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes() -> Routes {
        Routes::from_json(
            r#"[{"Key":"audit","Routes":"events_store:audit.all; queues:audit"},
                {"Key":"own","Routes":"copy"}]"#,
        )
        .unwrap()
    }

    fn names(list: &str, own: Kind) -> Result<Vec<String>, String> {
        targets(list, own, &routes(), 4)
            .map(|names| {
                let text = |name: &Name| format!("{} {}", name.kind(), name.text());
                names.iter().map(text).collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_divider_or_a_known_prefix_makes_a_list() {
        for list in [
            "a;b",
            ";",
            "events:a",
            "events_store:a",
            "queues:a",
            "routes:k",
        ] {
            assert!(is_list(list), "{list}");
        }
        for plain in ["", "a", "orders:new", "a.events:b", "event:a", "commands:a"] {
            assert!(!is_list(plain), "{plain}");
        }
    }

    #[test]
    fn every_item_is_a_target_of_its_pattern_and_a_bare_one_of_the_senders() {
        let list = "foo.bar; foo.bar.1 ;events_store:store.foo;queues:q1";
        assert_eq!(
            names(list, Kind::Signal).unwrap(),
            [
                "signal foo.bar",
                "signal foo.bar.1",
                "topic store.foo",
                "queue q1"
            ]
        );
        assert_eq!(
            names("events:a;b:c", Kind::Queue).unwrap(),
            ["signal a", "queue b:c"]
        );
        assert_eq!(names("a;b", Kind::Topic).unwrap(), ["topic a", "topic b"]);
    }

    #[test]
    fn a_key_stands_for_what_is_configured_under_it() {
        assert_eq!(
            names("routes:audit", Kind::Signal).unwrap(),
            ["topic audit.all", "queue audit"]
        );
        assert_eq!(
            names("a;routes:own", Kind::Queue).unwrap(),
            ["queue a", "queue copy"]
        );
        assert_eq!(
            names("a;routes:none", Kind::Queue).unwrap_err(),
            "route \"none\" is not configured"
        );
    }

    #[test]
    fn a_target_that_is_named_twice_gets_the_message_once() {
        assert_eq!(
            names("queues:audit;routes:audit", Kind::Signal).unwrap(),
            ["queue audit", "topic audit.all"]
        );
        assert_eq!(names("a;queues:a", Kind::Queue).unwrap(), ["queue a"]);
        assert_eq!(names("a;queues:a", Kind::Signal).unwrap().len(), 2);
    }

    #[test]
    fn each_target_is_held_to_the_rules_of_its_pattern() {
        let queue = RequestError::QueueName.to_string();
        for (list, own, text) in [
            ("a;", Kind::Signal, RequestError::ChannelEmpty.to_string()),
            ("a;", Kind::Queue, queue.clone()),
            ("queues:", Kind::Signal, queue.clone()),
            ("a;queues:b.*", Kind::Signal, queue),
            (
                "a;events:b.*",
                Kind::Queue,
                RequestError::ChannelWildcard.to_string(),
            ),
            (
                "a;events_store:b c",
                Kind::Queue,
                RequestError::ChannelSpace.to_string(),
            ),
            (
                "events:b.",
                Kind::Queue,
                RequestError::ChannelDot.to_string(),
            ),
        ] {
            assert_eq!(names(list, own).unwrap_err(), text, "{list}");
        }
    }

    #[test]
    fn targets_are_bounded_those_of_routes_included() {
        assert_eq!(names("a;b;c;d", Kind::Queue).unwrap().len(), 4);
        let text = "the channel names more than 4 targets: name fewer of them";
        for list in ["a;b;c;d;e", "a;a;a;a;a", "a;b;c;routes:audit"] {
            assert_eq!(names(list, Kind::Queue).unwrap_err(), text, "{list}");
        }
    }

    proptest! {
        /// No text makes it panic, and no list has more targets than are allowed, nor one of them twice.
        #[test]
        fn any_text_is_a_list_or_refused(list in "(events:|queues:|routes:|events_store:|[;a-c. *]|\\PC){0,40}") {
            if let Ok(found) = targets(&list, Kind::Signal, &routes(), 4) {
                prop_assert!((1..=4).contains(&found.len()));
                for (place, name) in found.iter().enumerate() {
                    prop_assert!(!found[..place].contains(name));
                }
            }
        }
    }
}
