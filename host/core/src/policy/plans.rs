//! Answers kept by shape: a bounded map for one thread, in which an answer of another generation is none.

use crate::limits::POLICY_PLANS_MAX;
use rustc_hash::FxHashMap;
use std::hash::Hash;

/// Plans by key. When it is full, the one that was not asked for longest is approximated by a clock's hand.
///
/// getters: `len`, `is_empty`, `counts`; commands: `get`, `put`.
#[derive(Debug)]
pub struct Plans<K, P> {
    places: FxHashMap<K, u32>,
    entries: Vec<Entry<K, P>>,
    hand: usize,
    most: usize,
    counts: PlanCounts,
}

/// What became of questions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// A plan was known.
    pub found: u64,
    /// A plan was made and kept.
    pub made: u64,
}

#[derive(Debug)]
struct Entry<K, P> {
    key: K,
    plan: P,
    generation: u64,
    /// Asked for since the hand came by.
    is_used: bool,
}

impl<K: Hash + Eq + Copy, P> Default for Plans<K, P> {
    fn default() -> Self {
        Self::with_most(POLICY_PLANS_MAX)
    }
}

impl<K: Hash + Eq + Copy, P> Plans<K, P> {
    /// Holds at least one plan and at most so many.
    pub fn with_most(most: usize) -> Self {
        let most = most.clamp(1, POLICY_PLANS_MAX);
        Self {
            places: FxHashMap::default(),
            entries: Vec::new(),
            hand: 0,
            most,
            counts: PlanCounts::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn counts(&self) -> PlanCounts {
        self.counts
    }

    /// The plan that the generation gave for the key.
    #[inline]
    pub fn get(&mut self, key: K, generation: u64) -> Option<&P> {
        let place = *self.places.get(&key)?;
        let entry = self.entries.get_mut(place as usize)?;
        entry.is_used = true;
        if entry.generation != generation {
            return None;
        }
        self.counts.found += 1;
        Some(&entry.plan)
    }

    /// Keeps a plan, in place of another generation's.
    pub fn put(&mut self, key: K, generation: u64, plan: P) {
        self.counts.made += 1;
        // Not counted as used: what is seen once leaves before what is asked for again.
        let entry = Entry { key, plan, generation, is_used: false };
        if let Some(place) = self.places.get(&key) {
            if let Some(old) = self.entries.get_mut(*place as usize) {
                *old = entry;
            }
            return;
        }
        let place = if self.entries.len() < self.most {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.free();
            if let Some(old) = self.entries.get_mut(place) {
                self.places.remove(&old.key);
                *old = entry;
            }
            place
        };
        self.places.insert(key, u32::try_from(place).unwrap_or(u32::MAX));
    }

    /// Moves the hand to an entry that was not asked for since it came by, which is at most one round away.
    fn free(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len().max(1);
            match self.entries.get_mut(place) {
                Some(entry) if entry.is_used => entry.is_used = false,
                _ => return place,
            }
        }
    }
}

const _: () = assert!(POLICY_PLANS_MAX > 0 && POLICY_PLANS_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn what_is_asked_for_stays() {
        let mut plans = Plans::with_most(3);
        for key in 0..3u32 {
            plans.put(key, 1, key);
        }
        for key in 10..1_000 {
            assert_eq!(plans.get(0, 1), Some(&0));
            plans.put(key, 1, key);
        }
        assert_eq!(plans.get(0, 1), Some(&0));
        assert_eq!(plans.get(1, 1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_plan_is_what_its_generation_gave_last_or_none(
            most in 1..8usize,
            steps in prop::collection::vec((0..12u8, 0..3u64, any::<bool>()), 1..200),
        ) {
            let mut plans = Plans::with_most(most);
            let mut model: HashMap<u8, (u64, usize)> = HashMap::new();
            for (number, (key, generation, is_put)) in steps.into_iter().enumerate() {
                if is_put {
                    plans.put(key, generation, number);
                    model.insert(key, (generation, number));
                    prop_assert_eq!(plans.get(key, generation), Some(&number));
                } else if let Some(plan) = plans.get(key, generation) {
                    prop_assert_eq!(model.get(&key), Some(&(generation, *plan)));
                }
                prop_assert!(plans.len() <= most && plans.places.len() == plans.len());
            }
        }
    }
}
