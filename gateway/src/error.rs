//! Why a gateway could not serve. What goes wrong with one request is told to its client instead.

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
    /// The HTTP/2 server ended by itself.
    #[error("the {protocol} server failed")]
    Transport {
        /// The gateway.
        protocol: &'static str,
        /// What it says.
        #[source]
        source: tonic::transport::Error,
    },
}
