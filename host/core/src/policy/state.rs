//! Values that a policy keeps at the host: a bounded store with lifetimes, one a slot.

use crate::limits::{
    POLICY_STATE_BYTES_MAX, POLICY_STATE_KEY_BYTES_MAX, POLICY_STATE_KEYS_MAX,
    POLICY_STATE_VALUE_BYTES_MAX,
};
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// Why something is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The store is full.
    QuotaExceeded,
    /// The key or the value is longer than the host takes.
    TooLarge,
    /// `add` to a value that is no counter.
    NotACounter,
}

/// How long a value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is removed.
    Endless,
    For(Duration),
}

impl Lifetime {
    /// As plugins write it: 0 for endless.
    pub fn from_ms(ms: u64) -> Lifetime {
        if ms == 0 { Lifetime::Endless } else { Lifetime::For(Duration::from_millis(ms)) }
    }

    fn end(self, now: Instant) -> Option<Instant> {
        match self {
            Lifetime::Endless => None,
            // Longer than a clock can say is endless.
            Lifetime::For(time) => now.checked_add(time),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Box<[u8]>),
    Counter(i64),
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Bytes(bytes) => bytes.to_vec(),
            Value::Counter(number) => number.to_le_bytes().to_vec(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Counter(_) => size_of::<i64>(),
        }
    }
}

#[derive(Clone, Debug)]
struct Kept {
    value: Value,
    until: Option<Instant>,
}

/// Keys and values. An expired value is as good as none, and makes room when room is needed.
///
/// getter: `get`; commands: `put`, `remove`, `add`, `compare_and_put`.
#[derive(Debug, Default)]
pub struct StateStore {
    values: FxHashMap<Box<str>, Kept>,
    /// Keys and values together.
    bytes: usize,
}

impl StateStore {
    /// A counter reads as eight bytes, little-endian.
    pub fn get(&self, key: &str, now: Instant) -> Option<Vec<u8>> {
        self.live(key, now).map(|kept| kept.value.bytes())
    }

    pub fn put(
        &mut self,
        key: &str,
        value: &[u8],
        lifetime: Lifetime,
        now: Instant,
    ) -> Result<(), StateError> {
        self.keep(key, Kept { value: Value::Bytes(value.into()), until: lifetime.end(now) }, now)
    }

    pub fn remove(&mut self, key: &str) {
        if let Some(kept) = self.values.remove(key) {
            self.bytes -= key.len() + kept.value.len();
        }
    }

    /// Adds to a counter, and returns its new value; it stays within 64 bits. A counter that was not there begins with
    /// 0 and lives from its first `add`.
    pub fn add(
        &mut self,
        key: &str,
        delta: i64,
        lifetime: Lifetime,
        now: Instant,
    ) -> Result<i64, StateError> {
        let live = |kept: &&mut Kept| kept.until.is_none_or(|until| now < until);
        match self.values.get_mut(key).filter(live) {
            Some(Kept { value: Value::Counter(number), .. }) => {
                *number = number.saturating_add(delta);
                Ok(*number)
            }
            Some(Kept { value: Value::Bytes(_), .. }) => Err(StateError::NotACounter),
            None => {
                let kept = Kept { value: Value::Counter(delta), until: lifetime.end(now) };
                self.keep(key, kept, now).map(|()| delta)
            }
        }
    }

    /// Puts only if the value is still `expected`; tells whether it did.
    pub fn compare_and_put(
        &mut self,
        key: &str,
        expected: Option<&[u8]>,
        put: (&[u8], Lifetime),
        now: Instant,
    ) -> Result<bool, StateError> {
        if self.get(key, now).as_deref() != expected {
            return Ok(false);
        }
        self.put(key, put.0, put.1, now).map(|()| true)
    }

    fn live(&self, key: &str, now: Instant) -> Option<&Kept> {
        self.values.get(key).filter(|kept| kept.until.is_none_or(|until| now < until))
    }

    fn keep(&mut self, key: &str, kept: Kept, now: Instant) -> Result<(), StateError> {
        let (key_bytes, value_bytes) = (key.len(), kept.value.len());
        if key_bytes > POLICY_STATE_KEY_BYTES_MAX || value_bytes > POLICY_STATE_VALUE_BYTES_MAX {
            return Err(StateError::TooLarge);
        }
        if !self.has_room(key, value_bytes) {
            self.sweep(now);
            if !self.has_room(key, value_bytes) {
                return Err(StateError::QuotaExceeded);
            }
        }
        self.remove(key);
        self.bytes += key_bytes + value_bytes;
        self.values.insert(key.into(), kept);
        Ok(())
    }

    fn has_room(&self, key: &str, value_bytes: usize) -> bool {
        let own = self.values.get(key).map(|kept| key.len() + kept.value.len());
        let keys = self.values.len() + usize::from(own.is_none());
        let bytes = self.bytes - own.unwrap_or(0) + key.len() + value_bytes;
        keys <= POLICY_STATE_KEYS_MAX && bytes <= POLICY_STATE_BYTES_MAX
    }

