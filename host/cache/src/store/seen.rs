//! Whether a key was asked for a while ago, in little memory, now and then taken for one that was.
//!
//! Two rows of bits: a key is noted in the younger one, by two bits; when so many are noted, the older row is emptied and
//! is the younger one from then on. So a key is remembered for as many others as one row takes, and for no more than two.

/// Bits of a row for each key that it takes: of keys that were never asked for one in a few hundred is taken for one that was.
const BITS_PER_KEY: usize = 32;
/// A row takes so many keys for each answer there is room for, and so many at least and at most.
const KEYS_PER_ENTRY: usize = 8;
const KEYS_MIN: usize = 1_024;
const KEYS_MAX: usize = 1 << 20;

/// Keys that were asked for.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    rows: [Box<[u64]>; 2],
    /// The younger one.
    young: usize,
    /// Keys noted in it.
    keys: usize,
    keys_max: usize,
}

impl Seen {
    /// For a store of so many entries.
    pub(super) fn new(entries: usize) -> Self {
        let keys_max = entries.saturating_mul(KEYS_PER_ENTRY).clamp(KEYS_MIN, KEYS_MAX);
        let words = (keys_max * BITS_PER_KEY / u64::BITS as usize).next_power_of_two();
        let row = || vec![0; words].into_boxed_slice();
        Self { rows: [row(), row()], young: 0, keys: 0, keys_max }
    }

    /// Notes a key by its hash. Was it noted before?
    pub(super) fn note(&mut self, hash: u128) -> bool {
        let places = [hash as u64, (hash >> 64) as u64];
        let is_in = |row: &[u64]| {
            places.iter().all(|place| {
                let (word, bit) = Self::place(*place, row.len());
                row.get(word).is_some_and(|word| word & bit != 0)
            })
        };
        let [young, old] = [self.young, 1 - self.young].map(|row| is_in(&self.rows[row]));
        if !young {
            if self.keys >= self.keys_max {
                self.young = 1 - self.young;
                self.rows[self.young].fill(0);
                self.keys = 0;
            }
            self.keys += 1;
            let row = &mut self.rows[self.young];
            for place in places {
                let (word, bit) = Self::place(place, row.len());
                if let Some(word) = row.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        young || old
    }

    /// In a row of so many words, a power of two: the word, and the bit in it.
    fn place(hash: u64, words: usize) -> (usize, u64) {
        ((hash >> 6) as usize & (words - 1), 1 << (hash & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the keys' hash does.
    fn hash(number: u64) -> u128 {
        xxhash_rust::xxh3::xxh3_128_with_seed(&number.to_le_bytes(), 7)
    }

    #[test]
    fn few_that_were_never_asked_for_are_taken_for_one_that_was() {
        let mut seen = Seen::new(1_000);
        let taken = (0..100_000).filter(|number| seen.note(hash(*number))).count();
        assert!(taken < 1_500, "{taken}");
        // A hundred bytes or so for each answer there is room for.
        assert!(seen.rows.iter().map(|row| row.len() * 8).sum::<usize>() <= 1_000 * 128);
        let bytes =
            |entries| Seen::new(entries).rows.iter().map(|row| row.len() * 8).sum::<usize>();
        assert!(bytes(usize::MAX) <= 16 << 20 && bytes(0) > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        // Property 18: whatever is asked for twice, with fewer different ones between than are remembered, is known the second time.
        #[test]
        fn what_was_asked_for_a_while_ago_is_known(
            first in any::<u64>(), before in 0..3_000_u64, between in 0..KEYS_MIN as u64, start in any::<u64>(),
        ) {
            let mut seen = Seen::new(10);
            let others = |from: u64, count: u64| (0..count).map(move |n| hash(from.wrapping_add(n)));
            others(start, before).for_each(|key| _ = seen.note(key));
            seen.note(hash(first));
            others(start.wrapping_add(before), between).for_each(|key| _ = seen.note(key));
            prop_assert!(seen.note(hash(first)));
        }
    }
}
