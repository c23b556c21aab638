//! Single flight: of several reads of one key at the same time one leads, and the others wait for what it brings.
//!
//! ```text
//!  a miss ─┬─ nobody reads the key under these versions ──▶ leads ── kept, or not ──┐
//!          └─ somebody does ──▶ follows ◀── told how that has ended, or late ◀──────┘
//!                                  └──▶ looks again, as if it had just come
//! ```
//!
//! Nobody is handed the leader's answer. Whoever has followed looks for it in the store, whose rules decide as for anybody else: so
//! following changes when an answer is given, and never which. A leader is followed only under the versions that stand, so that what
//! it brings can be found at all.
//!
//! Verbs: `join` → [`Joined`]; `end` → who is to be told. Getter `counts`.

use crate::key::Key;
use crate::store::Fill;
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};
use tidegate_core::limits::FOLLOWERS_MAX;

/// What is not fit to be kept will hardly be the next time: for so long nobody waits for it.
const UNFIT_TIME: Duration = Duration::from_secs(10);
/// Keys of which that is remembered.
const UNFIT_MAX: usize = 1_024;

/// How a leader's read has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Its answer is kept, if it still stands.
    Put,
    /// The leader is gone: another may lead.
    Left,
    /// Nothing is kept this time: there was no server, or none that is fresh enough.
    NotKept,
    /// The answer is nothing that can be kept: an error, a notice, too many bytes.
    Unfit,
}

impl Landing {
    /// May whoever has followed do so once more? Where nothing comes of it, all run at once.
    pub fn may_follow(self) -> bool {
        matches!(self, Self::Put | Self::Left)
    }
}

/// A read that others may wait for. Must be given to `end`.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
#[must_use]
pub struct Lead(u64);

/// What becomes of a read whose answer is not there.
#[derive(Debug)]
#[must_use]
pub enum Joined {
    /// It runs, and the others may wait for it.
    Leads(Lead),
    /// It is told when the one that runs has ended.
    Follows,
    /// It runs for itself.
    Runs,
}

/// How often reads have followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowCounts {
    /// Reads that waited for another's.
    pub followed: u64,
    /// Of these, those that were answered with what it brought.
    pub served: u64,
}

#[derive(Clone, Debug)]
struct Flight<W> {
    key: Key,
    fill: Fill,
    began: Instant,
    waiting: Vec<W>,
}

/// The reads of one process that run to fill the store, and who waits for them. `W` is by what somebody is told.
#[derive(Clone, Debug)]
pub struct Followers<W> {
    /// No read is followed, or followed any more, that began longer ago. Zero: none is.
    patience: Duration,
    flights: FxHashMap<u64, Flight<W>>,
    /// The newest of each key.
    newest: FxHashMap<u128, u64>,
    last: u64,
    unfit: FxHashMap<u128, Instant>,
    counts: FollowCounts,
}

impl<W> Followers<W> {
    /// Nobody waits longer than `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            flights: FxHashMap::default(),
            newest: FxHashMap::default(),
            last: 0,
            unfit: FxHashMap::default(),
            counts: FollowCounts::default(),
        }
    }

    /// How long anybody waits.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How often that has happened.
    pub fn counts(&self) -> FollowCounts {
        self.counts
    }

    /// Somebody who has followed is answered with what was brought.
    pub fn note_served(&mut self) {
        self.counts.served += 1;
    }

    /// A read of this key was looked for in vain, and may be filled under these versions, which stand.
    pub fn join(
        &mut self,
        key: &Key,
        fill: &Fill,
        now: Instant,
        follower: impl FnOnce() -> W,
    ) -> Joined {
        if self.patience.is_zero() || self.is_unfit(key, now) {
            return Joined::Runs;
        }
        let newest = self.newest.get(&key.hash()).and_then(|number| self.flights.get_mut(number));
        if let Some(flight) = newest
            && flight.key == *key
            && flight.fill.has_versions_of(fill)
            && now < flight.began + self.patience
        {
            if flight.waiting.len() >= FOLLOWERS_MAX {
                return Joined::Runs;
            }
            flight.waiting.push(follower());
            self.counts.followed += 1;
            return Joined::Follows;
        }
        // Whoever follows one of before is told by that one.
        self.last += 1;
        let flight =
            Flight { key: key.clone(), fill: fill.clone(), began: now, waiting: Vec::new() };
        self.flights.insert(self.last, flight);
        self.newest.insert(key.hash(), self.last);
        Joined::Leads(Lead(self.last))
    }

    /// Is a read of this key under way that others may wait for?
    pub fn is_led(&self, key: &Key) -> bool {
        let newest = self.newest.get(&key.hash()).and_then(|number| self.flights.get(number));
        newest.is_some_and(|flight| flight.key == *key)
    }

    /// A leader's read has ended, and what it brought has been put: who is to be told.
    pub fn end(&mut self, lead: Lead, landing: Landing, now: Instant) -> Vec<W> {
        let Some(flight) = self.flights.remove(&lead.0) else { return Vec::new() };
        let hash = flight.key.hash();
        if self.newest.get(&hash) == Some(&lead.0) {
            self.newest.remove(&hash);
        }
        if landing == Landing::Unfit {
            self.note_unfit(hash, now);
        }
        flight.waiting
    }

    /// Reads that may be followed, with those who do.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Is none under way?
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    fn is_unfit(&self, key: &Key, now: Instant) -> bool {
        !self.unfit.is_empty() && self.unfit.get(&key.hash()).is_some_and(|until| now < *until)
    }

    fn note_unfit(&mut self, hash: u128, now: Instant) {
        if self.unfit.len() >= UNFIT_MAX {
            self.unfit.retain(|_, until| now < *until);
            if self.unfit.len() >= UNFIT_MAX {
                self.unfit.clear();
            }
        }
        self.unfit.insert(hash, now + UNFIT_TIME);
    }

    /// Under what the newest read of a key runs, for the model.
    #[cfg(test)]
    pub(crate) fn fill_of(&self, key: &Key) -> Option<Fill> {
        Some(self.flights.get(self.newest.get(&key.hash())?)?.fill.clone())
    }
}

