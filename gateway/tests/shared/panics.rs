//! Panics of the server, which a test would not notice: it runs in the same process, on threads of the runtime.

use std::panic;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on panics of the runtime's threads are noted; they are printed as ever.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            print(info);
            let thread = thread::current();
            if thread.name().is_some_and(|name| name.starts_with("tokio")) {
                seen().push(info.to_string());
            }
        }));
    });
}

/// Fails if there was one since it was asked last.
pub fn expect_none() {
    let seen = std::mem::take(&mut *seen());
    assert!(seen.is_empty(), "panics beside the test: {seen:?}");
}

fn seen() -> MutexGuard<'static, Vec<String>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}
