//! The configuration as a user meets it: sources, precedence, and the words of every refusal.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_storage::SyncPolicy;

use super::*;
use crate::error::DaemonError;

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let os = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    pairs.iter().map(os).collect()
}

pub(super) fn from_toml(text: &str) -> Result<Config, DaemonError> {
    let mut layers = Layers::default();
    layers.add_toml(Path::new("flotilla.toml"), text)?;
    layers.build()
}

fn from_environment(name: &str, value: &str) -> Result<Config, DaemonError> {
    let mut layers = Layers::default();
    layers.add_environment(environment(&[(name, value)]).into_iter())?;
    layers.build()
}

fn from_flag(key: &str, text: &str) -> Result<Config, DaemonError> {
    let mut layers = Layers::default();
    layers.add_flags([FlagValue {
        flag: "--set",
        key: key.to_owned(),
        text: text.to_owned(),
    }])?;
    layers.build()
}

pub(super) fn refusal(result: Result<Config, DaemonError>) -> String {
    let error = result.expect_err("the configuration was accepted");
    assert_eq!(error.exit_code(), 2);
    error.chain()
}

#[test]
fn nothing_said_is_one_node_on_loopback_with_synced_writes() {
    let config = Layers::default().build().unwrap();
    assert_eq!(config.data_dir, PathBuf::from("./data"));
    assert_eq!(config.listen.kubemq.unwrap().to_string(), "127.0.0.1:50000");
    assert_eq!(
        config.listen.kubemq_rest.unwrap().to_string(),
        "127.0.0.1:9090"
    );
    assert_eq!(config.listen.admin.unwrap().to_string(), "127.0.0.1:8080");
    assert_eq!(config.cluster.log.sync, SyncPolicy::Always);
    assert_eq!(config.cluster.log.segment_bytes, 64 << 20);
    assert_eq!(config.cluster.log.reserve_bytes, None);
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
}

#[test]
fn defaults_agree_with_those_of_the_parts() {
    let config = Layers::default().build().unwrap();
    let blank = Config::blank();
    assert_eq!(config.broker, blank.broker);
    assert_eq!(config.kubemq, blank.kubemq);
    assert_eq!(config.cluster.topic, blank.cluster.topic);
    assert_eq!(config.cluster.queue, blank.cluster.queue);
    assert_eq!(config.cluster.checkpoint, blank.cluster.checkpoint);
    assert_eq!(config.shard_count(), blank.cluster.shards);
    assert_eq!(
        config.cluster.election_timeout,
        blank.cluster.election_timeout
    );
    assert_eq!(config.cluster.inflight_bytes, blank.cluster.inflight_bytes);
    assert_eq!(config.cluster.expect, blank.cluster.expect);
    assert_eq!(config.cluster.replicas, blank.cluster.replicas);
    assert_eq!(config.cluster.repair_after, blank.cluster.repair_after);
    assert_eq!(config.cluster.verify, blank.cluster.verify);
    assert_eq!(
        config.cluster.log.segment_bytes,
        blank.cluster.log.segment_bytes
    );
}

#[test]
fn key_names_and_environment_names_are_unique_and_known_by_both() {
    let mut seen = HashSet::new();
    for key in keys::all() {
        assert_eq!(key.name.split('.').count(), 2, "{}", key.name);
        assert!(seen.insert(key.name.to_owned()), "{} twice", key.name);
        assert!(seen.insert(key.environment()), "{} twice", key.name);
        from_environment(&key.environment(), key.default).unwrap();
        from_flag(key.name, key.default).unwrap();
    }
}

#[test]
fn the_later_source_wins() {
    let mut layers = Layers::default();
    layers
        .add_toml(
            Path::new("flotilla.toml"),
            "[node]\nname = \"file\"\ndata_dir = \"file\"\nshutdown_grace = \"3s\"",
        )
        .unwrap();
    let variables = environment(&[
        ("FLOTILLA_NODE_NAME", "environment"),
        ("FLOTILLA_NODE_DATA_DIR", "environment"),
    ]);
    layers.add_environment(variables.into_iter()).unwrap();
    layers
        .add_flags([FlagValue {
            flag: "--data-dir",
            key: "node.data_dir".to_owned(),
            text: "flag".to_owned(),
        }])
        .unwrap();
    let config = layers.build().unwrap();
    assert_eq!(config.shutdown_grace, Duration::from_secs(3));
    assert_eq!(config.node_name, "environment");
    assert_eq!(config.data_dir, PathBuf::from("flag"));
}

