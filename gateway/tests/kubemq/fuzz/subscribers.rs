//! Any subscriptions to events and stored events, in any order with events: who began to read a stored channel
//! gets all of it from there, and nobody gets what is not meant for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use flotilla_gateway::kubemq::protocol::{EventReceive, Subscribe};
use proptest::prelude::*;
use tonic::{Code, Streaming};

use super::run;
use crate::support::{Client, Gateway, an_event, next_event, soon, unique};

const CHANNELS: [&str; 3] = ["a", "a.b", "c"];
const PATTERNS: [&str; 5] = ["a", "a.*", ">", "c", "a b"];
const EVENTS: i32 = 1;
const EVENTS_STORE: i32 = 2;
const ARRIVES_WITHIN: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
enum Step {
    Subscribe(Wish),
    Leave(prop::sample::Index),
    Send {
        channel: usize,
        store: bool,
    },
    /// The next event of a subscription is taken.
    Take(prop::sample::Index),
}

#[derive(Clone, Debug)]
struct Wish {
    kind: i32,
    pattern: usize,
    group: bool,
    /// A client id that others have as well: its place may be known.
    shared: bool,
    start: i32,
    value: i64,
}

fn a_wish() -> impl Strategy<Value = Wish> {
    let kind = prop_oneof![4 => EVENTS..=EVENTS_STORE, 1 => -1..6];
    let start = prop_oneof![2 => Just(0), 5 => 1..7, 1 => any::<i32>()];
    let value = prop_oneof![4 => 0..5i64, 1 => any::<i64>()];
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    (kind, 0..PATTERNS.len(), flags, start, value).prop_map(
        |(kind, pattern, (group, shared), start, value)| Wish {
            kind,
            pattern,
            group,
            shared,
            start,
            value,
        },
    )
}

fn a_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => a_wish().prop_map(Step::Subscribe),
        1 => index().prop_map(Step::Leave),
        5 => (0..CHANNELS.len(), any::<bool>()).prop_map(|(channel, store)| Step::Send { channel, store }),
        4 => index().prop_map(Step::Take),
    ]
}

struct Reader {
    events: Streaming<EventReceive>,
    wish: Wish,
    /// The stored event that must come next, where that is known.
    next: Option<u64>,
    /// The last plain event that came.
    last: u64,
}

/// One case, with channels of its own.
struct Life {
    base: String,
    readers: Vec<Reader>,
    /// What was stored, by channel.
    stored: HashMap<String, Vec<String>>,
    /// Plain events that a group has had.
    had: HashSet<(usize, String)>,
    sent: u64,
    clients: usize,
}

impl Life {
    fn new() -> Self {
        Self {
            base: unique("any"),
            readers: Vec::new(),
            stored: HashMap::new(),
            had: HashSet::new(),
            sent: 0,
            clients: 0,
        }
    }

    fn channel(&self, text: &str) -> String {
        format!("{}.{text}", self.base)
    }

    async fn step(&mut self, client: &mut Client, step: Step) {
        match step {
            Step::Subscribe(wish) => self.subscribe(client, wish).await,
            Step::Leave(index) => {
                if let Some(place) = place(index, self.readers.len()) {
                    self.readers.swap_remove(place);
                }
            }
            Step::Send { channel, store } => {
                self.sent += 1;
                let channel = self.channel(CHANNELS[channel]);
                let event = an_event(&channel, self.sent as usize, store);
                let sent = soon(client.send_event(event)).await.unwrap().into_inner();
                assert!(sent.sent, "{}", sent.error);
                if store {
                    let stored = self.stored.entry(channel).or_default();
                    stored.push(self.sent.to_string());
                }
            }
            Step::Take(index) => {
                if let Some(place) = place(index, self.readers.len()) {
                    let next = self.readers[place].events.message();
                    if let Ok(next) = tokio::time::timeout(ARRIVES_WITHIN, next).await {
                        // The server ends no subscription by itself.
                        self.took(place, next.unwrap().unwrap());
                    }
                }
            }
        }
    }

