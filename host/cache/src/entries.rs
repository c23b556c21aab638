//! Entries that applications put under names of their own, and what takes them: time, room, their tags, patterns.
//!
//! They are in exact LRU order, within bounds of entries and bytes. Verbs: `put`, `get`, `remove`; `take_tag`, `take_matching`,
//! `clear`; getters `len`, `bytes`, `counts`.

use crate::glob::Glob;
use crate::lru::Bounds;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry takes beside its name, its value and its tags.
const ENTRY_BYTES: usize = 200;
/// What a tag of an entry takes beside its name.
const TAG_BYTES: usize = 100;

/// What an application has put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, as it came.
    pub value: Arc<[u8]>,
    /// Its media type.
    pub content_type: Arc<str>,
    /// What else takes it.
    pub tags: Arc<[Box<str>]>,
    /// When it ends.
    pub until: Instant,
}

/// What has become of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryCounts {
    /// Found.
    pub hits: u64,
    /// Asked for and not there.
    pub misses: u64,
    /// Put.
    pub puts: u64,
    /// Made room for others.
    pub evictions: u64,
    /// Taken by name, tag, pattern, or all at once.
    pub invalidations: u64,
}

#[derive(Clone, Debug)]
struct Node {
    entry: Entry,
    bytes: usize,
    /// Its place in the order of use.
    used: u64,
}

/// One process's.
#[derive(Clone, Debug)]
pub struct Entries {
    bounds: Bounds,
    nodes: FxHashMap<Arc<str>, Node>,
    /// The one asked for longest ago first.
    order: BTreeMap<u64, Arc<str>>,
    tagged: FxHashMap<Box<str>, FxHashSet<Arc<str>>>,
    next_use: u64,
    bytes: usize,
    counts: EntryCounts,
}