#[test]
fn a_file_may_use_toml_types_where_they_fit() {
    let config = from_toml(
        "[listen]\nallow_insecure = true\nkubemq = \"\"\nkubemq_rest = \"\"\ncluster = \"\"\n\
         [cluster]\nshards = 8\nexpect = 1\nseeds = []\n\
         [storage]\nsync = \"10ms\"\nreserve = \"1MiB\"\ncache = \"64MiB\"\n\
         [topics]\nretention_size = \"10GiB\"\nretention_age = \"unlimited\"\n\
         [queues]\ndead_letter = \"dead\"",
    )
    .unwrap();
    assert!(config.listen.allow_insecure && config.listen.kubemq.is_none());
    assert_eq!(config.shard_count(), 8);
    assert_eq!(
        config.cluster.log.sync,
        SyncPolicy::Interval(Duration::from_millis(10))
    );
    assert_eq!(config.cluster.log.reserve_bytes, Some(1 << 20));
    assert_eq!(config.cluster.topic.retention_bytes, Some(10 << 30));
    assert_eq!(config.cluster.topic.retention_ms, None);
    assert_eq!(config.cluster.queue.dead_letter.unwrap().text(), "dead");
}

#[test]
fn the_cache_setting_is_the_sum_of_all_caches() {
    let config = from_flag("storage.cache", "64MiB").unwrap().cluster;
    let sum = config.state_cache_bytes
        + config.log.index_cache_bytes
        + config.log.tail_cache_bytes as u64;
    assert_eq!(sum, 64 << 20);
}

#[test]
fn impossible_values_are_refused_with_key_value_source_and_what_is_allowed() {
    let cases = [
        ("storage.segment_size", "64", "with its unit"),
        ("storage.segment_size", "64MB", "from 64KiB to 2GiB"),
        ("storage.segment_size", "3GiB", "from 64KiB to 2GiB"),
        ("storage.sync", "sometimes", "always, or a duration"),
        ("storage.sync", "0ms", "from 1ms to 1m"),
        ("storage.cache", "-1MiB", "a size"),
        ("storage.reserve", "1", "auto, or a size"),
        ("cluster.shards", "0", "from 1 to 1024"),
        ("cluster.shards", "four", "auto, or a whole number"),
        ("cluster.shards", "+4", "a whole number"),
        ("cluster.expect", "0", "from 1 to 64"),
        ("cluster.replicas", "9", "from 1 to 7"),
        ("cluster.feature_level_max", "0", "from 1 to 65535"),
        ("cluster.seeds", "a:7600,,b:7600", "divided by commas"),
        ("cluster.seeds", "http://a:7600", "host:port"),
        ("cluster.seeds", "0.0.0.0:7600", "host:port"),
        ("cluster.advertise", "node-1", "can dial"),
        ("cluster.advertise", "0.0.0.0:7600", "can dial"),
        ("cluster.advertise", "node-1:0", "can dial"),
        ("cluster.election_timeout", "10ms", "from 500ms to 1m"),
        ("cluster.repair_after", "0s", "from 1s to 30d"),
        ("listen.kubemq", "50000", "an IP address and port"),
        ("listen.kubemq", "example.com:50000", "localhost:50000"),
        ("listen.admin", "127.0.0.1:70000", "an IP address and port"),
        ("listen.allow_insecure", "yes", "true or false"),
        ("node.data_dir", "", "directory"),
        ("node.shutdown_grace", "10 seconds", "(ms, s, m, h, d)"),
        ("topics.retention_age", "0ms", "unlimited, or a duration"),
        ("kubemq.version", "2.6", "three numbers"),
        ("kubemq.wait_max", "1500ms", "whole seconds"),
        ("log.format", "xml", "text or json"),
        ("tls.admin", "maybe", "true or false"),
        ("authentication.algorithm", "none", "ES256 or ES384"),
        ("authorization.reload_interval", "1ms", "off, or a duration"),
        ("log.level", "loud", "error, warn, info"),
        ("listen.kubemq_rest", "9090", "an IP address and port"),
        (
            "listen.lonelyps",
            "127.0.0.1:3003",
            "not served by this build",
        ),
        (
            "listen.messagedb",
            "127.0.0.1:5433",
            "not served by this build",
        ),
    ];
    for (key, value, allowed) in cases {
        let by_flag = refusal(from_flag(key, value));
        for part in [key, &format!("{value:?}"), "by flag --set", allowed] {
            assert!(by_flag.contains(part), "{part:?} in {by_flag}");
        }
        let (section, entry) = key.split_once('.').unwrap();
        let by_file = refusal(from_toml(&format!("[{section}]\n{entry} = \"{value}\"")));
        assert!(by_file.contains("in file flotilla.toml"), "{by_file}");
        let name = keys::named(key).unwrap().environment();
        let by_environment = refusal(from_environment(&name, value));
        let source = format!("in environment variable {name}");
        assert!(by_environment.contains(&source), "{by_environment}");
    }
}