#[cfg(test)]
impl Lead {
    /// Which it is, for the model.
    pub(crate) fn number(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
impl Followers<usize> {
    /// Everything that decides what comes of steps from here, for the model.
    pub(crate) fn describe(&self, start: Instant, out: &mut Vec<u64>) {
        out.push(self.last);
        let mut numbers: Vec<&u64> = self.flights.keys().collect();
        numbers.sort_unstable();
        for number in numbers {
            let flight = &self.flights[number];
            out.push(*number);
            flight.fill.describe(start, out);
            out.extend(flight.waiting.iter().map(|who| *who as u64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyParts;
    use crate::lru::Bounds;
    use crate::store::{Found, Reader, Store, Tag};
    use proptest::prelude::*;
    use std::sync::Arc;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn key(name: u8) -> Key {
        Key::new(&KeyParts { text: &[name], ..KeyParts::default() }, 0)
    }

    fn database() -> Arc<str> {
        "d".into()
    }

    struct Both {
        store: Store,
        followers: Followers<u32>,
    }

    impl Both {
        fn new() -> Self {
            let bounds = Bounds { entries: 10, bytes: 10_000, ttl: Duration::from_secs(60) };
            Self { store: Store::new(bounds), followers: Followers::new(PATIENCE) }
        }

        fn join(&mut self, name: u8, who: u32, now: Instant) -> Joined {
            let stamp = self.store.stamp(&database(), now);
            let tags = [Tag::Relation(database(), name.into())];
            let of = (&database(), stamp, &tags[..]);
            let found = self.store.look(&key(name), of, Reader::default(), now);
            let Found::Fill(fill) = found else { panic!("{found:?}") };
            self.followers.join(&key(name), &fill, now, || who)
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_waited_for_again() {
        let (mut both, now) = (Both::new(), Instant::now());
        let Joined::Leads(lead) = both.join(1, 0, now) else { panic!("nobody leads") };
        assert!(matches!(both.join(1, 1, now), Joined::Follows));
        assert_eq!(both.followers.end(lead, Landing::Unfit, now), [1]);
        assert!(matches!(both.join(1, 2, now), Joined::Runs));
        assert!(matches!(both.join(1, 3, now + UNFIT_TIME), Joined::Leads(_)));
        for name in 0..=255 {
            let Joined::Leads(lead) = both.join(name, 0, now + 2 * UNFIT_TIME) else { continue };
            assert!(both.followers.end(lead, Landing::Unfit, now + 2 * UNFIT_TIME).is_empty());
        }
        assert!(both.followers.unfit.len() <= UNFIT_MAX);
    }

    #[test]
    fn what_takes_too_long_is_not_followed_any_more() {
        let (mut both, now) = (Both::new(), Instant::now());
        let Joined::Leads(first) = both.join(1, 0, now) else { panic!("nobody leads") };
        assert!(matches!(both.join(1, 1, now), Joined::Follows));
        let Joined::Leads(second) = both.join(1, 2, now + PATIENCE) else { panic!("it waits") };
        assert!(matches!(both.join(1, 3, now + PATIENCE), Joined::Follows));
        assert_eq!(both.followers.end(first, Landing::Put, now + PATIENCE), [1]);
        assert_eq!(both.followers.end(second, Landing::Left, now + PATIENCE), [3]);
        assert!(both.followers.is_empty() && both.followers.newest.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(u8),
        End(usize, u8),
        Write(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_u8).prop_map(Step::Join),
            2 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Step::End(which, how)),
            1 => (0..3_u8).prop_map(Step::Write),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 17: of the reads of one answer under the same versions one runs; each of the others is told once, by the one
        // that it followed, and nobody is forgotten.
        #[test]
        fn whoever_follows_is_told(steps in proptest::collection::vec(step(), 1..80)) {
            let (mut both, now) = (Both::new(), Instant::now());
            // Name, round of writes, lead, and who follows it.
            let mut flying: Vec<(u8, u32, Lead, Vec<u32>)> = Vec::new();
            let mut rounds = [0; 3];
            for (who, step) in steps.into_iter().enumerate() {
                let who = who as u32;
                match step {
                    Step::Write(name) => {
                        both.store.bump(&[Tag::Relation(database(), name.into())], now);
                        rounds[usize::from(name)] += 1;
                    }
                    Step::Join(name) => {
                        let round = rounds[usize::from(name)];
                        let led = flying.iter_mut().find(|(of, at, ..)| (*of, *at) == (name, round));
                        match (both.join(name, who, now), led) {
                            (Joined::Follows, Some((.., follow))) => follow.push(who),
                            (Joined::Leads(lead), None) => flying.push((name, round, lead, Vec::new())),
                            (joined, led) => prop_assert!(false, "{joined:?} {led:?}"),
                        }
                    }
                    Step::End(which, how) if !flying.is_empty() => {
                        let (.., lead, follow) = flying.swap_remove(which % flying.len());
                        let landing = [Landing::Put, Landing::Left, Landing::NotKept][usize::from(how)];
                        prop_assert_eq!(both.followers.end(lead, landing, now), follow);
                    }
                    Step::End(..) => {}
                }
                prop_assert_eq!(both.followers.len(), flying.len());
            }
        }
    }
}
