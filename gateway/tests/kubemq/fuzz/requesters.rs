//! Any requests, responses and subscriptions, in any order: every request ends in its time, and none is left.

use std::time::Duration;

use bytes::Bytes;
use flotilla_gateway::kubemq::protocol::{Request, Response, Subscribe};
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tonic::{Code, Status, Streaming};

use super::{place, run, soon_in};
use crate::support::{Client, Gateway, soon};

const CHANNELS: [&str; 3] = ["a", "a.b", "c"];
const PATTERNS: [&str; 5] = ["a", "a.*", ">", "c", "a b"];
/// What is asked is over after this long, at most.
const TIMEOUT_MS_MAX: i32 = 150;
const ARRIVES_WITHIN: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
enum Step {
    Subscribe {
        kind: i32,
        pattern: usize,
        group: bool,
    },
    Leave(prop::sample::Index),
    Ask {
        kind: i32,
        channel: usize,
        timeout: i32,
        cached: bool,
    },
    GiveUp(prop::sample::Index),
    /// The next request of a subscription is taken.
    Take(prop::sample::Index),
    /// One that was taken is answered, again perhaps, or under a token that is bent.
    Answer {
        taken: prop::sample::Index,
        bent: bool,
        executed: bool,
    },
}

fn a_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..6i32, 0..PATTERNS.len(), any::<bool>())
            .prop_map(|(kind, pattern, group)| Step::Subscribe { kind, pattern, group }),
        1 => index().prop_map(Step::Leave),
        5 => (0..4i32, 0..CHANNELS.len(), -1..TIMEOUT_MS_MAX, any::<bool>())
            .prop_map(|(kind, channel, timeout, cached)| Step::Ask { kind, channel, timeout, cached }),
        1 => index().prop_map(Step::GiveUp),
        4 => index().prop_map(Step::Take),
        4 => (index(), any::<bool>(), any::<bool>())
            .prop_map(|(taken, bent, executed)| Step::Answer { taken, bent, executed }),
    ]
}

#[derive(Default)]
struct Life {
    subscriptions: Vec<Streaming<Request>>,
    asking: Vec<JoinHandle<Result<Response, Status>>>,
    taken: Vec<Request>,
}

impl Life {
    async fn step(&mut self, client: &Client, step: Step) {
        let mut client = client.clone();
        match step {
            Step::Subscribe {
                kind,
                pattern,
                group,
            } => {
                let request = Subscribe {
                    subscribe_type_data: kind,
                    client_id: "responder".to_owned(),
                    channel: PATTERNS[pattern].to_owned(),
                    group: if group { "g" } else { "" }.to_owned(),
                    ..Subscribe::default()
                };
                match soon(client.subscribe_to_requests(request)).await {
                    Ok(subscribed) => self.subscriptions.push(subscribed.into_inner()),
                    Err(status) => assert_eq!(status.code(), Code::Internal, "{status}"),
                }
            }
            Step::Leave(index) => {
                if let Some(place) = place(index, self.subscriptions.len()) {
                    self.subscriptions.swap_remove(place);
                }
            }
            Step::Ask {
                kind,
                channel,
                timeout,
                cached,
            } => {
                let request = Request {
                    request_id: "1".to_owned(),
                    request_type_data: kind,
                    client_id: "asker".to_owned(),
                    channel: CHANNELS[channel].to_owned(),
                    body: Bytes::from_static(b"what"),
                    timeout,
                    cache_key: if cached { "k" } else { "" }.to_owned(),
                    cache_ttl: 1,
                    ..Request::default()
                };
                let asking = async move { Ok(client.send_request(request).await?.into_inner()) };
                self.asking.push(tokio::spawn(asking));
            }
            Step::GiveUp(index) => {
                if let Some(place) = place(index, self.asking.len()) {
                    self.asking.swap_remove(place).abort();
                }
            }
            Step::Take(index) => {
                if let Some(place) = place(index, self.subscriptions.len()) {
                    let next = self.subscriptions[place].message();
                    if let Ok(next) = tokio::time::timeout(ARRIVES_WITHIN, next).await {
                        // The server ends no subscription by itself.
                        self.taken.push(next.unwrap().unwrap());
                    }
                }
            }
            Step::Answer {
                taken,
                bent,
                executed,
            } => {
                let Some(place) = place(taken, self.taken.len()) else {
                    return;
                };
                let request = &self.taken[place];
                let mut reply_channel = request.reply_channel.clone();
                if bent {
                    reply_channel.insert(0, '1');
                }
                let response = Response {
                    client_id: "responder".to_owned(),
                    request_id: request.request_id.clone(),
                    reply_channel,
                    executed,
                    ..Response::default()
                };
                soon(client.send_response(response)).await.unwrap();
            }
        }
    }

    /// Each request that nobody gave up has an answer, or the text of what is wrong with it.
    async fn end(self) {
        for asking in self.asking {
            match soon(asking).await.unwrap() {
                Ok(response) => assert!(response.reply_channel.is_empty()),
                Err(status) => {
                    assert_eq!(status.code(), Code::Internal, "{status}");
                    let said = ["Error 109", "Error 206", "Error 301"];
                    assert!(
                        said.iter().any(|text| status.message().starts_with(text)),
                        "{status}"
                    );
                }
            }
        }
    }
}

async fn nothing_is_under_way(gateway: &Gateway) {
    let line = "flotilla_requests_under_way 0\n";
    while !gateway.broker.metrics_text().contains(line) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn any_requests_and_responses_end_in_time_and_leave_nothing_under_way() {
    let strategy = prop::collection::vec(a_step(), 1..40);
    run(40, &strategy, |runtime, gateway| {
        let client = runtime.block_on(gateway.client());
        move |steps: Vec<Step>| {
            runtime.block_on(async {
                let mut life = Life::default();
                for step in steps {
                    life.step(&client, step).await;
                }
                life.end().await;
            });
            soon_in(&runtime, nothing_is_under_way(&gateway));
        }
    });
}
