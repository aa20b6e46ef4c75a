//! Rules between keys, and between keys and the system.

use std::net::SocketAddr;

use super::sections::Config;

/// A key whose value does not go with another's.
pub struct Problem {
    /// The key to change.
    pub key: &'static str,
    /// What would do.
    pub allowed: String,
}

/// The listeners of this build, by key.
pub fn listeners(config: &Config) -> [(&'static str, Option<SocketAddr>); 2] {
    [
        ("listen.kubemq", config.listen.kubemq),
        ("listen.admin", config.listen.admin),
    ]
}

/// Checks what one key alone cannot show.
pub fn check(config: &Config) -> Result<(), Problem> {
    let listeners = listeners(config);
    for (place, (key, address)) in listeners.iter().enumerate() {
        let Some(address) = address else { continue };
        if !config.listen.allow_insecure && !address.ip().is_loopback() {
            return Err(Problem {
                key,
                allowed: "a loopback address, because this build neither encrypts nor asks who \
                          connects; or listen.allow_insecure = true, where the network is trusted"
                    .to_owned(),
            });
        }
        let same =
            |(_, other): &&(_, Option<SocketAddr>)| address.port() != 0 && *other == Some(*address);
        if let Some((other, _)) = listeners[..place].iter().find(same) {
            return Err(Problem {
                key,
                allowed: format!("another address than {other} has"),
            });
        }
    }
    if listeners.iter().all(|(_, address)| address.is_none()) {
        return Err(Problem {
            key: "listen.kubemq",
            allowed: "an address here or at another listener: with all of them off nobody could \
                      reach the node"
                .to_owned(),
        });
    }
    if config.broker.actors_soft_max > config.broker.actors_max {
        return Err(Problem {
            key: "broker.actors_soft_max",
            allowed: format!("at most broker.actors_max, {}", config.broker.actors_max),
        });
    }
    if config.kubemq.limits.wait_seconds_default > config.kubemq.limits.wait_seconds_max {
        return Err(Problem {
            key: "kubemq.wait_default",
            allowed: format!(
                "at most kubemq.wait_max, {}s",
                config.kubemq.limits.wait_seconds_max
            ),
        });
    }
    Ok(())
}