impl Entries {
    /// Empty.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            nodes: FxHashMap::default(),
            order: BTreeMap::new(),
            tagged: FxHashMap::default(),
            next_use: 0,
            bytes: 0,
            counts: EntryCounts::default(),
        }
    }

    /// Entries that are there, those that have ended and were not looked for included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Is none there?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Memory of names, values and tags, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What happened so far.
    pub fn counts(&self) -> EntryCounts {
        self.counts
    }

    /// Keeps a value for so long, cut to the bound, in place of what has its name. False: it is larger than all the room there
    /// is, and nothing has this name now.
    pub fn put(&mut self, name: &str, entry: Entry, ttl: Duration, now: Instant) -> bool {
        self.drop_node(name);
        let bytes = ENTRY_BYTES
            + name.len()
            + entry.value.len()
            + entry.content_type.len()
            + entry.tags.iter().map(|tag| tag.len() + TAG_BYTES).sum::<usize>();
        if bytes > self.bounds.bytes || self.bounds.entries == 0 {
            return false;
        }
        while self.nodes.len() >= self.bounds.entries || self.bytes + bytes > self.bounds.bytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.drop_node(&oldest);
            self.counts.evictions += 1;
        }
        let name: Arc<str> = name.into();
        for tag in entry.tags.iter() {
            self.tagged.entry(tag.clone()).or_default().insert(name.clone());
        }
        let until = now + ttl.min(self.bounds.ttl);
        let used = self.use_now();
        self.order.insert(used, name.clone());
        self.nodes.insert(name, Node { entry: Entry { until, ..entry }, bytes, used });
        self.bytes += bytes;
        self.counts.puts += 1;
        true
    }

    /// The entry of this name, which is the one asked for last from now on.
    pub fn get(&mut self, name: &str, now: Instant) -> Option<Entry> {
        let used = self.use_now();
        let found = self.nodes.get_mut(name).filter(|node| now < node.entry.until);
        let Some(node) = found else {
            // Of no more use, if it is there.
            self.drop_node(name);
            self.counts.misses += 1;
            return None;
        };
        if let Some(name) = self.order.remove(&node.used) {
            self.order.insert(used, name);
        }
        node.used = used;
        self.counts.hits += 1;
        Some(node.entry.clone())
    }

    /// Takes the entry of this name. Was it there?
    pub fn remove(&mut self, name: &str) -> bool {
        let was_there = self.drop_node(name);
        self.counts.invalidations += u64::from(was_there);
        was_there
    }

    /// Takes all entries with this tag; how many there were.
    pub fn take_tag(&mut self, tag: &str) -> usize {
        let names: Vec<Arc<str>> =
            self.tagged.get(tag).into_iter().flatten().map(Arc::clone).collect();
        self.take(&names)
    }

    /// Takes all entries whose names match; how many there were.
    pub fn take_matching(&mut self, pattern: &Glob) -> usize {
        let matching = self.nodes.keys().filter(|name| pattern.matches(name));
        let names: Vec<Arc<str>> = matching.cloned().collect();
        self.take(&names)
    }

    /// Takes all; how many there were.
    pub fn clear(&mut self) -> usize {
        let names: Vec<Arc<str>> = self.nodes.keys().cloned().collect();
        self.take(&names)
    }

    fn take(&mut self, names: &[Arc<str>]) -> usize {
        let taken = names.iter().filter(|name| self.drop_node(name)).count();
        self.counts.invalidations += taken as u64;
        taken
    }

    fn use_now(&mut self) -> u64 {
        self.next_use += 1;
        self.next_use
    }

    fn drop_node(&mut self, name: &str) -> bool {
        let Some((name, node)) = self.nodes.remove_entry(name) else { return false };
        self.order.remove(&node.used);
        self.bytes -= node.bytes;
        for tag in node.entry.tags.iter() {
            if let Some(names) = self.tagged.get_mut(tag) {
                names.remove(&name);
                if names.is_empty() {
                    self.tagged.remove(tag);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { entries: 3, bytes: 100_000, ttl: Duration::from_secs(1_000) };

    fn entry(value: &str, tags: &[&str], now: Instant) -> Entry {
        Entry {
            value: value.as_bytes().into(),
            content_type: "text/plain".into(),
            tags: tags.iter().map(|tag| Box::from(*tag)).collect(),
            until: now,
        }
    }

    fn value(entries: &mut Entries, name: &str, now: Instant) -> Option<String> {
        entries.get(name, now).map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }

    #[test]
    fn entries_end_when_they_are_told_and_the_least_used_makes_room() {
        let now = Instant::now();
        let mut entries = Entries::new(BOUNDS);
        let second = Duration::from_secs(1);
        for name in ["a", "b", "c"] {
            assert!(entries.put(name, entry(name, &[], now), 10 * second, now));
        }
        assert_eq!(value(&mut entries, "a", now).as_deref(), Some("a"));
        entries.put("d", entry("d", &[], now), 5 * second, now);
        assert_eq!(value(&mut entries, "b", now), None);
        assert_eq!(value(&mut entries, "a", now).as_deref(), Some("a"));
        assert_eq!(value(&mut entries, "d", now + 5 * second), None);
        assert_eq!(value(&mut entries, "a", now + 5 * second).as_deref(), Some("a"));
        let large = "x".repeat(BOUNDS.bytes);
        assert!(!entries.put("a", entry(&large, &[], now), second, now));
        assert_eq!(value(&mut entries, "a", now), None, "what was there is not the value any more");
        assert_eq!(entries.counts().evictions, 1);
        entries.clear();
        assert_eq!((entries.len(), entries.bytes()), (0, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, Vec<u8>),
        Get(u8),
        Remove(u8),
        Tag(u8),
        Matching(&'static str),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..6_u8, prop::collection::vec(0..3_u8, 0..3)).prop_map(|(n, t)| Step::Put(n, t)),
            (0..6_u8).prop_map(Step::Get),
            (0..6_u8).prop_map(Step::Remove),
            (0..3_u8).prop_map(Step::Tag),
            prop::sample::select(vec!["*", "key-0", "key-[12]", "*-?", "x*"])
                .prop_map(Step::Matching),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 18: exact LRU order. Property 43: all entries of a tag go at once. Property 46: all entries whose name
        // matches go.
        #[test]
        fn entries_are_their_model(steps in steps()) {
            let now = Instant::now();
            let mut entries = Entries::new(BOUNDS);
            // The one asked for last is at the end.
            let mut model: Vec<(String, Vec<String>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Put(n, tags) => {
                        let name = format!("key-{n}");
                        let tags: Vec<String> = tags.iter().map(|tag| format!("tag-{tag}")).collect();
                        let refs: Vec<&str> = tags.iter().map(String::as_str).collect();
                        entries.put(&name, entry(&name, &refs, now), Duration::from_secs(9), now);
                        model.retain(|(known, _)| *known != name);
                        if model.len() == BOUNDS.entries {
                            model.remove(0);
                        }
                        model.push((name, tags));
                    }
                    Step::Get(n) => {
                        let name = format!("key-{n}");
                        let found = value(&mut entries, &name, now);
                        let place = model.iter().position(|(known, _)| *known == name);
                        prop_assert_eq!(found.is_some(), place.is_some());
                        if let Some(place) = place {
                            let used = model.remove(place);
                            model.push(used);
                        }
                    }
                    Step::Remove(n) => {
                        let name = format!("key-{n}");
                        let was_there = model.iter().any(|(known, _)| *known == name);
                        prop_assert_eq!(entries.remove(&name), was_there);
                        model.retain(|(known, _)| *known != name);
                    }
                    Step::Tag(tag) => {
                        let tag = format!("tag-{tag}");
                        let before = model.len();
                        model.retain(|(_, tags)| !tags.contains(&tag));
                        prop_assert_eq!(entries.take_tag(&tag), before - model.len());
                    }
                    Step::Matching(pattern) => {
                        let pattern = Glob::new(pattern).unwrap();
                        let before = model.len();
                        model.retain(|(name, _)| !pattern.matches(name));
                        prop_assert_eq!(entries.take_matching(&pattern), before - model.len());
                    }
                }
                prop_assert_eq!(entries.len(), model.len());
            }
            let in_order: Vec<&str> = entries.order.values().map(|name| &**name).collect();
            let wanted: Vec<&str> = model.iter().map(|(name, _)| name.as_str()).collect();
            prop_assert_eq!(in_order, wanted);
            entries.clear();
            prop_assert_eq!((entries.bytes(), entries.tagged.len(), entries.order.len()), (0, 0, 0));
        }
    }
}
