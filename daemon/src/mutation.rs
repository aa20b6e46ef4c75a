//! Builds for development that leave a check out when they are told to: see [`flotilla_model::mutation`].
//!
//! A release cannot, and takes the variable for an unknown key.

use crate::error::DaemonError;

/// Which check to leave out.
pub const ENVIRONMENT: &str = "FLOTILLA_MUTATION";

/// Whether a variable of the environment is for this module.
pub fn is_variable(name: &str) -> bool {
    cfg!(debug_assertions) && name == ENVIRONMENT
}

/// Leaves the check out that the environment names.
#[cfg(debug_assertions)]
pub fn choose() -> Result<(), DaemonError> {
    use crate::config::Origin;
    use flotilla_model::mutation;

    let Some(value) = std::env::var_os(ENVIRONMENT) else {
        return Ok(());
    };
    let value = value.to_string_lossy();
    let chosen: mutation::Mutation =
        value
            .parse()
            .map_err(|error: mutation::UnknownMutation| DaemonError::Config {
                key: "mutation".to_owned(),
                value: value.clone().into_owned(),
                origin: Origin::Environment(ENVIRONMENT.to_owned()),
                allowed: error.to_string(),
            })?;
    mutation::choose(chosen);
    tracing::error!(check = %chosen, "this node breaks promises: a check is left out");
    Ok(())
}

/// There is nothing to leave out.
#[cfg(not(debug_assertions))]
pub fn choose() -> Result<(), DaemonError> {
    Ok(())
}
