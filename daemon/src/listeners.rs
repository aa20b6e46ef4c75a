//! Binds every port before anything else starts, so that a port in use costs no recovery first.

use std::net::{SocketAddr, TcpListener};

use crate::config::{self, Config, Layers};
use crate::error::DaemonError;

/// The bound listeners; `None`: switched off.
#[derive(Debug)]
pub struct Listeners {
    /// KubeMQ's gRPC.
    pub kubemq: Option<TcpListener>,
    /// KubeMQ's REST and WebSocket.
    pub kubemq_rest: Option<TcpListener>,
    /// Admin REST, metrics, health.
    pub admin: Option<TcpListener>,
    /// Other nodes.
    pub cluster: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration asks for.
    pub fn bind(config: &Config, layers: &Layers) -> Result<Self, DaemonError> {
        let [kubemq, kubemq_rest, admin, cluster] =
            config::listeners(config).map(|(key, address)| {
                address
                    .map(|address| bind(key, address, layers))
                    .transpose()
            });
        Ok(Self {
            kubemq: kubemq?,
            kubemq_rest: kubemq_rest?,
            admin: admin?,
            cluster: cluster?,
        })
    }

    /// Name and real address of each, for those who asked for port 0.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        [
            ("kubemq", &self.kubemq),
            ("kubemq_rest", &self.kubemq_rest),
            ("admin", &self.admin),
            ("cluster", &self.cluster),
        ]
        .into_iter()
        .filter_map(|(name, listener)| {
            let address = listener.as_ref()?.local_addr().ok()?;
            Some((name, address))
        })
        .collect()
    }
}

fn bind(
    key: &'static str,
    address: SocketAddr,
    layers: &Layers,
) -> Result<TcpListener, DaemonError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        // All servers poll it.
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| DaemonError::Listen {
        key,
        address,
        origin: layers.origin(key),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FlagValue;

    fn configured(kubemq: String) -> (Config, Layers) {
        let mut layers = Layers::default();
        let flag = |flag, key: &str, text| FlagValue {
            flag,
            key: key.to_owned(),
            text,
        };
        layers
            .add_flags([
                flag("--kubemq", "listen.kubemq", kubemq),
                flag(
                    "--kubemq-rest",
                    "listen.kubemq_rest",
                    "127.0.0.1:0".to_owned(),
                ),
                flag("--admin", "listen.admin", "127.0.0.1:0".to_owned()),
                flag("--cluster", "listen.cluster", "127.0.0.1:0".to_owned()),
            ])
            .unwrap();
        (layers.build().unwrap(), layers)
    }

    #[test]
    fn port_0_gives_a_real_port() {
        let (config, layers) = configured("localhost:0".to_owned());
        let listeners = Listeners::bind(&config, &layers).unwrap();
        let addresses = listeners.addresses();
        assert_eq!(addresses.len(), 4);
        assert!(addresses.iter().all(|(_, address)| address.port() != 0));
    }

    #[test]
    fn a_listener_that_is_off_is_not_bound() {
        let (config, layers) = configured(String::new());
        let listeners = Listeners::bind(&config, &layers).unwrap();
        assert!(listeners.kubemq.is_none());
        assert_eq!(listeners.addresses()[0].0, "kubemq_rest");
    }

    #[test]
    fn a_port_in_use_is_named_with_its_key_and_its_source() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        let (config, layers) = configured(taken.clone());
        let error = Listeners::bind(&config, &layers).unwrap_err();
        let text = error.chain();
        for part in ["listen.kubemq", &taken, "--kubemq", "in use"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(error.exit_code(), 2);
    }
}
