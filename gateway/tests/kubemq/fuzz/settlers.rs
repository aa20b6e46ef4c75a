//! Any settlements of what one client holds on several streams, by these streams and by others, one after another and
//! two at a time: each message is settled once or comes again, and whoever settles one twice is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequest;
use flotilla_gateway::kubemq::protocol::QueuesDownstreamRequestType as Type;
use flotilla_model::name::Name;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{place, run};
use crate::support::{Client, Downstream, Gateway, bodies, fill, sequences, soon, unique};
use crate::two_streams::{UNKNOWN, elsewhere};

const STREAMS: usize = 3;
const MESSAGES: usize = 24;
/// Shorter than a step may take, so that it is told what was found.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Verb {
    Ack,
    Nack,
    Requeue,
}

/// What a request names: all, or messages by their place in the transaction, of which some do not exist.
#[derive(Clone, Debug)]
enum Part {
    All,
    Places(Vec<usize>),
}

#[derive(Clone, Debug)]
enum Step {
    Get {
        stream: usize,
        count: usize,
    },
    Settle {
        which: Index,
        verb: Verb,
        part: Part,
        by_another: bool,
    },
    /// Of one that is over.
    SettleAgain {
        which: Index,
        by_another: bool,
    },
    /// Acknowledged by its own stream and by another one at the same time.
    AckTwice {
        which: Index,
        own: Vec<usize>,
        other: Vec<usize>,
    },
    Close(usize),
}

fn a_step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let places = || prop::collection::vec(0..6usize, 0..4);
    let part = prop_oneof![
        1 => Just(Part::All),
        3 => places().prop_map(Part::Places),
    ];
    let verb = prop::sample::select(vec![Verb::Ack, Verb::Nack, Verb::Requeue]);
    prop_oneof![
        4 => (0..STREAMS, 1..6usize).prop_map(|(stream, count)| Step::Get { stream, count }),
        6 => (index(), verb, part, any::<bool>()).prop_map(|(which, verb, part, by_another)| {
            Step::Settle { which, verb, part, by_another }
        }),
        1 => (index(), any::<bool>())
            .prop_map(|(which, by_another)| Step::SettleAgain { which, by_another }),
        3 => (index(), places(), places())
            .prop_map(|(which, own, other)| Step::AckTwice { which, own, other }),
        1 => (0..STREAMS).prop_map(Step::Close),
    ]
}

/// A transaction, with the bodies of what is held in it by sequence.
struct Open {
    id: String,
    stream: usize,
    sequences: Vec<i64>,
    held: BTreeMap<i64, String>,
}

impl Open {
    fn named(&self, places: &[usize]) -> Vec<i64> {
        let sequence = |place: &usize| self.sequences.get(*place).copied();
        let sequences = places.iter().map(|place| sequence(place).unwrap_or(-1));
        sequences.collect()
    }

    /// How many of these are settled: all before the first that is not held, or was named before.
    fn good(&self, named: &[i64]) -> usize {
        let mut left: BTreeSet<i64> = self.held.keys().copied().collect();
        named
            .iter()
            .take_while(|sequence| left.remove(sequence))
            .count()
    }
}

fn kind_of(verb: Verb, is_all: bool) -> Type {
    match (verb, is_all) {
        (Verb::Ack, true) => Type::AckAll,
        (Verb::Ack, false) => Type::AckRange,
        (Verb::Nack, true) => Type::NAckAll,
        (Verb::Nack, false) => Type::NAckRange,
        (Verb::Requeue, true) => Type::ReQueueAll,
        (Verb::Requeue, false) => Type::ReQueueRange,
    }
}

struct Life<'a> {
    gateway: &'a Gateway,
    client: Client,
    queue: String,
    target: String,
    streams: Vec<Downstream>,
    open: Vec<Open>,
    /// Ids of those that are over, and whose stream is still there.
    over: Vec<(String, usize)>,
    /// What the queue has, held or not, and what was moved.
    left: BTreeSet<String>,
    moved: BTreeSet<String>,
}

