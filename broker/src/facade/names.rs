//! Names by themselves: making them before anything is sent to them, and forgetting them.

use flotilla_model::name::Name;

use crate::api::error::BrokerError;
use crate::facade::Broker;

impl Broker {
    /// Creates a topic or queue as the first message to it would; one that is there stays as it is. Any
    /// other name stores nothing: all nodes that answer list it from now on, until it was not used for
    /// [`crate::BrokerConfig::signal_name_idle`].
    pub async fn create(&self, name: Name) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        if name.kind().is_stored() {
            self.inner.core.create(&name).await
        } else {
            self.inner.core.introduce_name_everywhere(name).await
        }
    }

    /// Takes a name that stores nothing off the lists of all nodes that answer, until it is used again. Who
    /// listens to it or serves it goes on.
    pub async fn forget(&self, name: &Name) -> Result<(), BrokerError> {
        self.inner.core.check_open()?;
        if name.kind().is_stored() {
            return Err(BrokerError::InvalidRequest {
                what: format!("{name} is stored: it can be deleted, not forgotten"),
            });
        }
        if self.inner.core.forget_name_everywhere(name).await? {
            return Ok(());
        }
        Err(BrokerError::NotFound {
            what: name.to_string(),
        })
    }
}
