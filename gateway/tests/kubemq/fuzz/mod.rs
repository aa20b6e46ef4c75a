//! Whatever clients send: any bytes on any call, and any requests in any order on the calls that have a state.
//!
//! Requests of any kind on streams on which queues are read have their own part, [`crate::hostile`]. Cases are
//! bounded; proptest prints the smallest one that fails.

mod bytes_of_any_call;
mod frames;
mod requesters;
mod senders;
mod settlers;
mod subscribers;

use std::future::Future;
use std::time::Duration;

use flotilla_gateway::{KubemqConfig, Routes};
use flotilla_model::name::Name;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::shared::panics;
use crate::support::{Client, Gateway, fill, leased};

/// Where messages always are.
const QUEUE: &str = "q";

/// Runs cases one after another against one gateway.
fn run<S, F>(cases: u32, strategy: &S, start: impl FnOnce(Runtime, Gateway) -> F)
where
    S: Strategy,
    F: Fn(S::Value),
{
    let runtime = Runtime::new().unwrap();
    let config = KubemqConfig {
        routes: Routes::from_json(r#"[{"Key":"k","Routes":"queues:q;events:e;events_store:s"}]"#)
            .unwrap(),
        route_targets_max: 4,
        ..KubemqConfig::default()
    };
    let gateway = runtime.block_on(Gateway::with(config));
    let case = start(runtime, gateway);
    let config = Config {
        cases,
        failure_persistence: None,
        // Each costs calls over the network.
        max_shrink_iters: 200,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        case(value);
        // A client would only see that its connection broke.
        panics::expect_none();
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Names of which some may be sent to, some are lists, and some are wrong.
fn a_channel() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["q", "a", "a.b", "orders:new"]),
        2 => prop::sample::select(vec!["queues:q;events:e", "a;b;a", "routes:k", "events_store:s"]),
        2 => prop::sample::select(vec!["", "a b", "a.*", ">", "a.", ";", "routes:none", "a;b;c;d;e", "queues:"]),
    ]
    .prop_map(str::to_owned)
}

/// Puts messages in when few are left: what a case took away must not make the later ones easier.
async fn refill(gateway: &Gateway, client: &mut Client) {
    let detail = gateway.broker.queue(&Name::queue(QUEUE).unwrap()).await;
    if detail.map_or(0, |detail| detail.available) < 10 {
        fill(client, QUEUE, 20).await;
    }
}

async fn all_is_given_back(gateway: &Gateway) {
    while leased(gateway, QUEUE).await > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One of so many, if there are any.
fn place(index: prop::sample::Index, length: usize) -> Option<usize> {
    (length > 0).then(|| index.index(length))
}

/// Fails instead of waiting for ever.
fn soon_in<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(crate::support::soon(work))
}