impl<'a> Life<'a> {
    async fn start(gateway: &'a Gateway) -> Self {
        let mut client = gateway.client().await;
        let (queue, target) = (unique("settled"), unique("target"));
        fill(&mut client, &queue, MESSAGES).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(Downstream::open(&mut client).await);
        }
        Self {
            gateway,
            client,
            queue,
            target,
            streams,
            open: Vec::new(),
            over: Vec::new(),
            left: (1..=MESSAGES).map(|number| number.to_string()).collect(),
            moved: BTreeSet::new(),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Get { stream, count } => self.get(stream, count).await,
            Step::Settle {
                which,
                verb,
                part,
                by_another,
            } => {
                if let Some(place) = place(which, self.open.len()) {
                    self.settle(place, verb, &part, by_another).await;
                }
            }
            Step::SettleAgain { which, by_another } => {
                if let Some(place) = place(which, self.over.len()) {
                    let (id, stream) = self.over[place].clone();
                    let request = self.request(&id, &[]);
                    let told = self.ask(Type::AckAll, request, stream, by_another).await;
                    assert_eq!(told.as_deref(), Some(UNKNOWN));
                }
            }
            Step::AckTwice { which, own, other } => {
                if let Some(place) = place(which, self.open.len()) {
                    self.ack_twice(place, &own, &other).await;
                }
            }
            Step::Close(stream) => self.close(stream).await,
        }
        self.counts_are_right().await;
    }

    fn leased(&self) -> usize {
        self.open.iter().map(|open| open.held.len()).sum()
    }

    async fn get(&mut self, stream: usize, count: usize) {
        // More would be waited for.
        let count = count.min(self.left.len() - self.leased());
        if count == 0 {
            return;
        }
        let got = self.streams[stream]
            .get(&self.queue, count as i32, false)
            .await;
        let sequences = sequences(&got.messages);
        let held: BTreeMap<_, _> =
            std::iter::zip(sequences.clone(), bodies(&got.messages)).collect();
        assert_eq!(held.len(), count);
        for body in held.values() {
            let had = self.open.iter().flat_map(|open| open.held.values());
            assert!(self.left.contains(body), "{body} is not there any more");
            assert!(!had.into_iter().any(|had| had == body), "{body} is held");
        }
        self.open.push(Open {
            id: got.transaction_id,
            stream,
            sequences,
            held,
        });
    }

    fn request(&self, id: &str, named: &[i64]) -> QueuesDownstreamRequest {
        QueuesDownstreamRequest {
            request_id: "elsewhere".to_owned(),
            ref_transaction_id: id.to_owned(),
            sequence_range: named.to_vec(),
            re_queue_channel: self.target.clone(),
            ..QueuesDownstreamRequest::default()
        }
    }

    /// What is told of a settlement, if anything is.
    async fn ask(
        &mut self,
        kind: Type,
        request: QueuesDownstreamRequest,
        stream: usize,
        by_another: bool,
    ) -> Option<String> {
        let id = request.ref_transaction_id.clone();
        if by_another {
            let told = elsewhere(&mut self.client, kind, request).await;
            return told.map(|told| told.error);
        }
        self.streams[stream].send(kind, request).await;
        self.offsets(stream, &id).await.0
    }

    /// What the stream has to say, and what is still held in one of its transactions.
    async fn offsets(&mut self, stream: usize, id: &str) -> (Option<String>, BTreeSet<i64>) {
        let question = QueuesDownstreamRequest {
            request_id: "offsets".to_owned(),
            ..self.request(id, &[])
        };
        let stream = &mut self.streams[stream];
        stream.send(Type::ActiveOffsets, question).await;
        let mut told = None;
        loop {
            let answer = stream.answer().await;
            if answer.ref_request_id == "offsets" {
                return (told, answer.active_offsets.into_iter().collect());
            }
            assert!(told.is_none(), "two answers: {told:?} and {answer:?}");
            told = Some(answer.error);
        }
    }

    async fn settle(&mut self, place: usize, verb: Verb, part: &Part, by_another: bool) {
        let open = &self.open[place];
        let (id, stream) = (open.id.clone(), open.stream);
        let named = match part {
            Part::All => open.held.keys().copied().collect(),
            Part::Places(places) => open.named(places),
        };
        let good = open.good(&named);
        let is_all = matches!(part, Part::All);
        let request = self.request(&id, if is_all { &[] } else { &named });
        let told = self
            .ask(kind_of(verb, is_all), request, stream, by_another)
            .await;
        let is_refused = named.is_empty() || good < named.len();
        assert_eq!(told.is_some(), is_refused, "{part:?} was told {told:?}");
        self.settled(place, verb, &named[..good]);
    }

    /// Takes out what was settled; in the end, the transaction too.
    fn settled(&mut self, place: usize, verb: Verb, sequences: &[i64]) {
        let open = &mut self.open[place];
        for sequence in sequences {
            let body = open.held.remove(sequence).unwrap();
            match verb {
                Verb::Nack => {}
                Verb::Ack => assert!(self.left.remove(&body)),
                Verb::Requeue => {
                    assert!(self.left.remove(&body));
                    self.moved.insert(body);
                }
            }
        }
        if open.held.is_empty() {
            let open = self.open.remove(place);
            self.over.push((open.id, open.stream));
        }
    }

    async fn ack_twice(&mut self, place: usize, own: &[usize], other: &[usize]) {
        let open = &self.open[place];
        let (id, stream) = (open.id.clone(), open.stream);
        let before: BTreeSet<i64> = open.held.keys().copied().collect();
        let (own, other) = (open.named(own), open.named(other));
        let requests = [&own, &other].map(|named| self.request(&id, named));
        let [own_request, other_request] = requests;
        let mut client = self.client.clone();
        let sending = self.streams[stream].send(Type::AckRange, own_request);
        let asking = elsewhere(&mut client, Type::AckRange, other_request);
        let ((), told_other) = tokio::join!(sending, asking);
        let (told_own, held) = self.offsets(stream, &id).await;
        let settled: Vec<i64> = before.difference(&held).copied().collect();
        let one_of = |sequence: &i64| own.contains(sequence) || other.contains(sequence);
        assert!(
            settled.iter().all(one_of),
            "{settled:?} of {own:?} and {other:?}"
        );
        for (named, is_refused) in [(&own, told_own.is_some()), (&other, told_other.is_some())] {
            let is_done = named.iter().all(|sequence| settled.contains(sequence));
            assert!(is_refused || is_done, "{named:?} is not in {settled:?}");
        }
        if told_own.is_none() && told_other.is_none() {
            let is_twice = own.iter().any(|sequence| other.contains(sequence));
            assert!(!is_twice, "{own:?} and {other:?} were both done");
        }
        self.settled(place, Verb::Ack, &settled);
    }

    /// What a stream holds at its end is there again.
    async fn close(&mut self, stream: usize) {
        let mut closed = Downstream::open(&mut self.client).await;
        std::mem::swap(&mut closed, &mut self.streams[stream]);
        closed.half_close();
        closed.end().await.unwrap();
        self.open.retain(|open| open.stream != stream);
        self.over.retain(|(_, of)| *of != stream);
    }

    async fn counts_are_right(&self) {
        let name = Name::queue(&self.queue).unwrap();
        let wanted = (self.left.len() as u64, self.leased() as u64);
        let mut found = (0, 0);
        let counting = tokio::time::timeout(COUNTED_WITHIN, async {
            while found != wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let detail = self.gateway.broker.queue(&name).await.unwrap();
                found = (detail.messages, detail.leased);
            }
        });
        assert!(counting.await.is_ok(), "{found:?} instead of {wanted:?}");
    }

    async fn end(mut self) {
        for stream in 0..STREAMS {
            self.close(stream).await;
        }
        self.counts_are_right().await;
        for (queue, expected) in [(&self.queue, &self.left), (&self.target, &self.moved)] {
            let mut found = Vec::new();
            while found.len() < expected.len() {
                let count = (expected.len() - found.len()) as i32;
                let got = self.streams[0].get(queue, count, true).await;
                found.extend(bodies(&got.messages));
            }
            found.sort_unstable();
            assert!(
                found.iter().eq(expected),
                "{found:?} instead of {expected:?}"
            );
        }
    }
}

#[test]
fn whichever_stream_settles_each_message_is_settled_once_or_comes_again() {
    let strategy = prop::collection::vec(a_step(), 1..30);
    run(40, &strategy, |runtime, gateway| {
        move |steps: Vec<Step>| {
            runtime.block_on(async {
                let mut life = Life::start(&gateway).await;
                for step in steps {
                    soon(life.step(step)).await;
                }
                soon(life.end()).await;
            });
        }
    });
}
