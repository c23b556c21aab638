//! The answers, in the exact order in which they were last asked for, within bounds of entries, bytes and time.

use crate::key::Key;
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// What an entry takes beside its key and its value: its place in the list and in the map.
const ENTRY_BYTES: usize = 200;
/// There is no room of bytes when less than one part in so many is free.
const FULL_DIVISOR: usize = 16;
const NONE: u32 = u32::MAX;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Answers.
    pub entries: usize,
    /// Of keys, answers and what it takes to find them.
    pub bytes: usize,
    /// No answer is older than this.
    pub ttl: Duration,
}

#[derive(Clone, Debug)]
struct Node<V> {
    key: Key,
    value: V,
    bytes: usize,
    until: Instant,
    newer: u32,
    older: u32,
}

/// An exact LRU.
#[derive(Clone, Debug)]
pub(crate) struct Lru<V> {
    bounds: Bounds,
    places: FxHashMap<u128, u32>,
    nodes: Vec<Option<Node<V>>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    bytes: usize,
    evictions: u64,
}

impl<V> Lru<V> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            places: FxHashMap::default(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            bytes: 0,
            evictions: 0,
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Is another likely to make one leave?
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.bounds.entries
            || self.bounds.bytes - self.bytes < self.bounds.bytes / FULL_DIVISOR
    }

    /// Entries that made room for others.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The value, which is the newest from now on.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<&V> {
        self.get_mut(key, now).map(|value| &*value)
    }

    pub(crate) fn get_mut(&mut self, key: &Key, now: Instant) -> Option<&mut V> {
        let place = *self.places.get(&key.hash())?;
        let node = self.nodes.get(place as usize)?.as_ref()?;
        if node.key != *key {
            return None;
        }
        if now >= node.until {
            self.remove_at(place);
            return None;
        }
        self.unlink(place);
        self.link_newest(place);
        self.node(place).map(|node| &mut node.value)
    }

    /// The value, perhaps past its time; as if nobody had asked.
    pub(crate) fn peek(&self, key: &Key) -> Option<&V> {
        let place = *self.places.get(&key.hash())?;
        let node = self.nodes.get(place as usize)?.as_ref()?;
        (node.key == *key).then_some(&node.value)
    }

    /// The same by the hash alone: of whichever key has it.
    pub(crate) fn peek_hash(&self, hash: u128) -> Option<&V> {
        let place = *self.places.get(&hash)?;
        self.nodes.get(place as usize)?.as_ref().map(|node| &node.value)
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<V> {
        let place = *self.places.get(&key.hash())?;
        let same = self.nodes.get(place as usize)?.as_ref().is_some_and(|node| node.key == *key);
        if same { self.remove_at(place) } else { None }
    }

    /// Keeps a value of so many bytes until then, in place of what has its key, or its hash. What is too large for all the
    /// room there is, is not kept.
    pub(crate) fn put(&mut self, key: Key, value: V, value_bytes: usize, until: Instant) {
        if let Some(place) = self.places.get(&key.hash()) {
            self.remove_at(*place);
        }
        let bytes = key.bytes() + value_bytes + ENTRY_BYTES;
        if bytes > self.bounds.bytes || self.bounds.entries == 0 {
            return;
        }
        while self.len() >= self.bounds.entries || self.bytes + bytes > self.bounds.bytes {
            self.remove_at(self.oldest);
            self.evictions += 1;
        }
        self.bytes += bytes;
        let hash = key.hash();
        let node = Node { key, value, bytes, until, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = Some(node);
                place
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() as u32 - 1
            }
        };
        self.places.insert(hash, place);
        self.link_newest(place);
    }

    #[cfg(test)]
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.nodes.iter().flatten().map(|node| &node.value)
    }

    pub(crate) fn clear(&mut self) {
        let (bounds, evictions) = (self.bounds, self.evictions);
        *self = Self { evictions, ..Self::new(bounds) };
    }

    fn remove_at(&mut self, place: u32) -> Option<V> {
        self.unlink(place);
        let node = self.nodes.get_mut(place as usize)?.take()?;
        self.places.remove(&node.key.hash());
        self.bytes -= node.bytes;
        self.free.push(place);
        Some(node.value)
    }

    fn node(&mut self, place: u32) -> Option<&mut Node<V>> {
        self.nodes.get_mut(place as usize)?.as_mut()
    }

    fn unlink(&mut self, place: u32) {
        let Some(node) = self.node(place) else { return };
        let (newer, older) = (node.newer, node.older);
        match self.node(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, place: u32) {
        let older = self.newest;
        if let Some(node) = self.node(place) {
            (node.newer, node.older) = (NONE, older);
        }
        match self.node(older) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: u64 = 60;

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Put(u8, usize, u64),
        Remove(u8),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8_u8).prop_map(Step::Get),
            4 => (0..8_u8, 0..900_usize, 1..=TTL).prop_map(|(key, bytes, ttl)| Step::Put(key, bytes, ttl)),
            1 => (0..8_u8).prop_map(Step::Remove),
            1 => (1..40_u64).prop_map(Step::Wait),
        ]
    }

    /// Two of the eight keys share a hash.
    fn key(name: u8) -> Key {
        Key::of(u128::from(name.min(6)), &[name])
    }

    /// Key, value, bytes and end, the newest last.
    type Model = Vec<(u8, usize, usize, Instant)>;

    fn put(
        model: &mut Model,
        evicted: &mut u64,
        name: u8,
        (value, bytes, until): (usize, usize, Instant),
        bounds: Bounds,
    ) {
        model.retain(|(known, ..)| key(*known).hash() != key(name).hash());
        if bytes > bounds.bytes {
            return;
        }
        let total = |model: &Model| model.iter().map(|(_, _, bytes, _)| bytes).sum::<usize>();
        while model.len() >= bounds.entries || total(model) + bytes > bounds.bytes {
            model.remove(0);
            *evicted += 1;
        }
        model.push((name, value, bytes, until));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 18: what is evicted is what was asked for longest ago; never more entries or bytes than allowed, and
        // nothing older than its time.
        #[test]
        fn it_is_an_exact_lru(steps in proptest::collection::vec(step(), 1..120)) {
            let bounds = Bounds { entries: 4, bytes: 2_400, ttl: Duration::from_secs(TTL) };
            let mut lru = Lru::new(bounds);
            let (mut model, mut evicted): (Model, u64) = (Vec::new(), 0);
            let mut now = Instant::now();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Remove(name) => {
                        let expected = model.iter().any(|(known, ..)| *known == name);
                        model.retain(|(known, ..)| *known != name);
                        prop_assert_eq!(lru.remove(&key(name)).is_some(), expected);
                    }
                    Step::Put(name, bytes, ttl) => {
                        let until = now + Duration::from_secs(ttl);
                        lru.put(key(name), number, bytes, until);
                        put(&mut model, &mut evicted, name, (number, bytes + 1 + ENTRY_BYTES, until), bounds);
                    }
                    Step::Get(name) => {
                        let found = model.iter().position(|(known, ..)| *known == name);
                        let mut expected = None;
                        if let Some(place) = found {
                            let entry = model.remove(place);
                            if now < entry.3 {
                                expected = Some(entry.1);
                                model.push(entry);
                            }
                        }
                        prop_assert_eq!(lru.get(&key(name), now).copied(), expected);
                    }
                }
                prop_assert_eq!(lru.len(), model.len());
                prop_assert_eq!(lru.bytes(), model.iter().map(|(_, _, bytes, _)| bytes).sum::<usize>());
                prop_assert!(lru.len() <= bounds.entries && lru.bytes() <= bounds.bytes);
                prop_assert_eq!(lru.evictions(), evicted);
            }
        }
    }
}