    fn sweep(&mut self, now: Instant) {
        self.values.retain(|key, kept| {
            let stays = kept.until.is_none_or(|until| now < until);
            if !stays {
                self.bytes -= key.len() + kept.value.len();
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_full_store_takes_nothing_more_until_something_expires() {
        let mut store = StateStore::default();
        let start = Instant::now();
        let value = vec![7; POLICY_STATE_VALUE_BYTES_MAX];
        let mut kept = 0;
        let full = loop {
            let key = format!("{kept:04}");
            match store.put(&key, &value, Lifetime::For(MS), start) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, StateError::QuotaExceeded);
        assert!(kept * value.len() <= POLICY_STATE_BYTES_MAX && kept > 10);
        assert_eq!(store.put("late", &value, Lifetime::Endless, start + MS), Ok(()));
        assert_eq!(store.bytes, value.len() + 4);
    }

    #[test]
    fn keys_are_counted_and_long_ones_refused() {
        let mut store = StateStore::default();
        let now = Instant::now();
        for key in 0..POLICY_STATE_KEYS_MAX {
            assert_eq!(store.add(&key.to_string(), 1, Lifetime::Endless, now), Ok(1));
        }
        let more = store.add("more", 1, Lifetime::Endless, now);
        assert_eq!(more, Err(StateError::QuotaExceeded));
        assert_eq!(store.add("0", 1, Lifetime::Endless, now), Ok(2));
        let long = "k".repeat(POLICY_STATE_KEY_BYTES_MAX + 1);
        assert_eq!(store.put(&long, b"", Lifetime::Endless, now), Err(StateError::TooLarge));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(String, Vec<u8>, u64),
        Add(String, i64, u64),
        Compare(String, Option<Vec<u8>>, Vec<u8>),
        Remove(String),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || "[abc]";
        let bytes = || prop::collection::vec(0..3u8, 0..3);
        prop_oneof![
            (key(), bytes(), 0..4u64).prop_map(|(k, v, t)| Step::Put(k, v, t)),
            (key(), any::<i64>(), 0..4u64).prop_map(|(k, d, t)| Step::Add(k, d, t)),
            (key(), prop::option::of(bytes()), bytes())
                .prop_map(|(k, e, v)| Step::Compare(k, e, v)),
            key().prop_map(Step::Remove),
            (0..3u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_store_is_a_map_with_lifetimes(steps in prop::collection::vec(step(), 1..60)) {
            let start = Instant::now();
            let mut store = StateStore::default();
            let mut now_ms = 0;
            let mut model: BTreeMap<String, (Value, u64)> = BTreeMap::new();
            let end = |ttl: u64, now: u64| if ttl == 0 { u64::MAX } else { now + ttl };
            for step in steps {
                let now = start + Duration::from_millis(now_ms);
                model.retain(|_, (_, until)| now_ms < *until);
                match step {
                    Step::Put(key, value, ttl) => {
                        store.put(&key, &value, Lifetime::from_ms(ttl), now).unwrap();
                        model.insert(key, (Value::Bytes(value.into()), end(ttl, now_ms)));
                    }
                    Step::Add(key, delta, ttl) => {
                        let sum = store.add(&key, delta, Lifetime::from_ms(ttl), now);
                        let fresh = (Value::Counter(0), end(ttl, now_ms));
                        match &mut model.entry(key).or_insert(fresh).0 {
                            Value::Counter(number) => {
                                *number = number.saturating_add(delta);
                                prop_assert_eq!(sum, Ok(*number));
                            }
                            Value::Bytes(_) => prop_assert_eq!(sum, Err(StateError::NotACounter)),
                        }
                    }
                    Step::Compare(key, expected, value) => {
                        let done = store
                            .compare_and_put(&key, expected.as_deref(), (&value, Lifetime::Endless), now)
                            .unwrap();
                        let same = model.get(&key).map(|(value, _)| value.bytes()) == expected;
                        prop_assert_eq!(done, same);
                        if same {
                            model.insert(key, (Value::Bytes(value.into()), u64::MAX));
                        }
                    }
                    Step::Remove(key) => {
                        store.remove(&key);
                        model.remove(&key);
                    }
                    Step::Wait(ms) => now_ms += ms,
                }
                let now = start + Duration::from_millis(now_ms);
                for key in ["a", "b", "c"] {
                    let expected = model.get(key).filter(|(_, until)| now_ms < *until);
                    prop_assert_eq!(store.get(key, now), expected.map(|(value, _)| value.bytes()));
                }
                let bytes: usize = store.values.iter().map(|(k, v)| k.len() + v.value.len()).sum();
                prop_assert_eq!(store.bytes, bytes);
            }
        }
    }
}
