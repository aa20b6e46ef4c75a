//! Any frames on the WebSockets on which clients have a say.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{QUEUE, all_is_given_back, refill, run, soon_in};
use crate::rest::support::{Socket, get};

/// The sockets, and what each of them would take.
fn sockets() -> Vec<(&'static str, Vec<String>)> {
    let step = |kind: i32| {
        json!({"RequestID": "r", "ClientID": "c", "StreamRequestTypeData": kind, "Channel": QUEUE,
               "VisibilitySeconds": 30, "WaitTimeSeconds": 1, "RefSequence": 1,
               "ModifiedMessage": {"ClientID": "c", "Channel": "q;events:e", "Body": "YQ=="}})
        .to_string()
    };
    let event = |channel: &str, is_stored: bool| {
        json!({"EventID": "1", "ClientID": "c", "Channel": channel, "Body": "YQ==", "Store": is_stored,
               "Tags": {"k": "v"}})
        .to_string()
    };
    vec![
        ("/queue/stream", (0..8).map(step).collect()),
        (
            "/send/stream",
            vec![
                event("a", false),
                event("a", true),
                event("queues:q;routes:k", true),
            ],
        ),
    ]
}

#[derive(Clone, Debug)]
enum Frame {
    Right(prop::sample::Index),
    /// A right one with some characters in the place of others, and its end cut off.
    Bent(
        prop::sample::Index,
        Vec<(prop::sample::Index, char)>,
        Option<prop::sample::Index>,
    ),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
}

fn a_frame() -> impl Strategy<Value = Frame> {
    let index = any::<prop::sample::Index>;
    let character = prop_oneof![
        prop::sample::select(r#"{}[]":,0-1e.\ntu"#.chars().collect::<Vec<_>>()),
        any::<char>()
    ];
    let changes = prop::collection::vec((index(), character), 1..4);
    prop_oneof![
        4 => index().prop_map(Frame::Right),
        4 => (index(), changes, prop::option::weighted(0.3, index()))
            .prop_map(|(right, changes, cut)| Frame::Bent(right, changes, cut)),
        1 => ".{0,40}".prop_map(Frame::Text),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Frame::Binary),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Frame::Ping),
    ]
}

impl Frame {
    fn of(self, right: &[String]) -> Message {
        match self {
            Self::Right(which) => Message::text(which.get(right).clone()),
            Self::Bent(which, changes, cut) => {
                let mut text: Vec<char> = which.get(right).chars().collect();
                for (place, character) in changes {
                    let place = place.index(text.len());
                    text[place] = character;
                }
                if let Some(cut) = cut {
                    text.truncate(cut.index(text.len()));
                }
                Message::text(text.into_iter().collect::<String>())
            }
            Self::Text(text) => Message::text(text),
            Self::Binary(bytes) => Message::binary(bytes),
            Self::Ping(bytes) => Message::Ping(bytes.into()),
        }
    }
}

/// Says it all and leaves. What the server says until the end is messages, or why it closes.
async fn say(mut socket: Socket, frames: Vec<Message>) {
    for frame in frames {
        if !socket.try_say(frame).await {
            break;
        }
    }
    socket.try_say(Message::Close(None)).await;
    while let Some(told) = socket.any().await {
        match told {
            Message::Text(text) => {
                let told: Value = serde_json::from_str(&text).unwrap();
                assert!(told.is_object(), "{told}");
            }
            Message::Close(Some(frame)) => {
                let code = u16::from(frame.code);
                assert!(matches!(code, 1000 | 1003 | 1005 | 1007), "{frame}");
            }
            Message::Close(None) | Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_frames_are_answered_or_close_their_socket_and_leave_nothing_behind() {
    let strategy = (
        prop::sample::select(sockets()),
        prop::collection::vec(a_frame(), 1..8),
    );
    run(150, &strategy, |runtime, gateway| {
        let client = runtime.block_on(gateway.client());
        move |((path, right), frames)| {
            soon_in(&runtime, refill(&gateway, &mut client.clone()));
            let frames = frames.into_iter().map(|frame| frame.of(&right)).collect();
            let socket = soon_in(&runtime, Socket::open(gateway.rest, path));
            soon_in(&runtime, say(socket, frames));
            assert_eq!(soon_in(&runtime, get(gateway.rest, "/ping")).status, 200);
            soon_in(&runtime, all_is_given_back(&gateway));
        }
    });
}
