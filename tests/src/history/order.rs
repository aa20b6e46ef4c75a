//! The order of what was stored, against the order in which it was sent.

use super::event::Send;
use crate::checker::{Name, Violation};
use std::collections::BTreeMap;

/// A message that was sent when another one was acknowledged already comes after it, whoever sent
/// them. `order` is the order of the store.
pub fn against_time(sends: &[Send], order: &[Name]) -> Vec<Violation> {
    let sends: BTreeMap<Name, &Send> = sends.iter().map(|send| (send.name, send)).collect();
    let mut violations = Vec::new();
    // Of all before, the one that was sent last.
    let mut newest: Option<&Send> = None;
    for send in order.iter().filter_map(|name| sends.get(name)) {
        if let Some(newest) = newest
            && send.acknowledged
            && send.answered < newest.invoked
        {
            violations.push(Violation::AgainstTime {
                first: send.name,
                then: newest.name,
            });
        }
        if newest.is_none_or(|newest| send.invoked > newest.invoked) {
            newest = Some(send);
        }
    }
    violations
}
