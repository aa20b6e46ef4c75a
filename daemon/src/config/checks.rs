//! Rules between keys, and between keys and the system.

use std::net::SocketAddr;

use flotilla_storage::SyncPolicy;

use super::sections::Config;
use super::units::format_size;

/// A key whose value does not go with another's.
pub struct Problem {
    /// The key to change.
    pub key: &'static str,
    /// What would do.
    pub allowed: String,
}

impl Problem {
    /// With this key.
    pub fn at(key: &'static str, allowed: impl Into<String>) -> Result<(), Self> {
        let allowed = allowed.into();
        Err(Self { key, allowed })
    }
}

/// The listeners of this build, by key.
pub fn listeners(config: &Config) -> [(&'static str, Option<SocketAddr>); 4] {
    [
        ("listen.kubemq", config.listen.kubemq),
        ("listen.kubemq_rest", config.listen.kubemq_rest),
        ("listen.admin", config.listen.admin),
        ("listen.cluster", config.listen.cluster),
    ]
}

/// Checks what one key alone cannot show.
pub fn check(config: &Config) -> Result<(), Problem> {
    check_listeners(config)?;
    check_security(config)?;
    check_peers(config)?;
    if config.broker.actors_soft_max > config.broker.actors_max {
        return Problem::at(
            "broker.actors_soft_max",
            format!("at most broker.actors_max, {}", config.broker.actors_max),
        );
    }
    let rest = &config.kubemq.rest;
    if rest.bodies_bytes_max < rest.body_bytes_max {
        return Problem::at(
            "kubemq.rest_bodies_size_max",
            format!(
                "at least kubemq.rest_body_size_max, {}",
                format_size(rest.body_bytes_max as u64)
            ),
        );
    }
    let limits = &config.kubemq.limits;
    if limits.wait_seconds_default > limits.wait_seconds_max {
        return Problem::at(
            "kubemq.wait_default",
            format!("at most kubemq.wait_max, {}s", limits.wait_seconds_max),
        );
    }
    if limits.visibility_seconds_default > limits.visibility_seconds_max {
        return Problem::at(
            "kubemq.visibility_default",
            format!(
                "at most kubemq.visibility_max, {}s",
                limits.visibility_seconds_max
            ),
        );
    }
    if let Some((key, targets)) = config.kubemq.routes.longest()
        && targets > config.kubemq.route_targets_max
    {
        return Problem::at(
            "kubemq.route_targets_max",
            format!("at least {targets}, because route {key:?} has as many targets"),
        );
    }
    Ok(())
}

fn check_listeners(config: &Config) -> Result<(), Problem> {
    let listeners = listeners(config);
    for (place, (key, address)) in listeners.iter().enumerate() {
        let Some(address) = address else { continue };
        if !config.listen.allow_insecure
            && !address.ip().is_loopback()
            && let Some(reason) = why_insecure(config, key)
        {
            return Problem::at(
                key,
                format!(
                    "a loopback address, because {reason}; or listen.allow_insecure = true, where \
                     the network is trusted"
                ),
            );
        }
        let same =
            |(_, other): &&(_, Option<SocketAddr>)| address.port() != 0 && *other == Some(*address);
        if let Some((other, _)) = listeners[..place].iter().find(same) {
            return Problem::at(key, format!("another address than {other} has"));
        }
    }
    // Nobody works with a node through its links alone.
    let listen = &config.listen;
    if listen.kubemq.is_none() && listen.kubemq_rest.is_none() && listen.admin.is_none() {
        return Problem::at(
            "listen.kubemq",
            "an address here or at another listener: with all of them off nobody could reach the \
             node",
        );
    }
    Ok(())
}

/// Whether clients must show who they are, or may not do everything.
fn clients_are_asked(config: &Config) -> bool {
    let rules = &config.authorization;
    config.authentication.algorithm.is_some() || rules.rules.is_some() || rules.rules_file.is_some()
}

/// Why others could read along at a listener, or work with it unasked, if they could.
fn why_insecure(config: &Config, listener: &str) -> Option<&'static str> {
    match listener {
        "listen.cluster" => Some("nodes do not encrypt what they tell each other"),
        _ if !config.tls.is_on() => {
            Some("nothing is encrypted without tls.cert_file and tls.key_file")
        }
        "listen.admin" if !config.tls.admin => Some("tls.admin = false leaves it unencrypted"),
        "listen.admin" if clients_are_asked(config) && config.tls.client_ca_file.is_none() => Some(
            "it takes no tokens: without tls.client_ca_file whoever reaches it can do all that \
             clients may not",
        ),
        _ => None,
    }
}

fn check_security(config: &Config) -> Result<(), Problem> {
    let tls = &config.tls;
    match (&tls.cert_file, &tls.key_file, &tls.client_ca_file) {
        (Some(_), None, _) => {
            return Problem::at("tls.key_file", "a file, because tls.cert_file is set");
        }
        (None, Some(_), _) => {
            return Problem::at("tls.cert_file", "a file, because tls.key_file is set");
        }
        (None, None, Some(_)) => {
            return Problem::at("tls.cert_file", "a file, because tls.client_ca_file is set");
        }
        _ => {}
    }
    let authentication = &config.authentication;
    let has_key = !authentication.key.is_empty();
    match (authentication.algorithm, &authentication.key_file) {
        (Some(_), Some(_)) if has_key => {
            return Problem::at(
                "authentication.key_file",
                "\"\", because authentication.key is set",
            );
        }
        (Some(algorithm), None) if !has_key => {
            return Problem::at(
                "authentication.key_file",
                format!("a file, or authentication.key, to verify {algorithm} with"),
            );
        }
        (None, key_file) if has_key || key_file.is_some() => {
            return Problem::at(
                "authentication.algorithm",
                "that of the tokens, because there is a key for them",
            );
        }
        _ => {}
    }
    if authentication.algorithm.is_none() && authentication.client_claim.is_some() {
        return Problem::at(
            "authentication.client_claim",
            "\"\", because authentication.algorithm = off takes no tokens",
        );
    }
    let authorization = &config.authorization;
    if authorization.rules.is_some() && authorization.rules_file.is_some() {
        return Problem::at(
            "authorization.rules_file",
            "\"\", because authorization.rules is set",
        );
    }
    Ok(())
}

fn check_peers(config: &Config) -> Result<(), Problem> {
    let cluster = &config.cluster;
    let Some(listener) = config.listen.cluster else {
        if !config.is_alone() {
            return Problem::at(
                "listen.cluster",
                "an address, because cluster.seeds and cluster.expect ask for a cluster of \
                 several nodes",
            );
        }
        return Ok(());
    };
    if cluster.expect > 1 && cluster.seeds.is_empty() {
        return Problem::at(
            "cluster.seeds",
            format!(
                "the addresses of other nodes, because cluster.expect = {} asks for a cluster of \
                 several",
                cluster.expect
            ),
        );
    }
    if listener.ip().is_unspecified() && cluster.advertise.is_none() {
        return Problem::at(
            "cluster.advertise",
            format!(
                "host:port that other nodes can dial, because listen.cluster = {listener} names \
                 every address of this machine and none in particular"
            ),
        );
    }
    if let SyncPolicy::Interval(_) = cluster.log.sync {
        return Problem::at(
            "storage.sync",
            "always: a replica's word must be on its disk; or listen.cluster = \"\", for a node \
             that stays alone",
        );
    }
    Ok(())
}
