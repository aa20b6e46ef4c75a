//! The kinds of values that fields of messages have.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serializer};

use crate::transport::codec::{MESSAGES_MAX, PARTS_MAX};

/// Base64 as all write it; some leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A value of a message, or a message.
pub trait Value: Default + Sized {
    /// Whether a field with it is left out.
    fn is_zero(&self) -> bool;

    /// Writes it.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Reads it.
    fn read<'de, D: Deserializer<'de>>(deserializer: D, room: &Room) -> Result<Self, D::Error>;
}

/// A value for whoever writes.
pub struct Shown<'a, T>(pub &'a T);

/// A value for whoever reads.
pub struct Seed<'r, T>(pub &'r Room, pub PhantomData<T>);

impl<'de, T: Value> DeserializeSeed<'de> for Seed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(deserializer, self.0)
    }
}

/// How much more a request may hold: as much as one that is not JSON.
pub struct Room {
    messages: Cell<usize>,
    parts: Cell<usize>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            messages: Cell::new(MESSAGES_MAX),
            parts: Cell::new(PARTS_MAX),
        }
    }
}

impl Room {
    /// Makes room for one more message.
    fn message<E: Error>(&self) -> Result<(), E> {
        let left = self.messages.get().checked_sub(1).ok_or_else(|| {
            E::custom(format_args!(
                "the request has more than {MESSAGES_MAX} messages"
            ))
        })?;
        self.messages.set(left);
        Ok(())
    }

    /// Makes room for one more field or tag.
    pub fn part<E: Error>(&self) -> Result<(), E> {
        let left = self.parts.get().checked_sub(1).ok_or_else(|| {
            E::custom(format_args!(
                "the request has more than {PARTS_MAX} fields and tags"
            ))
        })?;
        self.parts.set(left);
        Ok(())
    }
}

macro_rules! scalars {
    ($($kind:ty: $serialize:ident),* $(,)?) => {$(
        impl Value for $kind {
            fn is_zero(&self) -> bool {
                *self == <$kind>::default()
            }

            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.$serialize(*self)
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D, _: &Room) -> Result<Self, D::Error> {
                Ok(Option::deserialize(deserializer)?.unwrap_or_default())
            }
        }
    )*};
}

scalars!(
    bool: serialize_bool,
    i32: serialize_i32,
    i64: serialize_i64,
    u64: serialize_u64,
);

impl Value for String {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D, _: &Room) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or_default())
    }
}

impl Value for Bytes {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D, _: &Room) -> Result<Self, D::Error> {
        let text: Option<Cow<'de, str>> = Option::deserialize(deserializer)?;
        match text {
            None => Ok(Self::new()),
            Some(text) => BASE64
                .decode(text.as_bytes())
                .map(Self::from)
                .map_err(|error| D::Error::custom(format_args!("no base64: {error}"))),
        }
    }
}

impl Value for HashMap<String, String> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In one order, whatever the map's is: the same message is the same text.
        serializer.collect_map(self.iter().collect::<BTreeMap<_, _>>())
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D, room: &Room) -> Result<Self, D::Error> {
        struct Tags<'r>(&'r Room);

        impl<'de> Visitor<'de> for Tags<'_> {
            type Value = HashMap<String, String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(HashMap::new())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut tags = HashMap::new();
                while let Some(key) = map.next_key()? {
                    self.0.part()?;
                    tags.insert(key, map.next_value::<Option<String>>()?.unwrap_or_default());
                }
                Ok(tags)
            }
        }

        deserializer.deserialize_any(Tags(room))
    }
}

impl<M: Value> Value for Vec<M> {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Shown))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D, room: &Room) -> Result<Self, D::Error> {
        struct List<'r, M>(&'r Room, PhantomData<M>);

        impl<'de, M: Value> Visitor<'de> for List<'_, M> {
            type Value = Vec<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_unit<E: Error>(self) -> Result<Vec<M>, E> {
                Ok(Vec::new())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<M>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element_seed(Seed(self.0, PhantomData))? {
                    self.0.message()?;
                    list.push(item);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_any(List(room, PhantomData))
    }
}

impl<M: Value> Value for Option<M> {
    fn is_zero(&self) -> bool {
        self.is_none()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(message) => message.write(serializer),
            None => serializer.serialize_unit(),
        }
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D, room: &Room) -> Result<Self, D::Error> {
        struct Maybe<'r, M>(&'r Room, PhantomData<M>);

        impl<'de, M: Value> Visitor<'de> for Maybe<'_, M> {
            type Value = Option<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E: Error>(self) -> Result<Option<M>, E> {
                Ok(None)
            }

            fn visit_none<E: Error>(self) -> Result<Option<M>, E> {
                Ok(None)
            }

            fn visit_some<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Option<M>, D::Error> {
                M::read(deserializer, self.0).map(Some)
            }
        }

        deserializer.deserialize_option(Maybe(room, PhantomData))
    }
}