#[test]
fn a_whole_refusal_reads_well() {
    assert_eq!(
        refusal(from_environment("FLOTILLA_STORAGE_SEGMENT_SIZE", "64MB")),
        "storage.segment_size = \"64MB\" (in environment variable FLOTILLA_STORAGE_SEGMENT_SIZE) \
         is not possible; allowed: a size from 64KiB to 2GiB with its unit (B, KiB, MiB, GiB, TiB)"
    );
}

#[test]
fn a_value_of_the_wrong_toml_type_is_refused() {
    for text in [
        "[storage]\nsegment_size = 1.5",
        "[storage]\nsegment_size = 67108864",
        "[storage]\nsegment_size = {a = 1}",
        "[cluster]\nshards = [[1]]",
        "[cluster]\nshards = -1",
    ] {
        assert!(
            refusal(from_toml(text)).contains("is not possible"),
            "{text}"
        );
    }
}

#[test]
fn unknown_keys_are_refused_with_the_known_ones() {
    let cases = [
        (
            "[storage]\nsegmentsize = \"1MiB\"",
            "\"storage.segmentsize\"",
            "storage.segment_size",
        ),
        (
            "[stroage]\nsync = \"always\"",
            "\"stroage\"",
            "the sections node, listen",
        ),
        ("sync = \"always\"", "\"sync\"", "the sections"),
        ("[log.level]\nx = 1", "log.level", "error, warn"),
    ];
    for (text, key, known) in cases {
        let text = refusal(from_toml(text));
        for part in [key, known, "in file flotilla.toml"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    let text = refusal(from_environment("FLOTILLA_STORAGE_SYNK", "always"));
    assert!(text.contains("FLOTILLA_STORAGE_SYNK"), "{text}");
    let text = refusal(from_flag("storage.synk", "always"));
    assert!(
        text.contains("by flag --set") && text.contains("storage.sync"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let text = refusal(from_toml("[storage]\nsync = always"));
    assert!(
        text.contains("flotilla.toml") && text.contains("line 2"),
        "{text}"
    );
    let mut layers = Layers::default();
    let error = layers
        .add_file(Path::new("/nowhere/flotilla.toml"))
        .unwrap_err();
    assert!(error.chain().contains("/nowhere/flotilla.toml"), "{error}");
}

#[test]
fn variables_that_are_not_ours_are_left_alone() {
    let variables = environment(&[
        ("PATH", "/bin"),
        ("FLOTILLA_CONFIG", "flotilla.toml"),
        ("FLOTILLA_SERVICE_HOST", "10.0.0.1"),
        ("FLOTILLA_SERVICE_PORT_GRPC", "50000"),
        ("FLOTILLA_PORT", "tcp://10.0.0.1:50000"),
        ("FLOTILLA_PORT_50000_TCP_ADDR", "10.0.0.1"),
        ("FLOTILLA_ADMIN_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ]);
    Layers::default()
        .add_environment(variables.into_iter())
        .unwrap();
    refusal(from_environment("FLOTILLA_ADMIN_PORT", "9000"));
}

#[test]
fn a_variable_that_is_not_text_is_refused_by_name() {
    let mut layers = Layers::default();
    let value = OsString::from_vec(vec![b'a', 0xff]);
    let variables = [(OsString::from("FLOTILLA_NODE_NAME"), value)];
    let error = layers.add_environment(variables.into_iter()).unwrap_err();
    assert!(error.to_string().contains("node.name"), "{error}");
}

#[test]
fn a_listener_that_others_can_reach_needs_consent() {
    for address in ["0.0.0.0:50000", "[::]:50000", "192.168.0.1:50000"] {
        let text = refusal(from_flag("listen.kubemq", address));
        assert!(
            text.contains("listen.kubemq") && text.contains("listen.allow_insecure"),
            "{text}"
        );
    }
    from_flag("listen.admin", "[::1]:0").unwrap();
    from_toml("[listen]\nkubemq = \"0.0.0.0:50000\"\nallow_insecure = true").unwrap();
}

#[test]
fn several_nodes_are_named_by_name_or_number() {
    let config = from_toml(
        "[cluster]\nexpect = 3\nseeds = [\"node-1\", \"10.0.0.2:7601\", \"[::1]\"]\n\
         advertise = \"node-1.example:7700\"\nrepair_after = \"5m\"",
    )
    .unwrap();
    let peers = &config.cluster;
    assert_eq!(peers.seeds, ["node-1:7600", "10.0.0.2:7601", "[::1]:7600"]);
    assert_eq!(peers.advertise.as_deref(), Some("node-1.example:7700"));
    assert_eq!((peers.expect, peers.replicas), (3, 3));
    assert_eq!(peers.repair_after, Duration::from_secs(300));
    // More nodes can share more shards.
    assert_eq!(config.shard_count(), 16);
    let by_environment = from_environment("FLOTILLA_CLUSTER_SEEDS", "a:1, b:2").unwrap();
    assert_eq!(by_environment.cluster.seeds, ["a:1", "b:2"]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (text, key) in [
        ("[listen]\ncluster = \"127.0.0.1:8080\"", "listen.cluster"),
        ("[cluster]\nexpect = 3", "cluster.seeds"),
        (
            "[listen]\ncluster = \"\"\n[cluster]\nseeds = [\"a\"]",
            "listen.cluster",
        ),
        (
            "[listen]\nallow_insecure = true\ncluster = \"0.0.0.0:7600\"",
            "cluster.advertise",
        ),
        ("[storage]\nsync = \"10ms\"", "storage.sync"),
        ("[listen]\nadmin = \"127.0.0.1:50000\"", "listen.admin"),
        (
            "[listen]\nadmin = \"\"\nkubemq = \"\"\nkubemq_rest = \"\"",
            "listen.kubemq",
        ),
        ("[listen]\nkubemq_rest = \"127.0.0.1:8080\"", "listen.admin"),
        (
            "[kubemq]\nrest_body_size_max = \"1GiB\"",
            "kubemq.rest_bodies_size_max",
        ),
        (
            "[broker]\nactors_soft_max = 200000",
            "broker.actors_soft_max",
        ),
        ("[kubemq]\nwait_default = \"2h\"", "kubemq.wait_default"),
    ] {
        let text = refusal(from_toml(text));
        assert!(text.starts_with(key), "{key} in {text}");
    }
    from_toml("[listen]\nadmin = \"127.0.0.1:0\"\nkubemq = \"127.0.0.1:0\"").unwrap();
    from_toml("[listen]\nadmin = \"\"\nkubemq = \"\"").unwrap();
}

const ROUTES: &str = r#"[{"Key":"k","Routes":"events:a;queues:b"}]"#;

#[test]
fn routes_are_a_table_or_json_or_a_file() {
    let expected = flotilla_gateway::Routes::from_json(ROUTES).unwrap();
    let table = from_toml("[kubemq.routes]\nk = \"events:a;queues:b\"").unwrap();
    assert_eq!(table.kubemq.routes, expected);
    let text = from_toml(&format!("[kubemq]\nroutes = '{ROUTES}'")).unwrap();
    assert_eq!(text.kubemq.routes, expected);
    let variable = from_environment("FLOTILLA_KUBEMQ_ROUTES", ROUTES).unwrap();
    assert_eq!(variable.kubemq.routes, expected);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ROUTES).unwrap();
    let path = file.path().display().to_string();
    let of_file = from_flag("kubemq.routes_file", &path).unwrap();
    assert_eq!(of_file.kubemq.routes, expected);

    let both = format!("[kubemq]\nroutes = '{ROUTES}'\nroutes_file = '{path}'");
    let text = refusal(from_toml(&both));
    assert!(text.contains("routes are in one place only"), "{text}");
}

#[test]
fn a_route_with_which_nothing_could_be_sent_stops_the_start_and_is_named() {
    let text = refusal(from_toml(
        "[kubemq.routes]\nfirst = \"a\"\nsecond = \"b;routes:first\"",
    ));
    assert!(
        text.contains(
            "route \"second\": it names route \"first\", and a route may not name another"
        ),
        "{text}"
    );
    let text = refusal(from_toml("[kubemq.routes]\nk = 1"));
    assert!(text.contains("allowed: targets by key"), "{text}");
    let text = refusal(from_toml(
        "[kubemq]\nroute_targets_max = 1\nroutes.k = \"a;b\"",
    ));
    assert!(
        text.contains("at least 2, because route \"k\" has as many targets"),
        "{text}"
    );
    let text = refusal(from_flag("kubemq.routes", "k=a"));
    assert!(text.contains("expected value at line 1 column 1"), "{text}");
    let text = refusal(from_flag("kubemq.routes_file", "/nowhere/routes.json"));
    assert!(text.contains("it cannot be read: No such file"), "{text}");
    let other = "[listen.kubemq]\nk = \"a\"";
    assert!(refusal(from_toml(other)).contains("allowed: an IP address"));
}