    async fn subscribe(&mut self, client: &mut Client, wish: Wish) {
        self.clients += 1;
        let pattern = self.channel(PATTERNS[wish.pattern]);
        let request = Subscribe {
            subscribe_type_data: wish.kind,
            client_id: if wish.shared {
                "shared".to_owned()
            } else {
                format!("c{}", self.clients)
            },
            channel: pattern.clone(),
            group: if wish.group { "g" } else { "" }.to_owned(),
            events_store_type_data: wish.start,
            events_store_type_value: wish.value,
        };
        match soon(client.subscribe_to_events(request)).await {
            Ok(subscribed) => {
                let stored = self.stored.get(&pattern).map_or(0, Vec::len) as u64;
                let next = first_of(&wish, stored).filter(|_| !wish.group && !wish.shared);
                self.readers.push(Reader {
                    events: subscribed.into_inner(),
                    wish,
                    next,
                    last: 0,
                });
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Internal, "{status}");
                assert!(status.message().starts_with("Error "), "{status}");
            }
        }
    }

    fn took(&mut self, place: usize, event: EventReceive) {
        let pattern = self.readers[place].wish.pattern;
        let text = event.channel.strip_prefix(&format!("{}.", self.base));
        assert!(
            matches(PATTERNS[pattern], text.unwrap()),
            "{}",
            event.channel
        );
        let reader = &mut self.readers[place];
        if reader.wish.kind == EVENTS {
            assert_eq!((event.sequence, event.timestamp), (0, 0));
            let number: u64 = event.event_id.parse().unwrap();
            assert!(number > reader.last, "out of order, or twice");
            reader.last = number;
            assert!(!reader.wish.group || self.had.insert((pattern, event.event_id)));
            return;
        }
        let stored = &self.stored[&event.channel];
        assert_eq!(stored[event.sequence as usize - 1], event.event_id);
        assert!(event.timestamp > 0);
        // Members of a group get what others left; who is alone gets one after another.
        if !reader.wish.group {
            assert!(reader.next.is_none_or(|next| next == event.sequence));
            reader.next = Some(event.sequence + 1);
        }
    }

    /// Whoever reads a stored channel alone reads it to its end.
    async fn end(mut self) {
        for place in 0..self.readers.len() {
            let reader = &self.readers[place];
            let channel = self.channel(PATTERNS[reader.wish.pattern]);
            let stored = self.stored.get(&channel).map_or(0, Vec::len) as u64;
            if reader.wish.kind != EVENTS_STORE {
                continue;
            }
            while self.readers[place].next.is_some_and(|next| next <= stored) {
                let event = next_event(&mut self.readers[place].events).await;
                self.took(place, event);
            }
        }
    }
}

/// Where a reader begins of whom nothing is known, in a channel with so many events.
fn first_of(wish: &Wish, stored: u64) -> Option<u64> {
    match (wish.kind, wish.start, wish.value) {
        (EVENTS_STORE, 1, _) => Some(stored + 1),
        (EVENTS_STORE, 2, _) => Some(1),
        (EVENTS_STORE, 3, _) => Some(stored.max(1)),
        (EVENTS_STORE, 4, sequence) => u64::try_from(sequence).ok(),
        // Seconds after the beginning of 1970.
        (EVENTS_STORE, 5, 1..5) => Some(1),
        _ => None,
    }
}

fn matches(pattern: &str, channel: &str) -> bool {
    match pattern {
        ">" => true,
        "a.*" => channel == "a.b",
        literal => literal == channel,
    }
}

fn place(index: prop::sample::Index, length: usize) -> Option<usize> {
    (length > 0).then(|| index.index(length))
}

/// Nobody listens to plain events, nor reads stored ones.
async fn nobody_listens(gateway: &Gateway) {
    let lines = [
        "flotilla_signal_listeners 0\n",
        "flotilla_subscribers{kind=\"topic\"} 0\n",
    ];
    let is_over = |metrics: String| lines.iter().all(|line| metrics.contains(line));
    while !is_over(gateway.broker.metrics_text()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn any_readers_get_what_is_theirs_in_order_and_leave_nothing_behind() {
    let strategy = prop::collection::vec(a_step(), 1..40);
    run(40, &strategy, |runtime, gateway| {
        let client = runtime.block_on(gateway.client());
        move |steps: Vec<Step>| {
            runtime.block_on(async {
                let mut client = client.clone();
                let mut life = Life::new();
                for step in steps {
                    life.step(&mut client, step).await;
                }
                life.end().await;
                soon(nobody_listens(&gateway)).await;
            });
        }
    });
}
