//! What the tests of Consume say to a gateway.

use std::time::Duration;

use flotilla_gateway::native::protocol::consume_request::settle::Kind;
use flotilla_gateway::native::protocol::consume_request::{Lease, Settle};
use flotilla_gateway::native::protocol::consume_response::{Leased, Settled};
use flotilla_gateway::native::protocol::{ConsumeRequest, ConsumeResponse};
use flotilla_model::name::Name;

use crate::support::{Gateway, Talk, soon, text_of};

type Consumer = Talk<ConsumeRequest, ConsumeResponse>;

pub fn a_lease(queue: &str, messages_max: u32) -> Lease {
    Lease {
        request: 1,
        queue: queue.to_owned(),
        messages_max,
        wait_ms: 10_000,
        ..Lease::default()
    }
}

pub async fn lease(consumer: &mut Consumer, lease: Lease) -> Leased {
    let request = ConsumeRequest {
        leases: vec![lease],
        ..ConsumeRequest::default()
    };
    let mut answer = consumer.ask(request).await;
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    answer.leased.remove(0)
}

pub fn a_settle(queue: &str, lease: u64, kind: Kind, sequences: &[u64]) -> Settle {
    Settle {
        request: 2,
        queue: queue.to_owned(),
        lease,
        kind: kind.into(),
        sequences: sequences.to_vec(),
        ..Settle::default()
    }
}

pub fn an_ack(queue: &str, lease: u64) -> ConsumeRequest {
    ConsumeRequest {
        settles: vec![a_settle(queue, lease, Kind::Ack, &[])],
        ..ConsumeRequest::default()
    }
}

pub async fn settle(consumer: &mut Consumer, settle: Settle) -> Settled {
    let request = ConsumeRequest {
        settles: vec![settle],
        ..ConsumeRequest::default()
    };
    let mut answer = consumer.ask(request).await;
    assert!(answer.failed.is_empty(), "{:?}", answer.failed);
    answer.settled.remove(0)
}

pub fn texts(leased: &Leased) -> Vec<String> {
    leased
        .messages
        .iter()
        .map(|message| text_of(message.record.as_ref().unwrap()))
        .collect()
}

/// Waits until so many messages of a queue are neither acknowledged nor held.
pub async fn until_available(gateway: &Gateway, queue: &str, count: u64) {
    let name = Name::queue(queue).unwrap();
    soon(async {
        while gateway.broker.queue(&name).await.unwrap().available != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until so many messages of a queue are left.
pub async fn until_left(gateway: &Gateway, queue: &str, count: u64) {
    let name = Name::queue(queue).unwrap();
    soon(async {
        while gateway.broker.queue(&name).await.unwrap().messages != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
