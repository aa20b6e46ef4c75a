//! The real SDKs at a cluster: every theme of their tests through one of its nodes.

use flotilla_tests::cluster::{Fleet, Layout};
use flotilla_tests::python::{Sdk, run_pytest};
use flotilla_tests::workdir::WorkDir;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// They wait much.
const THEMES_AT_A_TIME: usize = 4;
/// Messages where the tests of one server send a thousand: each waits for two disks here.
const MANY: &str = "200";
/// What `test_routing.py` sends to.
const ROUTES: &str = r#"[{"Key":"audit","Routes":"events_store:audit.log;queues:audit.jobs"}]"#;
const NODES: u32 = 4;
/// It keeps no shard: whatever is asked of it, it has another node do. The three others lead some shards and
/// follow in others. It is the other node of themes at the third.
const BYSTANDER: u32 = 4;
/// Moving the replicas of a cluster that has nothing yet.
const EMPTIED_WITHIN: Duration = Duration::from_secs(180);

/// Which file of which SDK's tests at which node: every one at one of them, a few at the bystander as well. Who
/// answers requests is a client of another node than who asks; a message that is handed on mostly goes to a shard
/// that another node leads. Those that take long come first, so that all end at about the same time.
const THEMES: [(Sdk, &str, u32); 60] = [
    (Sdk::V1_1_0, "test_old_queues.py", 1),
    (Sdk::V4_1_5, "test_cq.py", 1),
    (Sdk::V1_1_0, "test_old_store.py", 1),
    (Sdk::V4_1_5, "test_new_store.py", 3),
    (Sdk::V4_1_5, "test_new_queues.py", 3),
    (Sdk::V2_4_0, "test_old_queues.py", 2),
    (Sdk::V3_6_0, "test_mid_queues.py", 2),
    (Sdk::V1_1_0, "test_old_transactions.py", 1),
    (Sdk::V4_1_5, "test_new_large.py", 3),
    (Sdk::V1_1_0, "test_old_requests.py", 2),
    (Sdk::V2_4_0, "test_old_transactions.py", 3),
    (Sdk::V2_4_0, "test_old_store.py", 2),
    (Sdk::V4_1_5, "test_new_async_queues.py", 2),
    (Sdk::V4_1_5, "test_new_idle.py", 3),
    (Sdk::V3_6_0, "test_mid_basics.py", 3),
    (Sdk::V4_1_5, "test_new_events.py", 1),
    (Sdk::V4_1_5, "test_new_events.py", BYSTANDER),
    (Sdk::V4_1_5, "test_new_answers.py", 1),
    (Sdk::V3_6_0, "test_cq.py", 3),
    (Sdk::V4_1_5, "test_new_reconnect.py", 1),
    (Sdk::V1_1_0, "test_old_events.py", 2),
    (Sdk::V2_4_0, "test_old_requests.py", 3),
    (Sdk::V4_1_5, "test_new_streams.py", 3),
    (Sdk::V4_1_5, "test_new_streams.py", BYSTANDER),
    (Sdk::V3_6_0, "test_mid_large.py", 2),
    (Sdk::V4_1_5, "test_new_async.py", 1),
    (Sdk::V1_1_0, "test_old_attributes.py", 2),
    (Sdk::V4_1_5, "test_new_large_async.py", 1),
    (Sdk::V4_1_5, "test_new_leaving.py", 3),
    (Sdk::V4_1_5, "test_channels_figures.py", 2),
    (Sdk::V4_1_5, "test_new_messages.py", 2),
    (Sdk::V4_1_5, "test_new_exceptions.py", 2),
    (Sdk::V4_1_5, "test_new_requeue.py", 1),
    (Sdk::V2_4_0, "test_old_large.py", 1),
    (Sdk::V4_1_5, "test_new_shared.py", 2),
    (Sdk::V4_1_5, "test_new_shared.py", BYSTANDER),
    (Sdk::V1_1_0, "test_old_large.py", 3),
    (Sdk::V2_4_0, "test_old_events.py", 3),
    (Sdk::V3_6_0, "test_mid_messages.py", 3),
    (Sdk::V3_6_0, "test_mid_messages.py", BYSTANDER),
    (Sdk::V4_1_5, "test_channels.py", 3),
    (Sdk::V4_1_5, "test_channels.py", BYSTANDER),
    (Sdk::V4_1_5, "test_new_clients.py", 3),
    (Sdk::V2_4_0, "test_old_attributes.py", 3),
    (Sdk::V3_6_0, "test_mid_shared.py", 1),
    (Sdk::V4_1_5, "test_async_calls.py", 1),
    (Sdk::V1_1_0, "test_old_pages.py", 3),
    (Sdk::V2_4_0, "test_old_pages.py", 1),
    (Sdk::V4_1_5, "test_new_retention.py", 2),
    (Sdk::V4_1_5, "test_new_cq.py", 2),
    (Sdk::V4_1_5, "test_new_cq.py", BYSTANDER),
    (Sdk::V3_6_0, "test_async_calls.py", 3),
    (Sdk::V3_6_0, "test_channels_figures.py", 1),
    (Sdk::V3_6_0, "test_channels.py", 1),
    (Sdk::V4_1_5, "test_new_errors.py", 2),
    (Sdk::V3_6_0, "test_routing.py", 2),
    (Sdk::V1_1_0, "test_routing.py", 1),
    (Sdk::V4_1_5, "test_rest.py", 2),
    (Sdk::V2_4_0, "test_routing.py", 2),
    (Sdk::V4_1_5, "test_routing.py", 3),
];

#[test]
fn the_themes_of_the_sdks_work_on_every_node() {
    let work = WorkDir::new("themes");
    // Every name of a theme has its figures.
    let layout = Layout::of(NODES)
        .set("FLOTILLA_KUBEMQ_ROUTES", ROUTES)
        .set("FLOTILLA_METRICS_NAMES_MAX", "100000");
    let fleet = Fleet::form(&work, &layout);
    fleet.ask_to("drain", BYSTANDER);
    fleet.wait_until("one node keeps nothing", EMPTIED_WITHIN, |fleet| {
        fleet.keeps_nothing(BYSTANDER) && fleet.is_whole()
    });
    let next = Mutex::new(THEMES.into_iter());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..THEMES_AT_A_TIME {
            scope.spawn(|| {
                while let Some((sdk, file, node)) = take() {
                    let address = |node| fleet.node(node).kubemq().to_string();
                    // Of another node, for those who answer.
                    let other = node % NODES + 1;
                    let peer = address(other);
                    let rest = |node| fleet.node(node).kubemq_rest().to_string();
                    let (rest, rest_peer) = (rest(node), rest(other));
                    let admin = |node| fleet.node(node).admin().to_string();
                    let (admin, admin_peer) = (admin(node), admin(other));
                    let environment = [
                        ("FLOTILLA_TEST_COUNT", MANY),
                        ("FLOTILLA_PEER_ADDRESS", peer.as_str()),
                        ("FLOTILLA_REST_ADDRESS", rest.as_str()),
                        ("FLOTILLA_REST_PEER_ADDRESS", rest_peer.as_str()),
                        ("FLOTILLA_ADMIN_ADDRESS", admin.as_str()),
                        ("FLOTILLA_ADMIN_PEER_ADDRESS", admin_peer.as_str()),
                    ];
                    run_pytest(sdk, file, &address(node), &environment);
                }
            });
        }
    });
    assert!(fleet.keeps_nothing(BYSTANDER), "{}", fleet.describe());
    fleet.terminate();
}
