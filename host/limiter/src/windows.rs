//! The windows of all buckets, in bounded memory.

use super::share::{Name, Share};
use super::window::Window;
use rustc_hash::FxHashMap;
use std::time::Duration;
use tidegate_core::limits::LIMIT_WINDOWS_MAX;

/// Looked at to find one that may go.
const CANDIDATES: usize = 8;

/// One bucket.
#[derive(Debug)]
pub(super) struct Entry {
    key: u128,
    /// What this process has let through.
    pub(super) window: Window,
    /// What all know of it, if it is counted together.
    share: Option<Box<Share>>,
}

impl Entry {
    fn new(key: u128, length: Duration) -> Self {
        Self { key, window: Window::new(length), share: None }
    }

    /// Its part in what is shared; `name` says what it is called there.
    #[inline]
    pub(super) fn shared(
        &mut self,
        length: Duration,
        name: impl FnOnce() -> Name,
    ) -> (&mut Window, &mut Share) {
        let share = self.share.get_or_insert_with(|| Box::new(Share::new(name(), length)));
        (&mut self.window, share)
    }

    pub(super) fn share(&mut self) -> Option<(&mut Window, &mut Share)> {
        self.share.as_deref_mut().map(|share| (&mut self.window, share))
    }
}

/// Windows by a key that is already a hash. When there are too many, the least used of a few goes: who is near a limit
/// stays counted, whoever else comes by.
#[derive(Debug)]
pub(super) struct Windows {
    places: FxHashMap<u128, usize>,
    entries: Vec<Entry>,
    hand: usize,
    most: usize,
}

impl Default for Windows {
    fn default() -> Self {
        Self::with_most(LIMIT_WINDOWS_MAX)
    }
}

impl Windows {
    pub(super) fn with_most(most: usize) -> Self {
        let most = most.clamp(1, LIMIT_WINDOWS_MAX);
        Self { places: FxHashMap::default(), entries: Vec::new(), hand: 0, most }
    }

    /// Where the bucket's window is.
    pub(super) fn place(&mut self, key: u128, length: Duration, now: Duration) -> usize {
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let entry = Entry::new(key, length);
        let place = if self.entries.len() < self.most {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.least_used(now);
            self.places.remove(&self.entries[place].key);
            self.entries[place] = entry;
            place
        };
        self.places.insert(key, place);
        place
    }

    /// The bucket at a place that [`Windows::place`] gave; while no other was asked for, it is still that one's.
    pub(super) fn at(&mut self, place: usize) -> &mut Entry {
        &mut self.entries[place]
    }

    /// A bucket that is counted together, if it is there.
    pub(super) fn shared(&mut self, key: u128) -> Option<(&mut Window, &mut Share)> {
        let place = *self.places.get(&key)?;
        self.entries[place].share()
    }

    /// All that are counted together.
    pub(super) fn all_shared(&mut self) -> impl Iterator<Item = (u128, &mut Share)> {
        self.entries.iter_mut().filter_map(|entry| Some((entry.key, entry.share.as_deref_mut()?)))
    }

    fn least_used(&mut self, now: Duration) -> usize {
        let count = self.entries.len();
        let candidates = (0..CANDIDATES.min(count)).map(|step| (self.hand + step) % count);
        let mut least = (self.hand, u32::MAX);
        for place in candidates {
            let used = self.entries[place].window.used(now);
            if used < least.1 {
                least = (place, used);
            }
        }
        self.hand = (self.hand + CANDIDATES) % count;
        least.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_near_a_limit_stays_counted() {
        let mut windows = Windows::with_most(16);
        let (length, now) = (Duration::from_secs(60), Duration::from_secs(1));
        let heavy = windows.place(0, length, now);
        windows.at(heavy).window.charge(90, now);
        for key in 1..10_000 {
            let place = windows.place(key, length, now);
            windows.at(place).window.charge(1, now);
            assert!(windows.entries.len() <= 16 && windows.places.len() == windows.entries.len());
        }
        let heavy = windows.place(0, length, now);
        assert_eq!(windows.at(heavy).window.used(now), 90);
    }
}
