//! What records allow, and which cannot be.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const PATTERNS: [(Pattern, &str); 5] = [
    (Pattern::Events, "Events"),
    (Pattern::EventsStore, "EventsStore"),
    (Pattern::Queues, "Queues"),
    (Pattern::Commands, "Commands"),
    (Pattern::Queries, "Queries"),
];

fn rules(json: &str) -> Rules {
    Rules::parse(json.as_bytes()).unwrap()
}

fn refusal(json: &str) -> String {
    Rules::parse(json.as_bytes()).err().unwrap().to_string()
}

#[test]
fn a_record_allows_its_patterns_and_actions_and_no_others() {
    for (pattern, field) in PATTERNS {
        for (action, flag) in [(Action::Read, "Read"), (Action::Write, "Write")] {
            let rules = rules(&format!(
                "[{{\"ClientID\":\"c\",\"Channel\":\"a\",\"{field}\":true,\"{flag}\":true}}]"
            ));
            for (other, _) in PATTERNS {
                for other_action in [Action::Read, Action::Write] {
                    assert_eq!(
                        rules.allow("c", other, "a", other_action),
                        (other, other_action) == (pattern, action),
                    );
                }
            }
        }
    }
}

#[test]
fn the_whole_client_and_the_whole_channel_must_match() {
    let rules = rules(
        r#"[{"ClientID":"app-[0-9]+|ops","Channel":"orders\\..*","Queues":true,"Read":true}]"#,
    );
    let may = |client, channel| rules.allow(client, Pattern::Queues, channel, Action::Read);
    for (client, channel, expected) in [
        ("app-1", "orders.eu", true),
        ("ops", "orders.", true),
        ("app-1x", "orders.eu", false),
        ("xops", "orders.eu", false),
        ("ops2", "orders.eu", false),
        ("app-1", "xorders.eu", false),
        ("app-1", "orders", false),
        ("", "orders.eu", false),
    ] {
        assert_eq!(may(client, channel), expected, "{client} {channel}");
    }
}

#[test]
fn one_record_that_says_yes_is_enough_and_none_allows_nothing() {
    let rules = rules(
        r#"[{"ClientID":"a","Channel":".*","Queues":true,"Read":true},
            {"ClientID":".*","Channel":"open","Queues":true,"Read":true,"Write":true}]"#,
    );
    assert_eq!(rules.len(), 2);
    let may = |client, channel, action| rules.allow(client, Pattern::Queues, channel, action);
    assert!(may("a", "secret", Action::Read));
    assert!(!may("a", "secret", Action::Write));
    assert!(may("b", "open", Action::Write));
    assert!(!may("b", "secret", Action::Read));
    let none = Rules::parse(b"[]").unwrap();
    assert!(none.is_empty() && !none.allow("a", Pattern::Queues, "open", Action::Read));
}

#[test]
fn what_is_wrong_with_records_is_told_with_its_place() {
    for (json, parts) in [
        ("{}", vec!["not a JSON array"]),
        ("[", vec!["not a JSON array"]),
        ("[{\"Channel\":\"a\"}]", vec!["ClientID"]),
        ("[{\"ClientID\":\"a\"}]", vec!["Channel"]),
        (
            "[{\"ClientID\":\"a\",\"Channel\":\"b\",\"Wirte\":true}]",
            vec!["Wirte", "Write"],
        ),
        (
            "[{\"ClientID\":\"a\",\"Channel\":\"b\"},{\"ClientID\":\"a\",\"Channel\":\"(b\"}]",
            vec![
                "access record 2",
                "Channel \"(b\"",
                "not a regular expression",
            ],
        ),
        (
            "[{\"ClientID\":\"a)|(b\",\"Channel\":\"b\"}]",
            vec!["access record 1", "ClientID"],
        ),
        (
            "[{\"ClientID\":\"\",\"Channel\":\"b\"}]",
            vec!["ClientID has 0 bytes, 1 to 1024 are allowed"],
        ),
        (
            "[{\"ClientID\":\"(x{1000}){1000}\",\"Channel\":\"b\"}]",
            vec!["access record 1", "ClientID"],
        ),
    ] {
        let text = refusal(json);
        for part in parts {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    let record = "{\"ClientID\":\"a\",\"Channel\":\"b\"}";
    let many = format!("[{}]", vec![record; RECORDS_MAX + 1].join(","));
    assert_eq!(
        refusal(&many),
        "1025 access records, at most 1024 are allowed"
    );
}

proptest! {
    /// Without characters that mean something, a record is for exactly the client and the channel that it names.
    #[test]
    fn plain_words_allow_themselves_only(
        client in "[a-z0-9-]{1,8}",
        channel in "[a-z0-9-]{1,8}",
        other_client in "[a-z0-9-]{0,8}",
        other_channel in "[a-z0-9-]{0,8}",
    ) {
        let rules = rules(&format!(
            "[{{\"ClientID\":\"{client}\",\"Channel\":\"{channel}\",\"Events\":true,\"Write\":true}}]"
        ));
        prop_assert!(rules.allow(&client, Pattern::Events, &channel, Action::Write));
        prop_assert_eq!(
            rules.allow(&other_client, Pattern::Events, &other_channel, Action::Write),
            other_client == client && other_channel == channel,
        );
    }

    /// A list allows exactly what its records allow one by one.
    #[test]
    fn more_records_never_allow_less_and_never_more_than_they_do_alone(
        records in proptest::collection::vec(
            (
                select(vec!["a", "b", "[ab]", "a|c", ".*"]),
                select(vec!["x", "y", "[xy]", "x|z", ".*"]),
                any::<[bool; 7]>(),
            ), 0..5),
        client in "[abc]",
        channel in "[xyz]",
    ) {
        let texts: Vec<String> = records.iter().map(|(client, channel, flags)| {
            let [events, store, queues, commands, queries, read, write] = flags;
            format!(
                "{{\"ClientID\":\"{client}\",\"Channel\":\"{channel}\",\"Events\":{events},\
                 \"EventsStore\":{store},\"Queues\":{queues},\"Commands\":{commands},\
                 \"Queries\":{queries},\"Read\":{read},\"Write\":{write}}}"
            )
        }).collect();
        let all = rules(&format!("[{}]", texts.join(",")));
        let alone: Vec<Rules> = texts.iter().map(|text| rules(&format!("[{text}]"))).collect();
        for (pattern, _) in PATTERNS {
            for action in [Action::Read, Action::Write] {
                prop_assert_eq!(
                    all.allow(&client, pattern, &channel, action),
                    alone.iter().any(|one| one.allow(&client, pattern, &channel, action)),
                );
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "\\PC{0,40}") {
        let _ = Rules::parse(&bytes);
        let record = serde_json::json!([{"ClientID": text, "Channel": text, "Queues": true, "Read": true}]);
        if let Ok(rules) = Rules::parse(record.to_string().as_bytes()) {
            rules.allow(&text, Pattern::Queues, &text, Action::Read);
        }
    }
}
