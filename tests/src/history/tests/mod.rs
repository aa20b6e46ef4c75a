//! The checks must be able to fail: each promise is broken once, in a history that is faithful
//! otherwise, and must be found by its name. Random faithful histories must pass.

mod faithful;
mod queue;
mod topic;

use super::check::check;
use super::event::{History, HoldId, Moment, Receipt, Send};
use crate::checker::{Name, Violation};

fn name(producer: u32, number: u64) -> Name {
    Name { producer, number }
}

fn ms(ms: u64) -> Moment {
    Moment(ms * 1_000_000)
}

/// A send that took 2 ms.
fn send(producer: u32, number: u64, invoked_ms: u64) -> Send {
    Send {
        name: name(producer, number),
        invoked: ms(invoked_ms),
        answered: ms(invoked_ms + 2),
        acknowledged: true,
    }
}

fn receipt(hold: u64, at_ms: u64, sequence: u64, name: Name, receive_count: u32) -> Receipt {
    Receipt {
        hold: HoldId(hold),
        consumer: hold as u32,
        node: 1,
        at: ms(at_ms),
        sequence,
        name,
        intact: true,
        receive_count,
    }
}

fn violations(history: &History) -> Vec<Violation> {
    let broken = check(history).into_iter();
    broken.map(|broken| broken.violation).collect()
}
