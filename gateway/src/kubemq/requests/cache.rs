//! Responses to queries, kept for whoever asks the same again.
//!
//! A query names what it asks for by a key, which counts within its channel. Each node keeps what it was
//! asked itself: one that does not have a response asks the responders. Nothing is kept beyond its time, and
//! what was used least recently goes when there is no room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;

use crate::kubemq::protocol::Response;

/// What an entry takes besides its texts and its response, about.
const ENTRY_BYTES: usize = 512;
/// One response may take this part of the room, so that it does not push out all others.
const RESPONSES_PER_ROOM_MIN: usize = 8;

/// What a query asks for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    channel: String,
    key: String,
}

impl Key {
    /// Of a query; `None` if it asks for none.
    pub fn of(channel: &str, key: &str) -> Option<Self> {
        (!key.is_empty()).then(|| Self {
            channel: channel.to_owned(),
            key: key.to_owned(),
        })
    }
}

/// The responses that are kept.
pub struct QueryCache {
    kept: Mutex<Kept>,
    entries_max: usize,
    bytes_max: usize,
}

impl QueryCache {
    /// For so many responses, with so many bytes together.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            kept: Mutex::default(),
            entries_max,
            bytes_max,
        }
    }

    /// The response for a key, marked as one that was kept.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Response> {
        let encoded = self.kept.lock().get(key, now)?;
        // What was encoded here can be decoded; if not, the responders know it.
        let response = Response::decode(encoded).ok()?;
        Some(Response {
            cache_hit: true,
            ..response
        })
    }

    /// Keeps a response for a time, if there can be room for it.
    pub fn put(&self, key: Key, response: &Response, ttl: Duration, now: Instant) {
        let bytes = ENTRY_BYTES
            .saturating_add(2 * (key.channel.len() + key.key.len()))
            .saturating_add(response.encoded_len());
        if self.entries_max == 0 || bytes > self.bytes_max / RESPONSES_PER_ROOM_MIN {
            return;
        }
        // In bytes of its own: the body is a part of what was read from a socket, all of which it would keep.
        let encoded = Bytes::from(response.encode_to_vec());
        let mut kept = self.kept.lock();
        kept.put(Arc::new(key), encoded, bytes, now + ttl);
        kept.forget_old(now);
        while kept.entries.len() > self.entries_max || kept.bytes > self.bytes_max {
            kept.forget_least_used();
        }
    }
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Arc<Key>, Entry>,
    /// The turns in which entries were used last.
    uses: BTreeMap<u64, Arc<Key>>,
    /// The times of all entries.
    ends: BTreeSet<(Instant, Arc<Key>)>,
    last_turn: u64,
    bytes: usize,
}

struct Entry {
    encoded: Bytes,
    /// What all of it weighs.
    bytes: usize,
    end: Instant,
    /// Its key among the uses.
    turn: u64,
}

impl Kept {
    fn get(&mut self, key: &Key, now: Instant) -> Option<Bytes> {
        let entry = self.entries.get_mut(key).filter(|entry| entry.end > now)?;
        self.last_turn += 1;
        if let Some(key) = self.uses.remove(&entry.turn) {
            self.uses.insert(self.last_turn, key);
        }
        entry.turn = self.last_turn;
        Some(entry.encoded.clone())
    }

    fn put(&mut self, key: Arc<Key>, encoded: Bytes, bytes: usize, end: Instant) {
        self.forget(&key);
        self.last_turn += 1;
        let entry = Entry {
            encoded,
            bytes,
            end,
            turn: self.last_turn,
        };
        self.bytes += bytes;
        self.uses.insert(self.last_turn, Arc::clone(&key));
        self.ends.insert((end, Arc::clone(&key)));
        self.entries.insert(key, entry);
    }

