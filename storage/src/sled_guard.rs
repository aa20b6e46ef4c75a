//! sled reports some damage and bugs by panicking; a call through here gives an error instead.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Result, StorageError};

pub(crate) fn guarded<T>(
    action: &'static str,
    call: impl FnOnce() -> sled::Result<T>,
) -> Result<T> {
    // sled's own locks are parking_lot's, which a panic does not poison, and after a panic the
    // caller stops using the database: no broken state is looked at.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(StorageError::Index { action, source }),
        Err(panic) => Err(StorageError::IndexPanicked {
            action,
            message: message_of(panic.as_ref()),
        }),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
        .unwrap_or_else(|| "no message".to_owned())
}
