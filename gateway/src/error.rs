//! Why a gateway could not serve. What goes wrong with one request is told to its client instead.

use std::io;
use std::path::PathBuf;

use crate::access::{Algorithm, RulesError};

/// A listener could not be served, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting outside its range.
    #[error("{protocol} setting {setting} is {value}, it must be {allowed}")]
    Setting {
        /// The gateway.
        protocol: &'static str,
        /// The setting's field.
        setting: &'static str,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: &'static str,
    },
    /// Configured routes that are none.
    #[error("routes are JSON such as [{{\"Key\":\"k\",\"Routes\":\"events:a;queues:b\"}}]")]
    RoutesSyntax {
        /// What is wrong with it, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A configured route with which the gateway could not work.
    #[error("route {key:?}: {problem}")]
    Route {
        /// Of the route.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// More routes than are kept.
    #[error("there are {routes} routes, at most {allowed} are allowed")]
    RoutesMax {
        /// How many are configured.
        routes: usize,
        /// How many may be.
        allowed: usize,
    },
    /// The HTTP/2 server ended by itself.
    #[error("the {protocol} server failed")]
    Transport {
        /// The gateway.
        protocol: &'static str,
        /// What it says.
        #[source]
        source: tonic::transport::Error,
    },
    /// Tokens cannot be verified with this key.
    #[error("the key does not verify tokens that are signed with {algorithm}: {reason}")]
    TokenKey {
        /// What it is to be for.
        algorithm: Algorithm,
        /// What is wrong with it.
        reason: String,
    },
    /// The access rules cannot be read.
    #[error("cannot read the access rules in {path}", path = path.display())]
    RulesFile {
        /// Their file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The access rules are wrong.
    #[error("{place} are wrong")]
    Rules {
        /// Where they are written.
        place: String,
        /// What is wrong.
        #[source]
        source: RulesError,
    },
}
