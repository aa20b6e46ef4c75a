//! What is asked: shared by all who get it.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_model::message::Message;
use flotilla_model::name::Name;

use crate::hub::request::room::Room;

/// A request as it goes to responders.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub name: Arc<Name>,
    pub message: Arc<Message>,
    pub extra: Bytes,
    /// What all of it weighs.
    pub bytes: u64,
}

impl Contents {
    /// Of a message that has so many bytes encoded.
    pub fn new(name: Arc<Name>, message: Arc<Message>, extra: Bytes, message_bytes: u64) -> Self {
        let bytes = message_bytes + extra.len() as u64 + name.text().len() as u64;
        Self {
            name,
            message,
            extra,
            bytes,
        }
    }
}

/// Contents that count until the last who has them lets go: a call may be over long before a responder
/// that does not take its requests has lost sight of it.
#[derive(Clone, Debug)]
pub(crate) struct Letter(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    contents: Contents,
    /// Of all requests.
    room: Arc<Room>,
    /// Of the client's own.
    client: Option<Arc<Room>>,
}

impl Letter {
    /// Takes the room that the contents need; gives them back if there is not as much.
    pub fn new(
        contents: Contents,
        room: &Arc<Room>,
        client: Option<&Arc<Room>>,
    ) -> Result<Self, Contents> {
        if client.is_some_and(|client| !client.take(contents.bytes)) {
            return Err(contents);
        }
        if !room.take(contents.bytes) {
            if let Some(client) = client {
                client.give_back(contents.bytes);
            }
            return Err(contents);
        }
        Ok(Self(Arc::new(Counted {
            contents,
            room: Arc::clone(room),
            client: client.map(Arc::clone),
        })))
    }
}

impl Deref for Letter {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.0.contents
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        for room in self.client.iter().chain([&self.room]) {
            room.give_back(self.contents.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(extra: usize) -> Contents {
        let name = Arc::new(Name::request("four").expect("a name"));
        Contents::new(name, Arc::default(), Bytes::from(vec![0; extra]), 6)
    }

    #[test]
    fn a_letter_counts_with_its_name_until_the_last_copy_is_gone() {
        let (room, client) = (Arc::new(Room::new(100)), Arc::new(Room::new(50)));
        let used = || (room.used(), client.used());
        let letter = Letter::new(contents(10), &room, Some(&client)).expect("there is room");
        let copy = letter.clone();
        assert_eq!(used(), (20, 20));
        drop(letter);
        assert_eq!(used(), (20, 20));
        assert!(Letter::new(contents(30), &room, Some(&client)).is_err());
        let of_another = Letter::new(contents(60), &room, None).expect("there is room");
        assert!(Letter::new(contents(10), &room, Some(&client)).is_err());
        assert_eq!(used(), (90, 20), "what is refused takes nothing");
        drop((copy, of_another));
        assert_eq!(used(), (0, 0));
    }
}