    fn forget(&mut self, key: &Arc<Key>) {
        if let Some(entry) = self.entries.remove(key) {
            self.uses.remove(&entry.turn);
            self.ends.remove(&(entry.end, Arc::clone(key)));
            self.bytes -= entry.bytes;
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((end, key)) = self.ends.first()
            && *end <= now
        {
            let key = Arc::clone(key);
            self.forget(&key);
        }
    }

    fn forget_least_used(&mut self) {
        if let Some((_, key)) = self.uses.first_key_value() {
            let key = Arc::clone(key);
            self.forget(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(channel: &str, key: &str) -> Key {
        Key::of(channel, key).unwrap()
    }

    fn response(text: &str) -> Response {
        Response {
            body: Bytes::copy_from_slice(text.as_bytes()),
            executed: true,
            ..Response::default()
        }
    }

    fn put(cache: &QueryCache, text: &str, now: Instant) {
        cache.put(key("a", text), &response(text), SECOND, now);
    }

    /// Which of these texts are kept under themselves.
    fn kept<'a>(cache: &QueryCache, texts: &[&'a str], now: Instant) -> Vec<&'a str> {
        let is_kept = |text: &&&str| match cache.get(&key("a", text), now) {
            Some(hit) => {
                assert!(hit.cache_hit);
                assert_eq!(hit.body, text.as_bytes());
                true
            }
            None => false,
        };
        texts.iter().filter(is_kept).copied().collect()
    }

    fn assert_empty(cache: &QueryCache) {
        let kept = cache.kept.lock();
        assert!(kept.entries.is_empty() && kept.uses.is_empty() && kept.ends.is_empty());
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn a_key_counts_within_its_channel_and_no_key_is_none() {
        let cache = QueryCache::new(10, 1 << 20);
        let now = Instant::now();
        put(&cache, "x", now);
        assert_eq!(kept(&cache, &["x", "y"], now), ["x"]);
        assert!(cache.get(&key("b", "x"), now).is_none());
        assert!(cache.get(&key("ax", "x"), now).is_none());
        assert_eq!(Key::of("a", ""), None);
    }

    #[test]
    fn a_response_is_kept_for_its_time_and_not_longer() {
        let cache = QueryCache::new(10, 1 << 20);
        let now = Instant::now();
        put(&cache, "x", now);
        assert_eq!(kept(&cache, &["x"], now + SECOND / 2), ["x"]);
        assert!(kept(&cache, &["x"], now + SECOND).is_empty());
        // What is over takes no room any more when something else comes.
        put(&cache, "y", now + 2 * SECOND);
        assert_eq!(cache.kept.lock().entries.len(), 1);
        cache.kept.lock().forget_old(now + 4 * SECOND);
        assert_empty(&cache);
    }

    #[test]
    fn a_newer_response_takes_the_place_of_the_older() {
        let cache = QueryCache::new(10, 1 << 20);
        let now = Instant::now();
        put(&cache, "x", now);
        cache.put(key("a", "x"), &response("new"), 5 * SECOND, now);
        let hit = cache.get(&key("a", "x"), now + 4 * SECOND).unwrap();
        assert_eq!(hit.body, "new");
        cache.kept.lock().forget_least_used();
        assert_empty(&cache);
    }

    #[test]
    fn the_least_recently_used_goes_first_when_there_are_too_many() {
        let cache = QueryCache::new(2, 1 << 20);
        let now = Instant::now();
        put(&cache, "x", now);
        put(&cache, "y", now);
        assert_eq!(kept(&cache, &["x"], now), ["x"]);
        put(&cache, "z", now);
        assert_eq!(kept(&cache, &["x", "y", "z"], now), ["x", "z"]);
    }

    #[test]
    fn bytes_are_bounded_and_one_response_never_takes_all_of_them() {
        let cache = QueryCache::new(1_000, 20_000);
        let now = Instant::now();
        let large = "l".repeat(1_000);
        for number in 0..100 {
            cache.put(
                key("a", &number.to_string()),
                &response(&large),
                SECOND,
                now,
            );
            assert!(cache.kept.lock().bytes <= 20_000);
        }
        let count = cache.kept.lock().entries.len();
        assert!((10..20).contains(&count), "{count} are kept");
        put(&cache, &"h".repeat(1_500), now);
        assert_eq!(cache.kept.lock().entries.len(), count, "it is not kept");
        let off = QueryCache::new(0, 20_000);
        put(&off, "x", now);
        assert_empty(&off);
    }
}
