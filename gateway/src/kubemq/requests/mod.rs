//! Commands and queries: requests of this protocol, on those of the broker.
//!
//! ```text
//!   SendRequest ---> send ---> cache (queries with a key)
//!                     |  ^
//!                     v  | replies
//!                    broker <--- answer <--- SendResponse
//!                     |
//!   SubscribeToRequests <--- subscribe
//! ```
//!
//! Ids that clients make decide nothing: a responder replies by the token that its `ReplyChannel` is, which
//! only the node that handed out the request can make.

mod answer;
pub mod cache;
mod carried;
mod convert;
mod send;
mod subscribe;
mod validate;

pub use self::answer::answer;
pub use self::send::send;
pub use self::subscribe::subscribe;
pub use self::validate::subscription as check_subscription;
