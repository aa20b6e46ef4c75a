//! Of events and subscriptions.

use flotilla_gateway::kubemq::protocol::subscribe::{EventsStoreType, SubscribeType};
use flotilla_gateway::kubemq::protocol::{Event, Subscribe};

use super::{
    CHANNELS, CLIENT_LONG, E101, E107, E110, E111, E112, E113, E114, E118, E207, internal, long,
    rows,
};
use crate::support::{Gateway, a_subscribe, an_event, soon, unique};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_events_are_refused_on_both_calls() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let right = an_event("a", 7, false);
    let mut cases = rows(
        &right,
        &[
            (E101, |event: &mut Event| event.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E110, |event| {
                event.metadata.clear();
                event.body.clear();
            }),
        ],
    );
    for (channel, text) in CHANNELS {
        let channel = channel.to_owned();
        cases.push((
            Event {
                channel,
                ..right.clone()
            },
            text.to_owned(),
        ));
    }
    for (event, text) in cases {
        for store in [false, true] {
            let event = Event {
                store,
                ..event.clone()
            };
            let status = client.send_event(event.clone()).await.unwrap_err();
            assert_eq!(internal(status), text);
            // The stream goes on after it.
            let events = futures::stream::iter([event, an_event(&unique("a"), 8, true)]);
            let results = client.send_events_stream(events).await;
            let mut results = results.unwrap().into_inner();
            let wrong = soon(results.message()).await.unwrap().unwrap();
            assert_eq!(
                (&wrong.event_id[..], wrong.sent, wrong.error),
                ("7", false, text.clone())
            );
            let right = soon(results.message()).await.unwrap().unwrap();
            assert_eq!((&right.event_id[..], right.sent), ("8", true));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_subscriptions_are_refused() {
    let gateway = Gateway::start().await;
    let client = gateway.client().await;
    let events = a_subscribe(SubscribeType::Events as i32, "a", "c");
    let store = Subscribe {
        events_store_type_data: EventsStoreType::StartNewOnly as i32,
        ..a_subscribe(SubscribeType::EventsStore as i32, "a", "c")
    };
    let mut cases = rows(
        &events,
        &[
            (E101, |one: &mut Subscribe| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E118, |one| one.events_store_type_data = 1),
            (E207, |one| one.subscribe_type_data = 0),
            (E207, |one| {
                one.subscribe_type_data = SubscribeType::Commands as i32
            }),
            (E207, |one| {
                one.subscribe_type_data = SubscribeType::Queries as i32
            }),
            (E207, |one| one.subscribe_type_data = 9),
        ],
    );
    cases.extend(rows(
        &store,
        &[
            (E101, |one: &mut Subscribe| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E111, |one| one.events_store_type_data = 0),
            (E112, |one| one.events_store_type_data = 4),
            (E112, |one| {
                one.events_store_type_data = 4;
                one.events_store_type_value = -1;
            }),
            (E113, |one| one.events_store_type_data = 5),
            (E113, |one| {
                one.events_store_type_data = 5;
                one.events_store_type_value = -1;
            }),
            (E114, |one| one.events_store_type_data = 6),
            (E114, |one| {
                one.events_store_type_data = 6;
                one.events_store_type_value = -1;
            }),
        ],
    ));
    for (channel, text) in CHANNELS {
        let change = |right: &Subscribe| Subscribe {
            channel: channel.to_owned(),
            ..right.clone()
        };
        cases.push((change(&store), text.to_owned()));
        if text != E107 {
            cases.push((change(&events), text.to_owned()));
        }
    }
    for (request, text) in cases {
        let refused = soon(client.clone().subscribe_to_events(request)).await;
        assert_eq!(internal(refused.unwrap_err()), text);
    }

    let right = a_subscribe(SubscribeType::Commands as i32, "a", "c");
    let mut cases = rows(
        &right,
        &[
            (E101, |one: &mut Subscribe| one.client_id.clear()),
            (CLIENT_LONG, |one| one.client_id = long()),
            (E207, |one| one.subscribe_type_data = 0),
            (E207, |one| {
                one.subscribe_type_data = SubscribeType::Events as i32
            }),
            (E207, |one| {
                one.subscribe_type_data = SubscribeType::EventsStore as i32
            }),
        ],
    );
    for (channel, text) in CHANNELS.iter().filter(|(_, text)| *text != E107) {
        let channel = (*channel).to_owned();
        cases.push((
            Subscribe {
                channel,
                ..right.clone()
            },
            (*text).to_owned(),
        ));
    }
    for (request, text) in cases {
        let refused = soon(client.clone().subscribe_to_requests(request)).await;
        assert_eq!(internal(refused.unwrap_err()), text);
    }
}
